"""The routes below `/console`: the page, which is the same for everybody, and its API.

The page needs no key, as a browser can send none with a page that it is told to go to; whatever it
shows then comes from the API, with the key that the page asks for. Its policy has the browser see
to that nothing comes from anywhere else and that no text becomes markup, whatever agents write.
"""

from __future__ import annotations

import logging
import socket
from functools import cache
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec import structs
from quart import Blueprint, Response, request

from gateway.errors import InvalidRequest, MethodNotAllowed, NotFound
from gateway.front.console.lines import LineFilter
from gateway.front.console.live import (
    AgentsTopic,
    HostsTopic,
    LiveBody,
    LogTopic,
    RequestsTopic,
    WorkersTopic,
)
from gateway.front.console.origin import check_change, check_origin
from gateway.front.console.requests import id_of, running, show_running, view_running
from gateway.front.console.series import BUCKET, BUCKETS
from gateway.front.console.watch import INTERVAL
from gateway.front.event_stream import HEADERS
from gateway.front.status import caller, shown_to
from gateway.sandbox.words import in_words

if TYPE_CHECKING:
    from gateway.agents.agent import Agent
    from gateway.exchange import Exchange
    from gateway.front.console.console import Console
    from gateway.front.console.live import Topic
    from gateway.front.console.requests import RequestView
    from gateway.front.console.rights import Rights

PAGE = Path(__file__).parent / "page"

API = "/console/api/"

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/vnd.microsoft.icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}

POLICY = "; ".join(
    (
        "default-src 'none'",
        "base-uri 'none'",
        "connect-src 'self'",
        "font-src 'self'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "img-src 'self' blob: data:",  # files of an answer
        "media-src blob: data:",
        "require-trusted-types-for 'script'",
        "script-src 'self'",
        "style-src 'self'",
        "trusted-types 'none'",
    )
)

_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

_AROUND = 1.0
"""Seconds before and after a request in which a line may still be about it."""

MOST_STDERR = 200
"""Lines of a worker that are shown of one request."""

_LEVELS = {name: getattr(logging, name.upper()) for name in ("debug", "info", "warning", "error")}

_SETTINGS = (
    *("workers", "concurrency", "queue", "max_requests", "session", "session_by"),
    *("on_disconnect", "clocks", "restart", "limits"),
)
"""Those of an agent that say what becomes of a request."""

_TOLD = ("workers", "queue", "session", "session_by", "on_disconnect")
"""Those of them that hosts tell a front."""


def make_console_blueprint(console: Console) -> Blueprint:
    """Make the routes."""
    routes = Blueprint("console", __name__)

    @routes.before_request
    def check() -> None:
        console.check_on()
        if request.path.startswith(API):
            check_origin(request.headers)

    @routes.get("/console")
    async def page() -> Response:
        return _file("index.html")

    @routes.get("/console/")
    async def with_slash() -> Response:
        # Relative, as a proxy may serve the gateway below another path; and the page's own links
        # are relative to the path without the slash.
        return Response(b"", 308, {"Location": "../console", **_HEADERS})

    @routes.get("/console/page/<name>")
    async def file(name: str) -> Response:
        return _file(name)

    @routes.get("/console/api/hello")
    async def hello() -> Response:
        return _json(_hello(console))

    @routes.get("/console/api/live")
    async def live() -> Response:
        if request.method == "HEAD":  # its body would be followed, and held open, for nobody
            raise MethodNotAllowed("HEAD is not supported here; use GET", allow="GET")
        rights = console.rights_of(caller())
        topics = _topics(console, rights)
        opened = request.args["agent"] if "workers" in topics else None
        response = Response(LiveBody(console, rights, list(topics.values()), opened))
        for name, value in HEADERS:
            response.headers[name.decode()] = value.decode()
        response.timeout = None
        return response

    @routes.get("/console/api/agents/<name>")
    async def agent(name: str) -> Response:
        caller().check(name)
        return _json(await _agent(console, console.dispatcher.agent(name)))

    @routes.get("/console/api/requests/<wanted>")
    async def one(wanted: str) -> Response:
        return _json(await _request(console, console.rights_of(caller()), wanted))

    @routes.post("/console/api/requests/<wanted>/cancel")
    async def cancel(wanted: str) -> Response:
        check_change(request.headers)
        rights = console.rights_of(caller())
        exchange = _find_running(console, rights, wanted)
        if exchange is not None:
            exchange.spill()  # a run waits for its readers
            console.dispatcher.leave(exchange)
            return _json({"request": view_running(exchange)})
        return _json({"request": (await _request(console, rights, wanted))["request"]})

    return routes


