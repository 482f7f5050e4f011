"""Payloads are let go of at once when their requests have failed, not by the garbage collector.

An error's traceback holds the frames that it went through, and these hold payloads. So no frame and
nothing that a frame holds may hold the error in turn.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import h11
import pytest
import trio
import trio.testing

from gateway.config import RunSettings
from gateway.errors import AgentFailed, InvalidRequest, Overloaded
from gateway.exchange import Exchange
from gateway.front.requests import CallRoutes
from gateway.front.runs.service import Runs
from gateway.sandbox.network.downstream import Downstream, Left
from gateway.sandbox.network.upstream import Connection
from gateway.workers.input_checker import InputChecker
from tests.fleet.host_scene import a_front
from tests.garbage import LARGE, no_large_garbage
from tests.unit.asgi import DEFAULT, DIALECTS, HOSTS, SCOPE, FakeClient, FakeDispatcher, say_nothing

MESSAGES = [{"role": "user", "content": "x" * 2 * LARGE}]
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {}}}
PAYLOAD = b'"%b"' % (b"x" * 2 * LARGE)


async def ask(
    story: Callable[[Exchange], Any],
    *,
    path: str = "/agent/a/invoke",
    inputs: InputChecker | None = None,
    refused: bool = False,
    **members: Any,
) -> int:
    """Ask for what is large; the status of the answer."""
    body = json.dumps(members or {"input": "x" * 2 * LARGE}).encode()
    client = FakeClient(body)
    async with trio.open_nursery() as nursery:
        dispatcher: Any = FakeDispatcher(nursery, story, DEFAULT)
        if refused:
            dispatcher.submit = refuse
        inner: Any = None
        routes = CallRoutes(
            inner,
            dispatcher,
            DIALECTS,
            HOSTS,
            Runs(dispatcher, RunSettings()),
            max_body=4 * LARGE,
            inputs=lambda _: inputs,
        )
        scope = SCOPE | {"path": path, "raw_path": path.encode()}
        await routes(scope, client.receive, client.send)
        nursery.cancel_scope.cancel()
    return client.status


def refuse(call: object) -> Exchange:
    raise Overloaded("it is full")


async def fail(exchange: Exchange) -> None:
    exchange.fail(AgentFailed("it could not"))


async def answer_wrongly(exchange: Exchange) -> None:
    """With what is no answer in OpenAI's API."""
    made = json.dumps({"content": "x" * 2 * LARGE, "tool_calls": [{}]})
    exchange.end(made.encode())


async def test_a_request_that_fails_or_is_refused() -> None:
    with no_large_garbage():
        assert await ask(fail) == 500
        assert await ask(say_nothing, refused=True) == 503


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_cannot_be_written_as_its_protocol_asks(stream: bool) -> None:
    members = {"model": "a", "messages": MESSAGES, "tools": [TOOL], "stream": stream}
    with no_large_garbage():
        status = await ask(answer_wrongly, path="/v1/chat/completions", **members)
        assert status == (200 if stream else 502)


async def test_an_input_that_is_not_what_the_agent_declares() -> None:
    inputs = InputChecker("a", b'{"type":"integer"}')
    with no_large_garbage():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(inputs.run)
            assert await ask(say_nothing, inputs=inputs) == 400
            nursery.cancel_scope.cancel()


async def test_a_request_that_a_host_refuses(autojump_clock: trio.abc.Clock) -> None:
    class Inputs:
        async def check(self, payload: bytes, within: float) -> None:
            raise InvalidRequest("input: expected integer")

    async with a_front(concurrency=1, queue=1) as scene:
        for request_id in (1, 2):
            scene.submit(request_id, "hold")
        await scene.said()
        with no_large_garbage():
            scene.submit(3, payload=PAYLOAD + b"")
            assert len(await scene.said()) == 1
            inputs: Any = Inputs()
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(scene.agents.agent.declared, "inputs", inputs)
                scene.submit(4, payload=PAYLOAD + b"")
                assert len(await scene.said()) == 1


@asynccontextmanager
async def a_reset() -> AsyncIterator[trio.SocketStream]:
    """One end of a connection, whose other end has sent a request and is reset once more comes."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    theirs = await trio.testing.open_stream_to_socket_listener(listener)
    ours = await listener.accept()
    await theirs.send_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")

    async def reset() -> None:
        await theirs.receive_some(1)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await theirs.aclose()

    async with listener, ours, trio.open_nursery() as nursery:
        nursery.start_soon(reset)
        yield ours


async def test_an_answer_of_a_service_whose_agent_has_left() -> None:
    async with a_reset() as stream:
        agent = Downstream(stream, lambda: False)
        assert await agent.request()
        with no_large_garbage(), suppress(Left):
            await agent.answer(200, [], b"x" * 20 * LARGE)
            raise AssertionError


async def test_a_request_to_a_service_that_has_left() -> None:
    async with a_reset() as stream:
        service = Connection(stream, stream.socket)
        length = str(20 * LARGE)
        head = h11.Request(
            method="POST", target="/", headers=[("host", "a"), ("content-length", length)]
        )
        with no_large_garbage(), suppress(trio.BrokenResourceError):
            await service.send(head, h11.Data(data=b"x" * 20 * LARGE))
            raise AssertionError
