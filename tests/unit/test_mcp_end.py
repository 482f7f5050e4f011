"""MCP's streams when the gateway ends."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import trio
from trio.testing import MockClock

from gateway.agents.dispatcher import Dispatcher
from gateway.front.auth import Keys
from gateway.front.client import ClientRequest, no_limit
from gateway.front.dialect import RequestHead
from gateway.front.mcp.envelope import Envelope
from gateway.front.mcp.errors import encode_error
from gateway.front.mcp.routes.calls import Visit
from gateway.front.mcp.routes.endpoint import LOOK_SECONDS, Endpoint
from gateway.front.mcp.routes.transport import Transport
from tests.unit.asgi import FakeClient


async def test_a_client_that_does_not_read_holds_up_nobodys_end(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    class Unread:
        are_unused = False
        closed = 0

        async def tell_of_change(self) -> None:
            await trio.sleep_forever()

        def close(self) -> None:
            self.closed += 1

    unread: Any = Unread()
    dispatcher, nothing = Dispatcher(), SimpleNamespace()
    endpoint = Endpoint(dispatcher, nothing, nothing, Keys())  # type: ignore[arg-type]
    endpoint._of_keys[""] = unread
    endpoint._told = {"another": None}
    await nursery.start(endpoint.run)
    await trio.sleep(2 * LOOK_SECONDS)
    assert not unread.closed
    await dispatcher.drain()
    await trio.testing.wait_all_tasks_blocked()
    assert unread.closed == 1
    await trio.sleep(LOOK_SECONDS * 1.5)
    assert unread.closed == 2, "what begins later is ended, too"
    nursery.cancel_scope.cancel()


async def test_a_stream_that_is_ended_before_it_began_is_refused() -> None:
    client = FakeClient(b"")
    request = ClientRequest(
        RequestHead(request_id="r-1"),
        client.receive,
        client.send,
        encode_error,
        limit_unread=no_limit,
    )
    scope = {"method": "GET", "path": "/mcp", "headers": []}
    transport = Transport(Visit(request, Envelope(b""), 0, None), scope)
    await transport.end()
    assert client.status == 503
    assert b"ended before it began" in client.body
