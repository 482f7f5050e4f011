"""The agents as the models of OpenAI's API: `GET /v1/models` and `GET /v1/models/{id}`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from quart import Blueprint, Response

from gateway import clock
from gateway.front.status import caller, visible_agents

if TYPE_CHECKING:
    from gateway.agents.dispatcher import Dispatcher
    from gateway.agents.supervisor import AgentSupervisor


def make_blueprint(dispatcher: Dispatcher) -> Blueprint:
    """Make the routes for the agents of one gateway."""
    routes = Blueprint("models", __name__)
    created = clock.unix_time()

    @routes.get("/v1/models")
    async def models() -> Response:
        agents = [agent for agent in visible_agents(dispatcher) if _chats(agent)]
        return _json({"object": "list", "data": [_model(agent, created) for agent in agents]})

    @routes.get("/v1/models/<name>")
    async def model(name: str) -> Response:
        caller().check(name)
        return _json(_model(dispatcher.agent(name), created))

    return routes


def _chats(agent: AgentSupervisor) -> bool:
    """Whether the agent can be called by OpenAI's API, as far as is known."""
    handlers = agent.summary.handlers
    return handlers is None or "chat" in handlers


def _model(agent: AgentSupervisor, created: int) -> dict[str, Any]:
    """`created` is when the gateway was started: nobody knows when an agent was made."""
    model = {
        "id": agent.name,
        "object": "model",
        "created": created,
        "owned_by": "agent-gateway",
    }
    description = agent.summary.description
    return model if description is None else {**model, "description": description}


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), content_type="application/json")
