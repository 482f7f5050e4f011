"""The JSON Schemas that an agent declares for its input and output.

A schema is a dict, which is passed on as it is, or a type that stands for one: whatever msgspec
reads, or Pydantic's own. This module does not check any value against a schema: annotations do
(`inputs`).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import msgspec


def encode_schema(what: str, schema: Mapping[str, Any] | type) -> bytes:
    """A schema as JSON text. Raises TypeError, which says what of (`what`: "input")."""
    try:
        return msgspec.json.encode(schema if isinstance(schema, Mapping) else _schema_of(schema))
    except Exception as error:  # any code may stand in a type
        raise TypeError(f"{what} is no JSON Schema, and no type that has one: {error}") from error


def _schema_of(kind: Any) -> Any:
    if "pydantic" in sys.modules:
        pydantic = sys.modules["pydantic"]
        if hasattr(kind, "__pydantic_validator__"):
            return pydantic.TypeAdapter(kind).json_schema()
    return msgspec.json.schema(kind)
