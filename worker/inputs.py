"""Payloads read as what a handler's annotations say.

# Theory of operation

A *reader* is made once for each annotated parameter. It takes JSON text, and returns the value or
raises `InvalidInput` with the place of the first mismatch: `input.city.name: expected str, got
int`. Whatever is raised after that, while the handler runs, is the handler's own failure.

msgspec reads what it knows: plain types, containers, unions, dataclasses, Structs, TypedDicts,
NamedTuples, attrs classes, enums, dates. Pydantic reads its own models, wherever they stand; it is
never imported here: an agent that uses its types has imported it. An annotation that neither of
them can read, or that cannot be evaluated, is not honoured: the value is passed as it is decoded,
and the worker says so once, when it starts. Agents that were written before annotations were
honoured thus go on.
"""

from __future__ import annotations

import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from types import UnionType
from typing import Any

import msgspec
from msgspec import Raw
from msgspec import inspect as types

from protocol import Method, Payload

from .context import Context, InvalidInput, decode
from .messages import converter_to
from .parameters import Parameter, Roles, resolve

Reader = Callable[[Payload], Any]

_MOST_MISMATCHES = 3
"""Mismatches that a caller is told of at once; Pydantic finds them all."""

_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)

_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode


class UncheckableError(Exception):
    """An annotation cannot be honoured; the text says why."""


def arguments(
    method: Method, function: Callable[..., object], roles: Roles
) -> tuple[
    Callable[[Payload, Context | None], tuple[list[Any], dict[str, Any]]],
    list[str],
]:
    """A function that makes a call's arguments of a payload and a context, and complaints."""
    complaints: list[str] = []
    root = "input" if method == "invoke" else "messages"

    def reader(parameter: Parameter, path: str) -> Reader:
        try:
            hint = hint_of(parameter, function)
            convert = None if method == "invoke" else converter_to(hint)
            return _converted(convert, path) if convert else reader_of(hint, path)
        except UncheckableError as error:
            reason = " ".join(str(error).split())
            complaints.append(f"the values of {parameter.name!r} are not checked: {reason}")
            return lambda text: decode(text, path)

    if roles.whole is not None:
        name = roles.whole.name
        whole = reader(roles.whole, root)
        if method == "invoke" and roles.whole.annotation is not None and name != root:
            wrapped = reader(roles.whole, f"{root}.{name}")
            read = _whole_or_wrapped(roles.whole, whole, wrapped, _hint_or_any(roles, function))
        else:
            read = _whole(name, whole)
    else:
        read = _members(
            root, [(each, reader(each, f"{root}.{each.name}")) for each in roles.members]
        )
    return _bind(roles, read), list(dict.fromkeys(complaints))


def reader_of(hint: Any, path: str) -> Reader:
    """Raises UncheckableError. `path` is where the text stands, for messages: "input"."""
    if _is_pydantic(hint):
        # It does not know everything that may stand beside its own types.
        with suppress(Exception):
            return _by_pydantic(hint, path)
    try:
        if _has_pydantic_dataclass(types.type_info(hint)):
            return _by_pydantic(hint, path)
        decoder = msgspec.json.Decoder(hint, dec_hook=_read_by_pydantic)
    except UncheckableError:
        raise
    except Exception as error:
        arms = typing.get_args(hint) if _is_union(hint) else ()
        if isinstance(error, TypeError) and arms:
            return _first_of([reader_of(arm, path) for arm in arms], hint, path)
        if "pydantic" in sys.modules:  # which knows unions of several dataclasses
            with suppress(Exception):
                return _by_pydantic(hint, path)
        raise UncheckableError(f"{type(error).__name__}: {error}") from error

    def read(text: Payload) -> Any:
        try:
            return decoder.decode(text)
        except msgspec.ValidationError as error:
            raise InvalidInput(_placed(str(error), path)) from None
        except _UNREADABLE as error:
            raise InvalidInput(f"{path} cannot be decoded: {error}") from None

    return read


# How a payload becomes the values of parameters


