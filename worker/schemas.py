"""The JSON Schemas that an agent declares for its input and output.

A schema is a dict, which is passed on as it is, or a type that stands for one: whatever msgspec
reads, or Pydantic's own. This module does not check any value against a schema: annotations do
(`inputs`).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec


def encode_schema(what: str, schema: object) -> bytes:
    """A schema as JSON text. Raises TypeError, which says what of (`what`: "input")."""
    try:
        return msgspec.json.encode(schema if isinstance(schema, Mapping) else _schema_of(schema))
    except Exception as error:  # any code may stand in a type
        raise TypeError(f"{what} is no JSON Schema, and no type that has one: {error}") from error


def _schema_of(kind: Any) -> Any:
    pydantic = sys.modules.get("pydantic")
    if pydantic is None:
        return msgspec.json.schema(kind)
    if not hasattr(kind, "__pydantic_validator__"):
        with suppress(TypeError):  # for what has a model of Pydantic's inside
            return msgspec.json.schema(kind)
    return pydantic.TypeAdapter(kind).json_schema()
