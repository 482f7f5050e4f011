"""What a front makes of outcomes that hosts have written, which may be anything."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import trio

from gateway.config import Clocks
from gateway.errors import InvalidAgentResponse
from gateway.exchange import MAX_COLLECTED_BYTES, Exchange
from gateway.fleet.background import Outcome, Store
from gateway.fleet.front.jobs import SOMEBODY, read_outcome
from gateway.fleet.front.request import RemoteRequest
from gateway.fleet.host.lines import answer, words
from gateway.fleet.jetstream import MOST_PIECES, PIECE
from gateway.fleet.lookup import Lookup
from protocol import Outcome as AgentsOutcome
from protocol.framing import MAX_RELAYED_LINE_BYTES
from tests.fleet.front_scene import a_call

pytest.importorskip("nats", reason="nats-py is of an extra")


class Written:
    """A JetStream in which every message is the same."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def run(self, function: Any) -> Any:
        del function
        return self._data


@pytest.mark.parametrize(
    "data", [b"", b"nonsense", b"\x93\xc4\x00\xc0\xc3", b"\x91" * 100_000, b"\x90"]
)
async def test_an_outcome_that_is_none_ends_its_run_with_one_honest_error(data: bytes) -> None:
    outcome = await Store(Written(data), "gw", ttl=60).outcome("echo", "0")
    assert outcome is not None
    exchange = Exchange(a_call(), Clocks(), 0.0)
    await read_outcome(outcome, RemoteRequest(exchange, Lookup()), SOMEBODY)
    assert isinstance(exchange.error, InvalidAgentResponse)


class Message(NamedTuple):
    data: bytes


class Kept:
    """A JetStream with messages by their subjects; what is not in it is `otherwise`."""

    def __init__(self, otherwise: bytes, **messages: bytes) -> None:
        self._otherwise = otherwise
        self._messages = messages
        self.read = 0
        """Bytes."""

    async def run(self, function: Any) -> Any:
        return await function(self)

    async def get_last_msg(self, stream: str, subject: str, *, direct: bool) -> Message:
        del stream, direct
        data = self._messages.get(f"_{subject.rsplit('.', 1)[1]}", self._otherwise)
        self.read += len(data)
        return Message(data)

    async def publish(self, subject: str, data: bytes, **_: Any) -> None:
        self._messages[f"_{subject.rsplit('.', 1)[1]}"] = data


@pytest.mark.parametrize(
    ("first", "otherwise", "most"),
    [
        ((2**32 - 1).to_bytes(4, "big") + b"x" * PIECE, b"x" * PIECE, 2 * PIECE),
        ((MOST_PIECES + 1).to_bytes(4, "big"), b"x" * PIECE, 2 * PIECE),
        (b"\0\0\0\2", b"x" * (PIECE + 1), 2 * PIECE),
        (b"\0\0\0\1" + b"x" * (PIECE + 1), b"", 2 * PIECE),
        (b"\0\0\0\0", b"x", 8),
        (b"\0", b"x", 8),
    ],
)
async def test_of_an_outcome_that_is_larger_than_any_may_be_no_more_is_read(
    first: bytes, otherwise: bytes, most: int, caplog: pytest.LogCaptureFixture
) -> None:
    kept = Kept(otherwise, _0=first)
    outcome = await Store(kept, "gw", ttl=60).outcome("echo", "0")
    assert outcome is not None
    assert kept.read <= most
    assert "has not written how a background run has ended, but: " in caplog.text
    exchange = Exchange(a_call(), Clocks(), 0.0)
    await read_outcome(outcome, RemoteRequest(exchange, Lookup()), SOMEBODY)
    assert isinstance(exchange.error, InvalidAgentResponse)


async def test_the_longest_answer_of_an_agent_is_kept_and_read() -> None:
    said = [b'{"type":"status","text":"s","x":"%b"}' % (b"x" * 1_000_000)] * (
        MAX_COLLECTED_BYTES // 1_000_100
    )
    members = b'{"jsonrpc":"2.0","id":1,"result":{"output":""}}\n'
    value = b'"%b"' % (b"y" * (MAX_RELAYED_LINE_BYTES - len(members) - 3000))
    usage = AgentsOutcome(usage=b'{"input_tokens":1}')
    lines = words(1, said) + answer(1, "invoke", value, usage)
    store = Store(Kept(b""), "gw", ttl=60)
    written = Outcome(lines, None, handed_over=True)
    assert len(lines) > 0.95 * (MAX_COLLECTED_BYTES + MAX_RELAYED_LINE_BYTES)
    await store.finish("echo", "t", written)
    outcome = await store.outcome("echo", "t")
    assert outcome == written
    exchange = Exchange(a_call(stream=True, events=True), Clocks(), 0.0)
    await read_outcome(outcome, RemoteRequest(exchange, Lookup()), SOMEBODY)
    assert exchange.error is None
    assert exchange.take() == said
    assert exchange.result == value


async def test_others_have_their_turn_while_a_long_outcome_is_read() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    outcome = Outcome(words(1, [b'"x"'] * 100_000), None, handed_over=True)
    exchange = Exchange(a_call(stream=True), Clocks(), 0.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await read_outcome(outcome, RemoteRequest(exchange, Lookup()), SOMEBODY)
        nursery.cancel_scope.cancel()
    assert turns >= len(outcome.lines) // 300_000
    assert len(exchange.take()) == 100_000