def _converted(convert: Callable[[Any], object], path: str) -> Reader:
    def read(text: Payload) -> object:
        messages = decode(text, path)
        try:
            return convert(messages)
        except Exception as error:  # noqa: BLE001  (a framework's own words for what it does not take)
            raise InvalidInput(f"{path}: {error}") from None

    return read


def _whole(name: str, reader: Reader) -> Callable[[Payload], dict[str, Any]]:
    return lambda text: {name: reader(text)}


def _whole_or_wrapped(
    parameter: Parameter, whole: Reader, wrapped: Reader, hint: Any
) -> Callable[[Payload], dict[str, Any]]:
    """A single parameter: its value, or an object with nothing but a member of its name."""
    name = parameter.name
    if may_have_member(hint, name):
        return _whole(name, whole)

    def read(text: Payload) -> dict[str, Any]:
        if bytes(text[:1]) == b"{":
            members = _read_members(text, "input")
            if members.keys() == {name}:
                return {name: wrapped(msgspec.json.encode(members[name]))}
            if not members and not parameter.required:
                try:
                    return {name: whole(text)}
                except InvalidInput:
                    return {}
        return {name: whole(text)}

    return read


def _members(
    root: str, readers: Sequence[tuple[Parameter, Reader]]
) -> Callable[[Payload], dict[str, Any]]:
    """Several parameters: the members of their names. Others are ignored, as in a dataclass."""

    def read(text: Payload) -> dict[str, Any]:
        members = _read_members(text, root)
        values = {}
        for parameter, reader in readers:
            name = parameter.name
            if name in members:
                values[name] = reader(msgspec.json.encode(members[name]))
            elif parameter.required:
                raise InvalidInput(f"{root}.{name} is missing")
        return values

    return read


def _read_members(text: Payload, root: str) -> dict[str, Raw]:
    try:
        return _decode_members(text)
    except msgspec.ValidationError as error:
        raise InvalidInput(_placed(str(error), root)) from None
    except _UNREADABLE as error:
        raise InvalidInput(f"{root} cannot be decoded: {error}") from None


def _bind(
    roles: Roles, read: Callable[[Payload], dict[str, Any]]
) -> Callable[[Payload, Context | None], tuple[list[Any], dict[str, Any]]]:
    """By place as far as possible: a wrapper may take nothing by name."""

    def bind(text: Payload, context: Context | None) -> tuple[list[Any], dict[str, Any]]:
        named = read(text)
        if roles.context is not None:
            named[roles.context.name] = context
        positional = []
        for parameter in roles.parameters:
            if parameter.by_keyword or parameter.name not in named:
                break
            positional.append(named.pop(parameter.name))
        return positional, named

    return bind


# What annotations mean


def hint_of(parameter: Parameter, function: Callable[..., object]) -> Any:
    """The type of a parameter's values. Raises UncheckableError."""
    if parameter.annotation is None:
        return Any
    try:
        hint = resolve(parameter.annotation, function)
    except Exception as error:  # any code may stand in an annotation
        raise UncheckableError(f"{type(error).__name__}: {error}") from error
    # `name: str = None` is what many write for `str | None`.
    return typing.Optional[hint] if parameter.default is None else hint  # noqa: UP045


def _hint_or_any(roles: Roles, function: Callable[..., object]) -> Any:
    assert roles.whole is not None
    try:
        return hint_of(roles.whole, function)
    except UncheckableError:
        return Any


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in {typing.Union, UnionType}


def may_have_member(hint: Any, name: str) -> bool:
    """Whether an object that has such a member may be a value of the type."""
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        return may_have_member(typing.get_args(hint)[0], name)
    if _is_union(hint):
        return any(may_have_member(arm, name) for arm in typing.get_args(hint))
    kind = origin or hint
    if not isinstance(kind, type):
        return kind is not typing.Literal  # a type variable
    if kind in {Any, object} or (
        issubclass(kind, Mapping) and not hasattr(kind, "__required_keys__")
    ):
        return True
    return name in _member_names(kind)


def _member_names(kind: type) -> set[str]:
    names = {name for each in kind.__mro__ for name in getattr(each, "__annotations__", {})}
    names.update(getattr(kind, "__struct_encode_fields__", ()))
    for field in getattr(kind, "model_fields", {}).values():
        names.update(alias for alias in (field.alias, field.validation_alias) if alias)
    return names


