"""The HTTP side alone, in the test's own process."""

from __future__ import annotations

import math
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from gateway.agents.dispatcher import Dispatcher
from gateway.composition import http
from gateway.config import RunSettings, ServerSettings
from gateway.front.addresses import AddressCounts
from gateway.front.app import make_app
from gateway.front.listen import Places, serve_http
from gateway.front.runs.service import Runs


def an_app(settings: ServerSettings) -> Any:
    """The application of a gateway without agents."""
    dispatcher = Dispatcher({})
    return make_app(dispatcher, Runs(dispatcher, RunSettings()), settings)


@asynccontextmanager
async def bare_server(
    app: Any = None,
    *,
    keep_alive: float = 75,
    drain: trio.Event | None = None,
    stop: trio.Event | None = None,
    max_connections: float = math.inf,
    addresses: AddressCounts | None = None,
) -> AsyncIterator[int]:
    """Serve `app`, or the gateway's without agents; its port.

    `drain` makes it drain, and `stop` ends it, as the end of the block does.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    config = http._http_config([listener])
    config.keep_alive_timeout = keep_alive
    draining = trio.Event() if drain is None else drain
    end = trio.Event() if stop is None else stop
    app = an_app(ServerSettings(max_body="1000")) if app is None else app
    async with trio.open_nursery() as nursery:
        await nursery.start(
            lambda **options: serve_http(
                app,
                config,
                drain_trigger=draining.wait,
                shutdown_trigger=end.wait,
                places=Places(max_connections, addresses or AddressCounts(0)),
                **options,
            )
        )
        yield port
        end.set()


def with_lifespan(call: Any) -> Any:
    """An ASGI application that calls `call` for requests, and does nothing at start and end."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await call(scope, receive, send)
            return
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})

    return app


def application(respond: Any) -> Any:
    """An ASGI application of a function that only sends."""

    async def call(_scope: Any, _receive: Any, send: Any) -> None:
        await respond(send)

    return with_lifespan(call)
