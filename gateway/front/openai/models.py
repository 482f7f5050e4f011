"""The agents as the models of OpenAI's API: `GET /v1/models` and `GET /v1/models/{id}`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.front.chats.models import ModelForms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.front.chats.models import Model


def _one(model: Model) -> dict[str, Any]:
    shown = {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "agent-gateway",
    }
    return shown if model.description is None else {**shown, "description": model.description}


def _many(models: Sequence[Model], query: Mapping[str, str]) -> dict[str, Any]:
    del query  # the API has no pages of them
    return {"object": "list", "data": [_one(model) for model in models]}


MODELS = ModelForms(_one, _many)
