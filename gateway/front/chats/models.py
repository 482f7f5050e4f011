"""Agents as models, which `GET /v1/models` lists in a client protocol's form: `front/models.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

_Object: TypeAlias = dict[str, Any]


class Model(NamedTuple):
    """One agent that can be called as a model."""

    name: str
    description: str | None
    created: int
    """When the gateway was started, in Unix seconds: nobody knows when an agent was made."""
    created_at: str
    """The same, as RFC 3339 has it."""


class ModelForms(NamedTuple):
    """How one client protocol shows models, as JSON objects."""

    one: Callable[[Model], _Object]
    many: Callable[[Sequence[Model], Mapping[str, str]], _Object]
    """Of all models and the query of the URL. Raises InvalidRequest."""