def _hello(console: Console) -> dict[str, Any]:
    server = console.settings.server
    return {
        "version": _version(),
        "hosts": [{"name": socket.gethostname(), "draining": console.dispatcher.leaving}],
        "fleet": console.fleet is not None,
        "keys": console.keys,
        "key": caller().name or None,
        "dialects": server.dialects,
        "payloads": console.payloads,
        "docs": server.docs,
        "interval": INTERVAL,
        "bucket": BUCKET,
        "buckets": BUCKETS,
    }


def _topics(console: Console, rights: Rights) -> dict[str, Topic]:
    """What the query asks for. Raises InvalidRequest and Forbidden."""
    agent = request.args.get("agent") or None
    if agent is not None:
        rights.caller.check(agent)
    level = request.args.get("level", "info")
    if level not in _LEVELS:
        raise InvalidRequest(f"level is {level[:80]!r}, expected one of {', '.join(_LEVELS)}")
    wanted = LineFilter(agent, request.args.get("request") or None, _LEVELS[level])
    topics: dict[str, Topic] = {
        "agents": AgentsTopic(console, rights, agent),
        "requests": RequestsTopic(console, rights, agent),
        "log": LogTopic(console, rights, wanted),
    }
    asked = dict.fromkeys((request.args.get("topics") or ",".join(topics)).split(","))
    if console.fleet is not None:
        topics["hosts"] = HostsTopic(console, rights, console.fleet, agent)
    if agent is not None:
        topics["workers"] = WorkersTopic(console, agent)
    elif "workers" in asked:
        raise InvalidRequest("topics has 'workers', which are those of one agent: agent=NAME")
    for name in asked:
        if name not in topics:
            raise InvalidRequest(f"topics has {name[:80]!r}, expected of {', '.join(topics)}")
    return {name: topics[name] for name in asked}


async def _agent(console: Console, agent: Agent) -> dict[str, Any]:
    status = shown_to(caller(), await agent.status())
    settings, here = agent.settings, agent.name in console.settings.run_here
    shown = here and not console.keys
    return structs.asdict(status) | {
        "in_words": in_words(status.sandbox, workers=settings.workers.max) if here else {},
        "settings": {
            "command": console.settings.shown_command(agent.name) if shown else None,
            **{name: getattr(settings, name) for name in (_SETTINGS if here else _TOLD)},
        },
    }


async def _request(console: Console, rights: Rights, wanted: str) -> dict[str, Any]:
    """Raises NotFound."""
    exchange = _find_running(console, rights, wanted)
    if exchange is not None:
        view, shown = view_running(exchange), show_running(exchange)
    else:
        console.catch_up()
        ended = console.requests.find(wanted, rights.owner)
        if ended is None or not rights.may_see(ended.seen.began):
            raise NotFound("there is no such request, or it is not kept any more")
        view, shown = ended.view, ended.show()
    lines = await console.lines.find(
        lambda line: line.stderr and line.is_about(view.request_id) and rights.may_read(line),
        MOST_STDERR,
    )
    return {
        "request": view,
        **shown,
        "stderr": [line.show(keys=rights.keys) for line in lines if _is_while(line.at, view)],
    }


def _is_while(at: float, view: RequestView) -> bool:
    """Whether a line came with the request. An id may be used again, by the same caller."""
    return at >= view.began - _AROUND and (view.ended is None or at <= view.ended + _AROUND)


def _find_running(console: Console, rights: Rights, wanted: str) -> Exchange | None:
    every = running(console.dispatcher.open, rights.owner)
    return next(
        (each for each in every if id_of(each) == wanted and rights.may_see(each.admitted_at)), None
    )


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), content_type="application/json")


class _File(NamedTuple):
    data: bytes
    kind: str
    tag: str


@cache
def files() -> dict[str, _File]:
    """The page's files by name."""
    return {
        path.name: _File(data, TYPES[path.suffix], blake2b(data, digest_size=12).hexdigest())
        for path in PAGE.iterdir()
        if path.suffix in TYPES
        for data in [path.read_bytes()]
    }


def _file(name: str) -> Response:
    """A file of the page. Raises NotFound."""
    found = files().get(name)
    if found is None:
        raise NotFound(f"there is nothing at {request.path[:80]!r}")
    if found.tag in request.if_none_match:
        response = Response(b"", 304)
    else:
        response = Response(found.data, content_type=found.kind)
    response.headers.update(_HEADERS)
    response.set_etag(found.tag)
    return response


@cache
def _version() -> str:
    try:
        return version("agent-gateway")
    except PackageNotFoundError:  # run from a folder of sources
        return "0"
