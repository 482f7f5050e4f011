"""The agents as models: `GET /v1/models` and `GET /v1/models/{id}`, which several client protocols
have in the same place. Each request is answered in the form of the one that it speaks."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
from quart import Blueprint, Response, g, request

from gateway import clock
from gateway.front.chats.models import Model
from gateway.front.dialect import dialect_of
from gateway.front.status import caller, visible_agents

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.agents.agent import Agent
    from gateway.agents.dispatcher import Dispatcher
    from gateway.front.chats.models import ModelForms
    from gateway.front.dialects import Served


def make_models_blueprint(dispatcher: Dispatcher, served: Sequence[Served]) -> Blueprint:
    """Make the routes for the agents of one gateway. `served` are protocols that have models, at
    least one."""
    routes = Blueprint("models", __name__)
    created = clock.unix_time()
    created_at = datetime.fromtimestamp(created, UTC).isoformat().replace("+00:00", "Z")
    dialects = [each.dialect for each in served]
    forms = {id(each.dialect): each.models for each in served}

    def spoken() -> ModelForms:
        found = forms[id(dialect_of(dialects, request.path, g.fields))]
        assert found is not None
        return found

    def as_model(agent: Agent) -> Model:
        return Model(agent.name, agent.summary.description, created, created_at)

    @routes.get("/v1/models")
    async def models() -> Response:
        found = [as_model(agent) for agent in visible_agents(dispatcher) if _chats(agent)]
        return _json(spoken().many(found, request.args))

    @routes.get("/v1/models/<name>")
    async def model(name: str) -> Response:
        caller().check(name)
        return _json(spoken().one(as_model(dispatcher.agent(name))))

    return routes


def _chats(agent: Agent) -> bool:
    """Whether the agent can be called as a model, as far as is known."""
    handlers = agent.summary.handlers
    return handlers is None or "chat" in handlers


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), content_type="application/json")
