"""The routes that Quart serves: the agents and their states, health, and the errors of all else.

Errors are in the dialect that covers the path; everything else here is of the native one.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec
from msgspec import structs
from quart import Blueprint, Response, g, request
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import MethodNotAllowed as WerkzeugMethodNotAllowed
from werkzeug.exceptions import NotFound as WerkzeugNotFound

from gateway.errors import GatewayError, InternalError, MethodNotAllowed, NotFound
from gateway.front.auth import ANONYMOUS, CALLER, Caller
from gateway.front.dialect import dialect_of
from gateway.front.head import read_head
from gateway.observe.observation import OBSERVATION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.agents.agent import Agent
    from gateway.agents.dispatcher import Dispatcher
    from gateway.agents.status import AgentStatus, AgentSummary
    from gateway.front.console.fleet import Fleet
    from gateway.front.dialect import Dialect
    from gateway.observe.observation import Observation

log = logging.getLogger("gateway.http")

MOST_HOSTS_LISTED = 10_000
"""Hosts of a fleet in one list of agents, each counted for each of its agents: 3 MB and 50 ms. A
host that was broken into may have a thousand agents, and start over as often as it likes."""


def make_agents_blueprint(dispatcher: Dispatcher, fleet: Fleet | None = None) -> Blueprint:
    """Make the routes that tell of the agents of one gateway, which may be at a front's `fleet`."""
    routes = Blueprint("agents", __name__)

    @routes.get("/agents")
    async def agents() -> Response:
        return _json({"agents": list_agents(visible_agents(dispatcher), fleet)})

    @routes.get("/agent/<name>")
    @routes.get("/agents/<name>")
    async def agent(name: str) -> Response:
        caller().check(name)
        return _json(shown_to(caller(), await dispatcher.agent(name).status()))

    @routes.get("/agent/<name>/health")
    @routes.get("/agents/<name>/health")
    async def agent_health(name: str) -> Response:
        caller().check(name)
        state = dispatcher.agent(name).state
        health = "healthy" if state.can_serve else "unhealthy"
        return _json({"status": health, "state": state}, 200 if state.can_serve else 503)

    @routes.get("/health")
    async def health() -> Response:
        status = "healthy" if dispatcher.can_serve else "unhealthy"
        code = 200 if dispatcher.can_serve else 503
        states = {agent.name: agent.state for agent in visible_agents(dispatcher)}
        body = {"status": status, "agents": list(states), "states": states}
        return _json(body, code)

    return routes


def make_blueprint(dispatcher: Dispatcher, dialects: tuple[Dialect, ...]) -> Blueprint:
    """Make the probes of one gateway, which is called in these dialects, and what holds for every
    route."""
    routes = Blueprint("gateway", __name__)

    @routes.get("/live")
    async def live() -> Response:
        return _json({"status": "live"})

    @routes.get("/ready")
    async def ready() -> Response:
        states = {agent.name: agent.state for agent in visible_agents(dispatcher)}
        if dispatcher.ready:
            return _json({"status": "ready", "agents": states})
        return _json({"status": "not ready", "agents": states}, 503)

    @routes.before_app_request
    async def take_request_id() -> None:
        # ASGI's own headers, because Quart's are normalised; the rule for ids stands in `head`.
        head = read_head(request.scope["headers"])
        g.request_id, g.has_body, g.fields = head.request_id, head.has_body, head.fields
        seen: Observation | None = request.scope.get("state", {}).get(OBSERVATION)
        if seen is not None:
            seen.request_id = head.request_id
            if request.url_rule is not None:
                seen.route = route_of(request.url_rule.rule)
            name = (request.view_args or {}).get("name", "")
            seen.agent = name if name in dispatcher.agents else ""

    @routes.after_app_request
    async def give_request_id(response: Response) -> Response:
        response.headers["X-Request-Id"] = g.get("request_id", "")
        response.headers.setdefault("Cache-Control", "no-store")
        if g.get("has_body"):
            # No route here reads a body. If its end comes after the response, Hypercorn closes the
            # connection: the client is always told, so that it does not use that one again.
            response.headers["Connection"] = "close"
        return response

    @routes.app_errorhandler(GatewayError)
    async def gateway_error(error: GatewayError) -> Response:
        return _error(dialects, error)

    @routes.app_errorhandler(HTTPException)
    async def http_error(error: HTTPException) -> Response:
        return _error(dialects, _as_gateway_error(error))

    return routes


def caller() -> Caller:
    """Who makes the request that is being served."""
    state: dict[str, Caller] = request.scope.get("state", {})
    return state.get(CALLER, ANONYMOUS)


def shown_to(asking: Caller, status: AgentStatus) -> AgentStatus:
    """The status without what it quotes of a request, which may be another caller's."""
    if asking is ANONYMOUS or status.last_limit is None:
        return status
    return structs.replace(status, last_limit=structs.replace(status.last_limit, message=""))


def visible_agents(dispatcher: Dispatcher) -> list[Agent]:
    """The agents that the caller of the request may see."""
    may_call = caller().may_call
    return [agent for name, agent in dispatcher.agents.items() if may_call(name)]


def list_agents(agents: Sequence[Agent], fleet: Fleet | None) -> list[AgentSummary]:
    """These agents, at a front with their hosts, of which each has the same number at most."""
    if fleet is None or not agents:
        return [agent.summary for agent in agents]
    most = max(1, MOST_HOSTS_LISTED // len(agents))
    listed = []
    for agent in agents:
        hosts, more = fleet.hosts_of(agent.name, most)
        listed.append(structs.replace(agent.summary, hosts=hosts, more_hosts=more))
    return listed


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, content_type="application/json")


def _as_gateway_error(error: HTTPException) -> GatewayError:
    if isinstance(error, WerkzeugMethodNotAllowed):
        allow = ", ".join(sorted(error.valid_methods or ()))
        return MethodNotAllowed(f"{request.method} is not supported here", allow=allow)
    if isinstance(error, WerkzeugNotFound):
        return NotFound(f"there is nothing at {request.path[:80]!r}")
    log.error("internal error: %s", error, extra={"fields": {"request": g.request_id}})
    return InternalError("a defect of the gateway; see its log")


def route_of(rule: str) -> str:
    """The path of a rule of Quart's, written as it is documented."""
    path = rule.replace("<", "{").replace(">", "}")
    return "/agent" + path.removeprefix("/agents") if path.startswith("/agents/") else path


def _error(dialects: tuple[Dialect, ...], error: GatewayError) -> Response:
    seen: Observation | None = request.scope.get("state", {}).get(OBSERVATION)
    if seen is not None:
        seen.error = error
    dialect = dialect_of(dialects, request.path, g.get("fields", {}))
    encoded = dialect.encode_error(error, g.get("request_id", ""))
    response = Response(encoded.body, encoded.status)
    for name, value in encoded.headers:
        response.headers[name.decode()] = value.decode()
    return response
