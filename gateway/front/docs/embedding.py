"""An agent's schemas made fit to stand in the document.

An agent may declare anything. What is no schema would make the whole document invalid for every
client, and a reference would mean another place there, or a foreign host that a client goes to. So
a schema is copied keyword by keyword, each in the form that JSON Schema 2020-12 gives it, with
local references made to start at the schema's own place. Where that fails, the schema is left out.
"""

from __future__ import annotations

import re
from typing import Any, TypeAlias
from urllib.parse import unquote

import msgspec

Json: TypeAlias = dict[str, Any]

MOST_DEPTH = 48
"""Of nested schemas. Clients follow them by recursion."""

MOST_NODES = 5000
"""Schemas in one: what is drawn by a browser."""

_SCHEMA = frozenset(
    {
        "additionalProperties",
        "contains",
        "contentSchema",
        "else",
        "if",
        "items",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
_SCHEMAS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_NAMED_SCHEMAS = frozenset(
    {"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"}
)
_COUNTS = frozenset(
    {
        "maxContains",
        "maxItems",
        "maxLength",
        "maxProperties",
        "minContains",
        "minItems",
        "minLength",
        "minProperties",
    }
)
_NUMBERS = frozenset({"exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum", "multipleOf"})
_TEXTS = frozenset(
    {"$comment", "contentEncoding", "contentMediaType", "description", "format", "pattern", "title"}
)
_FLAGS = frozenset({"deprecated", "readOnly", "uniqueItems", "writeOnly"})
_VALUES = frozenset({"const", "default"})
_TYPES = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})

_INDEX = re.compile(r"0|[1-9][0-9]{0,8}", re.ASCII)
"""Of a list, as RFC 6901 writes it. Without the bound, a long one could not be made a number."""


class UnfitError(ValueError):
    """The schema cannot be embedded; the message says why."""


def embedded(schema: bytes, place: str) -> Json | bool:
    """The schema for the place in the document that a JSON pointer names (`#/components/…`).

    Keywords that are not known are left out: they say nothing to a client. Raises UnfitError.
    """
    try:
        decoded = msgspec.json.decode(schema)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise UnfitError(str(error)) from None
    copying = _Copy(place)
    copy = copying.schema(decoded, 0)
    copying.check_references(copy)
    return copy


class _Copy:
    def __init__(self, place: str) -> None:
        self._place = place
        self._schemas: list[Json | bool] = []
        """Copied so far, and kept: an object's id is its own only while it lives."""
        self._references: set[str] = set()

    def check_references(self, whole: Json | bool) -> None:
        """Raises UnfitError for a reference to what is no schema of this copy."""
        ids = {id(each) for each in self._schemas if isinstance(each, dict)}
        for pointer in self._references:
            found: Any = whole
            for key in pointer.split("/")[1:]:
                key = unquote(key).replace("~1", "/").replace("~0", "~")  # noqa: PLW2901
                found = found.get(key) if isinstance(found, dict) else _item(found, key)
            if id(found) not in ids:
                raise UnfitError("it refers to what is no schema")

    def schema(self, schema: Any, depth: int) -> Json | bool:
        if depth > MOST_DEPTH or len(self._schemas) >= MOST_NODES:
            raise UnfitError("it is too large")
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            raise UnfitError("a schema is neither an object nor a boolean")
        copy: Json = {}
        self._schemas.append(copy)
        for name, value in schema.items():
            kept = self._keyword(name, value, depth + 1)
            if kept is not None:
                copy[name] = kept[0]
        return copy

    def _keyword(self, name: str, value: Any, depth: int) -> tuple[Any] | None:
        """The copy of a keyword's value; None: it is left out. Raises UnfitError."""
        if name == "$ref":
            return (self._reference(value),)
        if name in {"$anchor", "$dynamicAnchor", "$dynamicRef", "$id", "$recursiveRef"}:
            raise UnfitError(f"{name} would mean another place")
        if name in _SCHEMA:
            return (self.schema(value, depth),)
        if name in _SCHEMAS:
            _require(isinstance(value, list) and bool(value), name)
            return ([self.schema(each, depth) for each in value],)
        if name in _NAMED_SCHEMAS:
            _require(isinstance(value, dict), name)
            return ({key: self.schema(each, depth) for key, each in value.items()},)
        return (value,) if _is_plain(name, value) else None

    def _reference(self, target: Any) -> str:
        if target == "#":
            return self._place
        if not isinstance(target, str) or not target.startswith("#/"):
            raise UnfitError("it refers to another document, or to an anchor")
        self._references.add(target[1:])
        return self._place + target[1:]


def _item(found: Any, key: str) -> Any:
    """An item of a list; None for what is none."""
    if not isinstance(found, list) or not _INDEX.fullmatch(key):
        return None
    return found[int(key)] if int(key) < len(found) else None


def _is_plain(name: str, value: Any) -> bool:
    """Whether a keyword is known that holds no schemas. Raises UnfitError for a value that it
    cannot have."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if name in _COUNTS:
        _require(number and value >= 0 and value == int(value), name)
    elif name in _NUMBERS:
        _require(number and (name != "multipleOf" or value > 0), name)
    elif name in _TEXTS:
        _require(isinstance(value, str), name)
    elif name in _FLAGS:
        _require(isinstance(value, bool), name)
    elif name in {"enum", "examples"}:
        _require(isinstance(value, list), name)
    elif name == "required":
        _require(_are_names(value), name)
    elif name == "dependentRequired":
        _require(isinstance(value, dict) and all(map(_are_names, value.values())), name)
    elif name == "type":
        types = value if isinstance(value, list) else [value]
        known = all(isinstance(each, str) and each in _TYPES for each in types)
        _require(bool(types) and known and len(set(types)) == len(types), name)
    else:
        return name in _VALUES
    return True


def _are_names(value: Any) -> bool:
    return (
        isinstance(value, list)
        and all(isinstance(each, str) for each in value)
        and len(set(value)) == len(value)
    )


def _require(holds: bool, name: str) -> None:
    if not holds:
        raise UnfitError(f"{name} has a value that it cannot have")
