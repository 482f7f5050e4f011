"""An agent's schemas as they are shown to clients: valid, small, and no stricter than declared.

A schema is its author's, whom neither the gateway nor a client trusts. Clients compile the schemas
of all tools when they list them, so one that cannot be compiled would take every other agent's
tools away. Therefore a schema is not passed on but written anew, from keywords that are known and
have values of the right kind. What is left out makes it accept more, never less: inputs are checked
against what was declared, by the gateway, and so are outputs.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]

MOST_DEPTH = 24
MOST_NODES = 1500
"""Schemas within one schema, and other values in it. Beyond, everything is accepted."""
MOST_TEXT = 4096
"""Characters of a description."""

_TYPES = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})
_NUMBERS = ("exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum")
_COUNTS = ("maxItems", "maxLength", "maxProperties", "minItems", "minLength", "minProperties")
_FORMATS = frozenset({"date", "date-time", "email", "ipv4", "ipv6", "time", "uri", "uuid"})
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.-]+")
"""A definition whose name means the same in a JSON Pointer and in a URI."""

_DEFS = ("$defs", "definitions")


def plain_text(text: str, most: int = MOST_TEXT) -> str:
    """A text without characters that are not seen, cut to `most` characters."""
    shown = (
        each if each in "\n\t" or unicodedata.category(each)[0] != "C" else " " for each in text
    )
    return "".join(shown)[:most].strip()


def shown_schema(schema: object) -> Json:
    """A schema that accepts at least what `schema` does."""
    if not isinstance(schema, dict):
        return {}
    return _Writer(schema).write()


def accepts_objects_only(schema: object) -> bool:
    """Whether a schema says at its root that it is for an object, by itself or by a reference."""
    return isinstance(schema, dict) and _root(schema).get("type") == "object"


def wrapped(schema: Json, name: str, description: str) -> Json:
    """The schema of an object whose one member `name` is as `schema` says."""
    inner = {key: value for key, value in schema.items() if key not in _DEFS}
    whole: Json = {"type": "object", "properties": {name: {"description": description, **inner}}}
    return {**whole, "required": [name], **{key: schema[key] for key in _DEFS if key in schema}}


def _root(schema: Json) -> Json:
    """The schema, or what it refers to and nothing else."""
    for _ in range(MOST_DEPTH):
        target = _definition(schema, schema.get("$ref"))
        if target is None:
            break
        schema = {**{key: schema[key] for key in _DEFS if key in schema}, **target}
    return schema


def _definition(root: Json, reference: object) -> Json | None:
    """What a reference to a definition of the schema itself refers to."""
    if not isinstance(reference, str):
        return None
    for key in _DEFS:
        prefix = f"#/{key}/"
        definitions = root.get(key)
        if reference.startswith(prefix) and isinstance(definitions, dict):
            name = reference[len(prefix) :]
            target = definitions.get(name) if _PLAIN_NAME.fullmatch(name) else None
            return target if isinstance(target, dict) else None
    return None


class _Writer:
    """Writes one schema anew."""

    def __init__(self, schema: Json) -> None:
        self._schema = _root(schema)
        self._left = MOST_NODES
        self._needed: list[str] = []

    def write(self) -> Json:
        written = self._node(self._schema, 0)
        done: dict[str, dict[str, Any]] = {}
        while self._needed:  # definitions may refer to others
            _, key, name = self._needed.pop().split("/", 2)
            if name not in done.setdefault(key, {}):
                done[key][name] = {}
                done[key][name] = self._node(self._schema[key][name], 1)
        return {**written, **done}

    def _node(self, schema: object, depth: int) -> Any:
        self._left -= 1
        if isinstance(schema, bool):
            return schema if schema or depth else {}
        if not isinstance(schema, dict) or depth > MOST_DEPTH or self._left < 0:
            return {}
        reference = schema.get("$ref")
        if reference is not None:
            if _definition(self._schema, reference) is None:
                return {}
            self._needed.append(reference)
            return {"$ref": reference}
        written: Json = {}
        self._write_values(schema, written)
        self._write_schemas(schema, written, depth + 1)
        return written

    def _write_values(self, schema: Json, written: Json) -> None:
        kind = schema.get("type")
        kinds = kind if isinstance(kind, list) else [kind]
        if kinds and all(isinstance(each, str) and each in _TYPES for each in kinds):
            written["type"] = kind if isinstance(kind, str) else list(dict.fromkeys(kinds))
        for key in ("title", "description"):
            if isinstance(text := schema.get(key), str):
                written[key] = plain_text(text)
        if _FORMATS.intersection([str(schema.get("format"))]):
            written["format"] = schema["format"]
        for key in _NUMBERS:
            if _is_number(schema.get(key)):
                written[key] = schema[key]
        for key in _COUNTS:
            if (
                isinstance(count := schema.get(key), int)
                and not isinstance(count, bool)
                and count >= 0
            ):
                written[key] = count
        choices = schema.get("enum")
        if isinstance(choices, list) and choices and all(map(_is_scalar, choices)):
            self._left -= len(choices)
            if self._left >= 0:
                written["enum"] = _without_repetition(choices)
        for key in ("const", "default"):
            if key in schema and _is_scalar(schema[key]):
                written[key] = schema[key]

    def _write_schemas(self, schema: Json, written: Json, depth: int) -> None:
        properties = schema.get("properties")
        properties = properties if isinstance(properties, dict) else None
        if properties is not None:
            written["properties"] = {
                name: self._node(each, depth)
                for name, each in properties.items()
                if self._left > 0 and name != "__proto__"  # which is no name for JavaScript
            }
        required = schema.get("required")
        if isinstance(required, list) and all(isinstance(each, str) for each in required):
            self._left -= len(required)
            if self._left >= 0:
                written["required"] = list(dict.fromkeys(required))
        more = schema.get("additionalProperties")
        known = properties is None or written.get("properties", {}).keys() == properties.keys()
        if isinstance(more, dict | bool) and known and "patternProperties" not in schema:
            written["additionalProperties"] = self._node(more, depth)
        if isinstance(items := schema.get("items"), dict) and "prefixItems" not in schema:
            written["items"] = self._node(items, depth)
        for key in ("allOf", "anyOf", "oneOf"):
            choices = schema.get(key)
            if isinstance(choices, list) and choices and len(choices) <= self._left:
                # With one of them accepting more, two may match: what is shown is `anyOf`.
                shown = "anyOf" if key == "oneOf" and "anyOf" not in schema else key
                if shown != "oneOf":
                    written[shown] = [self._node(each, depth) for each in choices]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _is_scalar(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= MOST_TEXT
    return value is None or isinstance(value, bool) or _is_number(value)


def _without_repetition(values: list[Any]) -> list[Any]:
    """JSON's values that are all different: 1 is true for Python and not for JSON."""
    return list({(isinstance(each, bool), each): each for each in values}.values())
