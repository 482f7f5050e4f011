"""Agent cards over HTTP: of each agent, and of the gateway."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from quart import Blueprint, Response, request

from gateway.config import AGENT_NAME
from gateway.errors import NotFound, Unauthorized
from gateway.front.a2a.card import Described, agent_card, gateway_card, strangers_card
from gateway.front.a2a.dialect import CARD
from gateway.front.auth import ANONYMOUS, EXPECTED, NOBODY
from gateway.front.status import caller, visible_agents
from gateway.front.target import read_target

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import Any

    from gateway.agents.agent import Agent
    from gateway.agents.dispatcher import Dispatcher
    from gateway.front.a2a.dialect import A2ADialect
    from gateway.front.dialect import RequestHead

MAX_AGE = 60
"""Seconds for which a card may be kept: an agent that has just started has not declared itself."""


class _Served:
    """The `Agents` of one gateway."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def handlers(self, agent: str) -> Collection[str] | None:
        ready = self._dispatcher.agent(agent).declared.ready
        return None if ready is None else ready.handlers

    def card(self, agent: str, head: RequestHead) -> bytes:
        scheme = _scheme(head.scheme, head.fields.get(b"x-forwarded-proto", b""))
        host = (head.host or b"").decode("latin-1")
        described = _described(self._dispatcher.agent(agent))
        return agent_card(described, f"{scheme}://{host}", keys=True)


def make_blueprint(dialect: A2ADialect, dispatcher: Dispatcher) -> Blueprint:
    """Make the routes for the cards of one gateway's agents."""
    routes = Blueprint("a2a", __name__)
    dialect.agents = _Served(dispatcher)

    @routes.get(f"/a2a/<name>{CARD}")
    async def card(name: str) -> Response:
        asking = caller()
        base = _base(request.scope)
        if asking is NOBODY:
            if AGENT_NAME.match(name) is None:
                raise NotFound(f"there is nothing at {request.path[:80]!r}")
            return _json(strangers_card(name, base))
        asking.check(name)
        agent = _described(dispatcher.agent(name))
        return _json(agent_card(agent, base, keys=asking is not ANONYMOUS))

    @routes.get(f"/a2a{CARD}")
    async def card_one_level_up() -> Response:
        # Where some clients look for the card of /a2a/NAME, as a URL that is relative to it.
        agents = _visible(dispatcher)
        if len(agents) != 1:
            raise NotFound(
                "there are several agents, or none: expected the base URL with a slash at its end, "
                "/a2a/NAME/"
            )
        return _json(agent_card(agents[0], _base(request.scope), keys=caller() is not ANONYMOUS))

    @routes.get(CARD)
    async def gateways_card() -> Response:
        agents, keys = _visible(dispatcher), caller() is not ANONYMOUS
        if not agents:
            raise NotFound("there are no agents")
        base = _base(request.scope)
        if len(agents) == 1:
            return _json(agent_card(agents[0], base, keys=keys))
        return _json(gateway_card(agents, base, keys=keys))

    return routes


def _visible(dispatcher: Dispatcher) -> list[Described]:
    """Raises Unauthorized: which agents there are is for those who have a key."""
    if caller() is NOBODY:
        raise Unauthorized(f"a key is needed: {EXPECTED}")
    return [_described(agent) for agent in visible_agents(dispatcher)]


def _described(agent: Agent) -> Described:
    return Described(agent.name, agent.settings.description, agent.declared.ready)


def _base(scope: Mapping[str, Any]) -> str:
    """The URL by which the client has reached the gateway; its host was checked (`hosts`)."""
    fields = dict(scope["headers"])
    authority = read_target(scope).authority or fields.get(b"host")
    if authority is None:  # HTTP/1.0
        host, port = scope["server"]
        authority = f"{f'[{host}]' if ':' in host else host}:{port}".encode()
    scheme = _scheme(scope["scheme"], fields.get(b"x-forwarded-proto", b""))
    return f"{scheme}://{authority.decode('latin-1')}"


def _scheme(own: str, forwarded: bytes) -> str:
    """`https` where that, or the proxy in front, says so. Who makes it up is told so alone."""
    return "https" if forwarded.strip().lower() == b"https" else own


def _json(card: bytes) -> Response:
    tag = f'"{sha256(card).hexdigest()[:32]}"'
    headers = {
        "Cache-Control": f"private, max-age={MAX_AGE}",
        "ETag": tag,
        "Vary": "Host, Authorization, X-API-Key, X-Forwarded-Proto",
    }
    if request.headers.get("If-None-Match") == tag:
        return Response(b"", 304, headers)
    return Response(card, headers=headers, content_type="application/json")
