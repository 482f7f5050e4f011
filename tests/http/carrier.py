"""The HTTP side alone, in the test's own process."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from gateway import server
from gateway.agents.dispatcher import Dispatcher
from gateway.config import ServerSettings
from gateway.front.app import make_app
from gateway.front.connections import serve_http


@asynccontextmanager
async def bare_server(app: Any = None) -> AsyncIterator[int]:
    """Serve `app`, or the gateway's without agents; its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    config = server._http_config([listener])
    end = trio.Event()
    app = make_app(Dispatcher({}), ServerSettings(max_body="1000")) if app is None else app
    async with trio.open_nursery() as nursery:
        await nursery.start(
            lambda **options: serve_http(app, config, shutdown_trigger=end.wait, **options)
        )
        yield port
        end.set()