def _has_pydantic_dataclass(info: types.Type) -> bool:
    """Whether there is one anywhere in a type: msgspec would read it, without its validators.

    Raises UncheckableError for a type with a class in it that nobody here can read.
    """
    seen: set[int] = set()
    pending: list[Any] = [info]
    found = False
    while pending:
        each = pending.pop()
        if isinstance(each, (tuple, list)):
            pending += each
        elif isinstance(each, types.CustomType) and not _is_pydantic(each.cls):
            raise UncheckableError(f"{each.cls.__name__} cannot be made from JSON")
        elif isinstance(each, types.DataclassType) and _is_pydantic(each.cls):
            found = True
        elif isinstance(each, (types.Type, types.Field)) and id(each) not in seen:
            seen.add(id(each))
            pending += [getattr(each, name) for name in each.__struct_fields__ if name != "cls"]
    return found


# Pydantic's part


def _is_pydantic(hint: Any) -> bool:
    """Whether Pydantic is to read a type: one of its own, or one with a constraint of its own."""
    if "pydantic" not in sys.modules:
        return False
    if isinstance(hint, type) and (
        hasattr(hint, "__pydantic_validator__") or hasattr(hint, "__get_pydantic_core_schema__")
    ):
        return True
    if typing.get_origin(hint) is typing.Annotated:
        modules = {type(each).__module__.partition(".")[0] for each in hint.__metadata__}
        if modules & {"pydantic", "annotated_types"}:
            return True
    return any(_is_pydantic(each) for each in typing.get_args(hint))


@cache
def _adapter(hint: Any) -> Any:
    return sys.modules["pydantic"].TypeAdapter(hint)


def _by_pydantic(hint: Any, path: str) -> Reader:
    pydantic = sys.modules["pydantic"]
    validate = _adapter(hint).validate_json

    def read(text: Payload) -> Any:
        try:
            return validate(bytes(text))
        except pydantic.ValidationError as error:
            raise InvalidInput(_mismatches(error, path)) from None

    return read


def _read_by_pydantic(kind: type, value: Any) -> Any:
    """A model inside of what msgspec reads."""
    pydantic = sys.modules["pydantic"]
    try:
        return _adapter(kind).validate_python(value)
    except pydantic.ValidationError as error:
        raise ValueError(_mismatches(error, "")) from None


# Mismatches in words


def _first_of(readers: list[Reader], hint: Any, path: str) -> Reader:
    names = [getattr(arm, "__name__", str(arm)) for arm in typing.get_args(hint)]

    def read(text: Payload) -> Any:
        mismatches = []
        for reader in readers:
            try:
                return reader(text)
            except InvalidInput as error:
                mismatches.append(str(error))
        raise InvalidInput(f"{path}: expected {' or '.join(names)} ({'; '.join(mismatches)})")

    return read


def _placed(message: str, path: str) -> str:
    """msgspec's "Expected `str`, got `int` - at `$.city.name`", with the place in front."""
    text, _, place = message.partition(" - at `$")
    text = text.replace("`", "")
    if text[:1] not in ".[":  # else it has a place of its own in front, by Pydantic
        text = f": {text[:1].lower()}{text[1:]}"
    return f"{path}{place.removesuffix('`')}{text}"


def _mismatches(error: Any, path: str) -> str:
    """A ValidationError of Pydantic's, one line for all."""
    found = error.errors(include_url=False, include_context=False)
    lines = []
    for each in found[:_MOST_MISMATCHES]:
        place = "".join(f"[{at}]" if isinstance(at, int) else f".{at}" for at in each["loc"])
        text = f"{each['msg'][:1].lower()}{each['msg'][1:]}"
        if each["type"] != "missing":
            text += f", got {type(each['input']).__name__}"
        lines.append(f"{path}{place}: {text}")
    if len(found) > _MOST_MISMATCHES:
        lines.append(f"and {len(found) - _MOST_MISMATCHES} more")
    return "; ".join(lines)
