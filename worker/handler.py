"""Handlers: what kind of function each is, and how to call it.

Reads code objects where possible, because importing `inspect` takes a tenth of a worker's start.
Does not know how or where a handler runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import FunctionType, MethodType
from typing import Any, Protocol

from protocol import Method

from .context import Context

_ASYNC = 0x80 | 0x200  # inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
_VARARGS = 0x04  # inspect.CO_VARARGS


class Handler:
    """One function of an agent, ready to be called."""

    __slots__ = ("_function", "is_async", "method", "takes_context")

    def __init__(self, method: Method, function: Callable[..., object]) -> None:
        """Raises TypeError for what is not a function of (input) or (input, context)."""
        if not callable(function):
            raise TypeError(f"the {method} handler is {type(function).__name__}, not a function")
        self.method: Method = method
        self.is_async = _is_async(function)
        self._function = function
        self.takes_context = _takes_context(method, function)

    def __repr__(self) -> str:
        return f"<Handler {self.method}, {name_of(self._function)}>"

    def call(self, payload: Any, context: Context | None) -> object:
        """Call the function: an answer, an awaitable of one, or an iterator of chunks."""
        if self.takes_context:
            return self._function(payload, context)
        return self._function(payload)


class Served(Protocol):
    """An agent, as much of it as serving its requests needs."""

    name: str
    """Stands in messages for callers and authors."""
    concurrency: int
    """How many requests run at the same time, at most."""

    @property
    def handlers(self) -> Mapping[Method, Handler]:
        """One handler for each method that it serves."""


def name_of(function: object) -> str:
    """A function's name, as its author knows it."""
    return getattr(function, "__qualname__", None) or repr(function)


def _is_async(function: object) -> bool:
    """Whether a call runs none of the function's code, so that the event loop may make it."""
    while isinstance(function, partial):
        function = function.func
    if not isinstance(function, (FunctionType, MethodType)):
        function = getattr(type(function), "__call__", None)  # noqa: B004  (its code is read)
    code = getattr(function, "__code__", None)
    return code is not None and bool(code.co_flags & _ASYNC)


def _takes_context(method: Method, function: Callable[..., object]) -> bool:
    if isinstance(function, FunctionType) and not hasattr(function, "__wrapped__"):
        code = function.__code__
        simple = not code.co_kwonlyargcount and not code.co_flags & _VARARGS
        if simple and not function.__defaults__ and code.co_argcount in {1, 2}:
            return code.co_argcount == 2
    return _takes_context_by_signature(method, function)


def _takes_context_by_signature(method: Method, function: Callable[..., object]) -> bool:
    import inspect  # noqa: PLC0415  (a plain function of one or two parameters needs none)

    parameters = inspect.signature(function).parameters.values()
    kinds = inspect.Parameter
    positional = [
        p for p in parameters if p.kind in {kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD}
    ]
    required = [p for p in positional if p.default is kinds.empty]
    rest = any(p.kind is kinds.VAR_POSITIONAL for p in parameters)
    named_only = [
        p for p in parameters if p.kind is kinds.KEYWORD_ONLY and p.default is kinds.empty
    ]
    if named_only or len(required) > 2 or not (positional or rest):
        payload = "input" if method == "invoke" else "messages"
        raise TypeError(
            f"the {method} handler {name_of(function)}{inspect.signature(function)} "
            f"must take ({payload}) or ({payload}, context)"
        )
    if len(positional) < 2:
        return rest
    second = positional[1]
    # A second parameter with a default is the function's own, unless it is called `context`.
    return second.default is kinds.empty or second.name == "context"
