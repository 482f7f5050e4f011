"""The JSON Schemas that an agent declares for its input and output.

A schema is a dict, which is passed on as it is, or a type that stands for one: whatever msgspec
reads, or Pydantic's own. Where an agent declares none, its handler's annotations do (`derived`).
This module does not check any value against a schema: annotations do (`inputs`), and the gateway
does before that.

What is derived allows all that the readers of `inputs` take, with one exception: where Pydantic
makes a number of a text, its schema asks for a number.
"""

from __future__ import annotations

import collections.abc
import sys
import typing
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import msgspec

from protocol.messages import MAX_METADATA_BYTES

from .events import Event
from .inputs import hint_of, may_have_member
from .parameters import Parameter, Roles, annotations_of, innermost, resolve

_Schema = dict[str, Any]

_STREAMS = frozenset(
    {
        collections.abc.AsyncGenerator,
        collections.abc.AsyncIterable,
        collections.abc.AsyncIterator,
        collections.abc.Generator,
        collections.abc.Iterable,
        collections.abc.Iterator,
    }
)
"""What a handler is annotated with that yields text."""


def derived(function: Callable[..., object], roles: Roles) -> dict[str, bytes]:
    """The schemas of "input" and "output" of an invoke handler, as JSON text, as far as its
    annotations say anything that can be told."""
    schemas: dict[str, _Schema | None] = {}
    with suppress(Exception):  # any code may stand in a type
        schemas["input"] = _input_schema(function, roles)
    with suppress(Exception):
        schemas["output"] = _output_schema(function)
    texts = {what: msgspec.json.encode(schema) for what, schema in schemas.items() if schema}
    return {what: text for what, text in texts.items() if len(text) <= MAX_METADATA_BYTES}


def _input_schema(function: Callable[..., object], roles: Roles) -> _Schema | None:
    definitions: _Schema = {}
    if roles.whole is None:
        members = {each.name: _of_parameter(each, function, definitions) for each in roles.members}
        required = [each.name for each in roles.members if each.required]
        schema = {"type": "object", "properties": members, "required": required}
    else:
        if roles.whole.annotation is None:
            return None
        schema = _of_parameter(roles.whole, function, definitions)
        if schema and roles.whole.name != "input":
            schema = _or_wrapped(schema, roles.whole, hint_of(roles.whole, function))
    return {**schema, "$defs": definitions} if definitions else schema


def _of_parameter(
    parameter: Parameter, function: Callable[..., object], definitions: _Schema
) -> _Schema:
    """The schema of one parameter's values; what it refers to is added to `definitions`. Empty for
    an annotation that cannot be honoured, as its values are not checked."""
    try:
        schema = _schema_of(hint_of(parameter, function))
    except Exception:  # noqa: BLE001  (any code may stand in an annotation)
        return {}
    definitions |= schema.pop("$defs", {})
    return schema


def _or_wrapped(schema: _Schema, parameter: Parameter, hint: Any) -> _Schema:
    """A single parameter's value, or an object with nothing but a member of its name."""
    name = parameter.name
    if may_have_member(hint, name):
        return schema
    wrapped = {
        "type": "object",
        "properties": {name: schema},
        "required": [name],
        "additionalProperties": False,
    }
    nothing = [] if parameter.required else [{"type": "object", "maxProperties": 0}]
    return {"anyOf": [schema, wrapped, *nothing]}


def _output_schema(function: Callable[..., object]) -> _Schema | None:
    annotation = annotations_of(innermost(function)).get("return", Any)
    hint = resolve(annotation, function)
    if typing.get_origin(hint) in _STREAMS:
        return {"type": "string"}
    if any(_is_event(each) for each in (hint, *typing.get_args(hint))):
        return None
    return _schema_of(hint, "serialization")


def _is_event(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Event)


def encode_schema(what: str, schema: object) -> bytes:
    """A schema as JSON text. Raises TypeError, which says what of (`what`: "input")."""
    try:
        return msgspec.json.encode(schema if isinstance(schema, Mapping) else _schema_of(schema))
    except Exception as error:  # any code may stand in a type
        raise TypeError(f"{what} is no JSON Schema, and no type that has one: {error}") from error


def _schema_of(kind: Any, mode: str = "validation") -> _Schema:
    pydantic = sys.modules.get("pydantic")
    if pydantic is None:
        return _by_msgspec(kind)
    if not hasattr(kind, "__pydantic_validator__"):
        with suppress(TypeError):  # for what has a model of Pydantic's inside
            return _by_msgspec(kind)
    schema: _Schema = pydantic.TypeAdapter(kind).json_schema(mode=mode)
    return schema


def _by_msgspec(kind: Any) -> _Schema:
    schema: _Schema = _with_numbers(msgspec.json.schema(kind))
    return schema


def _with_numbers(schema: Any) -> Any:
    """A decimal is read from a number as well, which msgspec's schema does not say."""
    if isinstance(schema, list):
        return [_with_numbers(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("format") == "decimal":
        return {**schema, "type": ["string", "number"]}
    return {name: _with_numbers(value) for name, value in schema.items()}
