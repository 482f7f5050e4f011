"""What each parameter of a handler is given: the whole payload, one member of it, or the context.

The rules are in the README under "Inputs". Functions without annotations, of one or two parameters,
are the common case and are read from their code objects alone. This module does not read payloads.
"""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable
from functools import partial
from types import FunctionType, SimpleNamespace
from typing import Any, NamedTuple

from protocol import Method

from .context import Context

_VARARGS = 0x04  # inspect.CO_VARARGS

NO_DEFAULT = inspect.Parameter.empty
_KIND = inspect.Parameter


class Parameter(NamedTuple):
    """One parameter of a handler. `annotation` is as it was written, None if there is none."""

    name: str
    annotation: Any = None
    default: Any = NO_DEFAULT
    by_keyword: bool = False
    """Whether the parameter can only be given by its name."""

    @property
    def required(self) -> bool:
        """Whether the parameter has no default."""
        return self.default is NO_DEFAULT

    @property
    def from_caller(self) -> bool:
        """Whether a caller's input gives the value. A default that is not annotated is the
        function's own affair, and so is a name that begins with an underscore."""
        return self.required or (self.annotation is not None and not self.name.startswith("_"))


class Roles(NamedTuple):
    """What is given to which parameter: all `parameters`, in order, and those that have a role."""

    parameters: tuple[Parameter, ...]
    whole: Parameter | None = None
    """Given the payload itself."""
    members: tuple[Parameter, ...] = ()
    """Given the payload's members of their names, where `whole` is None."""
    context: Parameter | None = None


def roles_of(method: Method, function: Callable[..., object]) -> Roles:
    """Raises TypeError for a function that cannot be a handler of the method."""
    if isinstance(function, FunctionType) and not hasattr(function, "__wrapped__"):
        code = function.__code__
        simple = not code.co_kwonlyargcount and not code.co_flags & _VARARGS
        plain = simple and not function.__defaults__ and not annotations_of(function)
        if plain and code.co_argcount in {1, 2}:
            parameters = tuple(Parameter(name) for name in code.co_varnames[: code.co_argcount])
            context = parameters[1] if len(parameters) == 2 else None
            return Roles(parameters, parameters[0], (), context)
    return _roles_by_signature(method, function)


def annotations_of(function: Callable[..., object]) -> dict[str, Any]:
    """The annotations as they are, without an error for names that are not defined (yet)."""
    try:
        return dict(getattr(function, "__annotations__", {}))
    except NameError:
        if sys.version_info >= (3, 14):  # which evaluates them only here
            from annotationlib import Format, get_annotations  # noqa: PLC0415

            return dict(get_annotations(function, format=Format.STRING))
        raise


def resolve(annotation: Any, function: Callable[..., object]) -> Any:
    """The type that an annotation stands for, which may be a string or have strings within.

    Raises whatever evaluating it raises: NameError for what is imported under TYPE_CHECKING.
    """
    holder = SimpleNamespace(__annotations__={"it": annotation})
    namespace = getattr(innermost(function), "__globals__", {})
    return typing.get_type_hints(holder, namespace, include_extras=True)["it"]


def innermost(function: Callable[..., object]) -> Callable[..., object]:
    """The function that partials and `functools.wraps` are around, or the method that is called."""
    while True:
        if isinstance(function, partial):
            function = function.func
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        elif hasattr(function, "__func__"):
            function = function.__func__
        elif isinstance(function, FunctionType) or inspect.isbuiltin(function):
            return function
        else:
            call = getattr(type(function), "__call__", None)  # noqa: B004  (its globals are read)
            return call if isinstance(call, FunctionType) else function


def _roles_by_signature(method: Method, function: Callable[..., object]) -> Roles:
    parameters, takes_rest = _parameters_of(function)
    positional = [each for each in parameters if not each.by_keyword]
    if takes_rest and len(positional) < 2:
        # As many as there are to be given: the payload and the context.
        names = [*(each.name for each in positional), "input", "context"][:2]
        first, second = Parameter(names[0]), Parameter(names[1])
        return Roles((first, second, *parameters[len(positional) :]), first, (), second)
    context = _context_among(method, parameters, function)
    rest = [each for each in parameters if each is not context]
    if not rest:
        raise _unsuitable(method, function)
    first = rest[0]
    others_wait = all(not each.required for each in rest[1:])
    if method == "chat":
        if not others_wait or first.by_keyword:
            raise _unsuitable(method, function)
        return Roles(parameters, first, (), context)
    wanted = [each for each in rest if each is first or each.from_caller]
    if len(wanted) == 1 or (first.name == "input" and others_wait):
        return Roles(parameters, first, (), context)
    return Roles(parameters, None, tuple(wanted), context)


def _parameters_of(function: Callable[..., object]) -> tuple[tuple[Parameter, ...], bool]:
    """The parameters that can be given, and whether there are any number of positional ones."""
    # What a partial has set is no longer the caller's to choose.
    bound = set(function.keywords) if isinstance(function, partial) else set()
    raw = annotations_of(innermost(function))
    found: list[Parameter] = []
    takes_rest = False
    for each in inspect.signature(function).parameters.values():
        if each.kind is _KIND.VAR_POSITIONAL:
            takes_rest = True
        elif each.kind is not _KIND.VAR_KEYWORD and each.name not in bound:
            by_keyword = each.kind is _KIND.KEYWORD_ONLY
            found.append(Parameter(each.name, raw.get(each.name), each.default, by_keyword))
    return tuple(found), takes_rest


def _context_among(
    method: Method, parameters: tuple[Parameter, ...], function: Callable[..., object]
) -> Parameter | None:
    """The parameter that is given the context: by its annotation, its name, or its place."""
    for each in parameters:
        if each.annotation is not None and _is_context(each.annotation, function):
            return each
    for each in parameters[1:]:
        if each.name == "context":
            return each
    required = [each for each in parameters if each.required]
    second = parameters[1] if len(parameters) > 1 else None
    if second is None or second.by_keyword or required != list(parameters[:2]):
        return None
    # Two parameters without any of this: (input, context) under other names.
    return second if method == "chat" or second.annotation is None else None


def _is_context(annotation: Any, function: Callable[..., object]) -> bool:
    try:
        hint = resolve(annotation, function)
    except Exception:  # noqa: BLE001  (any code may stand in an annotation)
        if not isinstance(annotation, str):
            return False
        # Most likely it is imported under TYPE_CHECKING.
        words = annotation.replace("|", " ").replace("[", " ").replace("]", " ").split()
        return any(word.rpartition(".")[2] == "Context" for word in words)
    return hint is Context or Context in typing.get_args(hint)


def _unsuitable(method: Method, function: Callable[..., object]) -> TypeError:
    name = getattr(function, "__qualname__", None) or repr(function)
    payload = "input" if method == "invoke" else "messages"
    return TypeError(
        f"the {method} handler {name}{inspect.signature(function)} "
        f"must take ({payload}) or ({payload}, context)"
    )
