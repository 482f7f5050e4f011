"""The agents as the models of Anthropic's API: `GET /v1/models` and `GET /v1/models/{id}`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.front.chats.models import ModelForms
from gateway.front.chats.refusals import refuse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.front.chats.models import Model

MOST_AT_ONCE = 1000
DEFAULT_AT_ONCE = 20
"""Models of one page, as Anthropic's API has it."""


def _one(model: Model) -> dict[str, Any]:
    shown = {
        "type": "model",
        "id": model.name,
        "display_name": model.name,
        "created_at": model.created_at,
        "lifecycle": "active",
    }
    return shown if model.description is None else {**shown, "description": model.description}


def _many(models: Sequence[Model], query: Mapping[str, str]) -> dict[str, Any]:
    """One page. `limit`, `after_id` and `before_id` say which; raises InvalidRequest."""
    limit = _limit(query.get("limit"))
    names = [model.name for model in models]
    after, before = query.get("after_id"), query.get("before_id")
    first = 0 if after is None else _place_of("after_id", after, names) + 1
    last = len(models) if before is None else _place_of("before_id", before, names)
    if before is not None and after is None:
        first = max(0, last - limit)
        more = first > 0
    else:
        more = last - first > limit
        last = min(last, first + limit)
    page = [_one(model) for model in models[first:last]]
    return {
        "data": page,
        "has_more": more,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
    }


def _limit(value: str | None) -> int:
    if value is None:
        return DEFAULT_AT_ONCE
    # Python refuses to read numbers of more than 4300 digits.
    limit = int(value) if value.isascii() and value.isdigit() and len(value) < 10 else 0
    if not 1 <= limit <= MOST_AT_ONCE:
        raise refuse(f"limit is {value[:80]!r}, expected 1 to {MOST_AT_ONCE}", "limit")
    return limit


def _place_of(param: str, name: str, names: Sequence[str]) -> int:
    if name not in names:
        raise refuse(f"{param} is {name[:80]!r}, which is not one of the models", param)
    return names.index(name)


MODELS = ModelForms(_one, _many)
