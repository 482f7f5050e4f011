"""A front, and hosts that do not do as they should."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from gateway.errors import (
    InvalidAgentResponse,
)
from gateway.fleet.front import front as module
from gateway.fleet.front import hosts as hosts_module
from gateway.fleet.front.link import MOST_AHEAD
from gateway.fleet.front.status import MOST_STATUS_BYTES, read_told
from gateway.fleet.messages import (
    VERSION,
    AgentBeat,
    Beat,
    Submit,
    Told,
)
from gateway.fleet.subjects import Peer, Subjects, digest_of
from tests.fleet.front_scene import CRASHED, SUBJECTS, Scene, a_call, a_scene, line


async def test_the_log_says_that_a_host_is_ignored_and_not_with_every_beat(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts_module, "MOST_STARTS", 1)
    async with a_scene("h1") as scene:
        scene.host("h1", other=AgentBeat("ready", 8, 0, 0, 1))
        await scene.settle(20)
    said = [each for each in caplog.messages if "ignored" in each]
    assert said == [
        "a host is ignored: it has the name of 1 others: give each its own (fleet.name)"
    ]


async def test_a_fleet_whose_prefix_begins_with_this_one_s_is_another(
    autojump_clock: MockClock,
) -> None:
    async with a_scene("h1") as scene:
        beat = Beat(VERSION, "1", False, {"echo": AgentBeat("ready", 8, 0, 0, 1)})
        subject = Subjects("gw.hb").beat(Peer("h2", "0"))
        scene.nats.bus("h2").publish(subject, msgspec.msgpack.encode(beat))
        await scene.settle(0.5)
        assert [each.peer for each in scene.front.hosts.all] == [scene.hosts[0].peer]
        assert not [each for _, each in scene.nats.published if "h2" in each.subject][1:]


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\n",
        b'{"jsonrpc":"2.0","id":1,"result":{}}\n',
        b'{"jsonrpc":"2.0","method":"ready","params":{"protocol":1,"handlers":["chat"]}}\n',
    ],
)
async def test_what_names_no_request_ends_all_of_that_host_and_no_other(
    autojump_clock: MockClock, data: bytes
) -> None:
    async with a_scene("bad", "good") as scene:
        exchanges = [await scene.submit() for _ in range(2)]
        bad, good = scene.hosts
        bad.give()
        good_id = good.give()
        bad.say(data)
        await scene.settle()
        [failed] = [each for each in exchanges if each.error is not None]
        assert failed.error is not None
        assert failed.error.details["host"] == "bad"
        good.say(line(good_id, output=1))
        await scene.settle()
        assert [each.result for each in exchanges if each is not failed] == [b"1"]
        for _ in range(3):
            await scene.submit()
        assert len(bad.submitted) == 1  # it is left alone for a while
        await trio.sleep(module.AVOID_SECONDS)
        for _ in range(8):
            await scene.submit()
        assert len(bad.submitted) > 1


async def test_a_stream_that_is_sent_faster_than_it_is_taken_is_ended(
    autojump_clock: MockClock,
) -> None:
    async with a_scene("bad") as scene:
        [bad] = scene.hosts
        exchange = await scene.submit(a_call(stream=True))
        request_id = bad.give()
        for _ in range(MOST_AHEAD // 500_000 + 2):
            bad.say(line(request_id, chunk="x" * 500_000))
            await scene.settle()
        assert isinstance(exchange.error, InvalidAgentResponse)
        assert exchange.buffered_bytes < MOST_AHEAD + 1_000_000


async def test_what_is_said_of_requests_that_are_not_there_is_ignored(
    autojump_clock: MockClock,
) -> None:
    async with a_scene("bad") as scene:
        [bad] = scene.hosts
        exchange = await scene.submit()
        for wrong in (0, 12345, 2**60):
            bad.wire.send(Told(wrong, b"x"))
            bad.heard.append(
                Submit(wrong, *[getattr(bad.submitted[0], f) for f in Submit.__struct_fields__[1:]])
            )
            bad.give()
            bad.refuse()
            bad.fail(CRASHED)
        await scene.settle()
        assert not exchange.ended


async def test_no_conversations_are_remembered_of_agents_that_are_not_served(
    autojump_clock: MockClock,
) -> None:
    async with a_scene("bad") as scene:
        [bad] = scene.hosts
        bad.descriptions["other"] = b"nonsense"
        bad.agents["other"] = AgentBeat("ready", 8, 0, 0, 1)
        await scene.settle(2)
        for agent in ("echo", "other"):
            bad.bus.publish(SUBJECTS.owned(agent, bad.peer), digest_of("c"))
        await scene.settle(2)
        assert scene.front._lookup.last("echo", "c") == bad.peer
        assert scene.front._lookup.last("other", "c") is None


async def test_a_status_that_could_not_be_written_again_is_none(
    autojump_clock: MockClock,
) -> None:
    async with a_scene("bad") as scene:
        [bad] = scene.hosts
        for depth in (22, 500, *range(900, 1000)):
            bad.status = status_with(b'{"a":%b%b}' % (b"[" * depth, b"]" * depth))
            assert await sandbox_told(scene) == {}


def status_with(sandbox: bytes, started: bytes = b"1") -> bytes:
    return (
        b'{"workers":[],"started":%b,"failures":0,"last_failure":null,"last_limit":null,'
        b'"sandbox":%b}' % (started, sandbox)
    )


async def sandbox_told(scene: Scene) -> Any:
    """What a caller is told of the sandbox."""
    return json.loads(msgspec.json.encode(await scene.dispatcher.agent("echo").status()))["sandbox"]


async def test_what_a_host_says_of_its_sandbox_is_passed_on_as_it_came_or_not_at_all(
    autojump_clock: MockClock,
) -> None:
    async with a_scene("bad") as scene:
        [bad] = scene.hosts
        for good in (
            b'{"a":[{"]}[{\\"":"}"},[1e400,123456789012345678901234567890]]}',
            b'{"a":%b%b}' % (b"[" * 18, b"]" * 18),
        ):
            bad.status = status_with(good)
            assert await sandbox_told(scene) == json.loads(good)
        for wrong in (b"[]", b"1", b'{"a":"\xff"}', b'{"a":01}', b'{"\xed\xa0\x80":1}'):
            bad.status = status_with(wrong)
            assert await sandbox_told(scene) == {}
        for started in (b"9" * 4000, b"-1", b"9007199254740993"):
            bad.status = status_with(b'{"a":1}', started)
            assert await sandbox_told(scene) == {}


def test_a_status_takes_little_memory_whatever_it_is_made_of() -> None:
    for of in (b"[]", b"{}", b'{"":[]}', b'""', b"1"):
        count = MOST_STATUS_BYTES // (len(of) + 1) - 100
        body = status_with(b'{"a":[%b]}' % b",".join([of] * count))
        tracemalloc.start()
        try:
            assert read_told(body) is not None
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 50 * len(body)  # with its strings apart; 150 if it were decoded
