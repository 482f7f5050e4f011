"""What one process of a fleet can have another one hold or compute is bounded."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import msgspec
import pytest
from trio.testing import MockClock

from gateway.errors import AgentUnavailable
from gateway.fleet.front import budget
from gateway.fleet.front.budget import COST, CREDIT, MOST_IN_ALL, MOST_OF_NAME, REFILL, Budget
from gateway.fleet.front.described import MOST_BYTES, read_description
from gateway.fleet.front.errors import MOST_TEXT, made_anew
from gateway.fleet.front.hosts import Hosts
from gateway.fleet.messages import (
    MOST_BEATEN,
    MOST_DESCRIPTION,
    VERSION,
    AgentBeat,
    Beat,
    Error,
    Failed,
    FrameError,
    Reader,
    encode,
)
from gateway.fleet.messages import Described as DescribedAnew
from gateway.fleet.subjects import Peer
from protocol.messages import (
    MAX_DESCRIPTION,
    MAX_HANDLER_NAME,
    MAX_HANDLERS,
    MAX_METADATA_BYTES,
    MAX_MODES,
)
from tests.fleet.front_scene import a_call, a_scene, description

HOST = Peer("h1", "0")
BEAT = AgentBeat("ready", 8, 0, 0, 1)


def ready(**members: Any) -> bytes:
    params = {"protocol": 1, "handlers": ["chat", "invoke"], **members}
    return json.dumps({"jsonrpc": "2.0", "method": "ready", "params": params}).encode() + b"\n"


# What is decoded


def test_what_a_host_says_takes_no_more_memory_than_its_bytes_whatever_it_is_made_of() -> None:
    count = 4 * 1024 * 1024
    body = description()[:-1] + b"\xdd" + count.to_bytes(4, "big") + b"\x90" * count
    small = description()[:-1] + b"\xdd" + (1000).to_bytes(4, "big") + b"\x90" * 1000
    details = {f"{number:x}": None for number in range(200_000)}
    failed = encode(Failed(1, Error("agent_error", "m", None, dict(details)), True))
    beat = msgspec.msgpack.encode(
        Beat(VERSION, "1", False, {f"{number:x}": BEAT for number in range(20_000)})
    )
    hosts = Hosts()
    tracemalloc.start()
    try:
        assert read_description(small) is not None
        assert read_description(body) is None
        with pytest.raises(FrameError, match="length <= 64"):
            Reader.down().feed(failed)
        assert hosts.heard(HOST, beat) is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < len(failed) + 1024 * 1024
    assert f"at most {MOST_BEATEN} agents" in hosts.ignored


def test_the_longest_description_that_an_agent_may_have_is_taken() -> None:
    escaped = "\u0001"  # six bytes in JSON
    schema = {"type": "object", "title": "x" * (MAX_METADATA_BYTES - 40)}
    line = ready(
        handlers=["chat", *(f"{n:02}" + escaped * (MAX_HANDLER_NAME - 2) for n in range(1, 16))],
        description=escaped * MAX_DESCRIPTION,
        metadata={"x": "y" * (MAX_METADATA_BYTES - 40)},
        input=schema,
        output=schema,
        modes=[f"{n:02}" + escaped * (MAX_HANDLER_NAME - 2) for n in range(MAX_MODES)],
    )
    assert MAX_HANDLERS == 16
    body = description(ready=line, description="\N{GRINNING FACE}" * MOST_DESCRIPTION)
    described = read_description(body)
    assert described is not None
    assert len(body) > 0.7 * MOST_BYTES


def test_the_texts_of_an_error_at_a_host_are_cut() -> None:
    error = made_anew(Error("agent_error", "x" * 10**6, None, {"at": "y" * 10**6}), HOST)
    assert len(error.message) < MOST_TEXT + 100
    assert len(str(error.details["at"])) < MOST_TEXT + 100


# Descriptions


def test_descriptions_are_held_up_to_a_bound_per_name_of_hosts_and_in_all() -> None:
    held = Budget()
    half = MOST_OF_NAME // 2
    assert held.hold("a", "evil", half) is None
    assert held.hold("b", "evil", half) is None
    assert "of one name" in (held.hold("c", "evil", 1) or "")
    assert held.hold("c", "honest", 1) is None
    assert held.hold("c", "honest", half) is None, "a description is held instead of the last"
    assert "of one name" in (held.hold("c", "evil", 1) or ""), "whoever described it first"
    held.forget("a")
    assert held.hold("c", "evil", half) is None
    names = MOST_IN_ALL // MOST_OF_NAME
    for number in range(2 * names - 2):
        assert held.hold(f"x{number}", f"h{number}", half) is None
    assert "all agents" in (held.hold("d", "another", 1) or "")
    held.forget("x0")
    assert held.hold("d", "another", 1) is None


def test_hosts_of_one_name_take_no_room_for_agents_from_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(budget, "MOST_AGENTS_OF_NAME", 2)
    held = Budget()
    assert [held.hold(agent, "evil", 1) is None for agent in "abca"] == [True, True, False, True]
    assert held.hold("c", "honest", 1) is None


def test_descriptions_are_read_as_far_as_the_credit_of_the_hosts_name_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = Budget()
    count = 0
    while held.spend("evil", 0, 10.0):
        count += 1
    assert count == CREDIT // COST
    assert not held.has_credit("evil", 10.0)
    assert held.spend("honest", CREDIT, 10.0)
    assert not held.has_credit("evil", 9.0)
    assert held.spend("evil", REFILL, 10.5)
    assert not held.spend("evil", 1, 11.0)
    assert held.spend("evil", 1, 100.0)
    monkeypatch.setattr(budget, "MOST_NAMES", 1)
    for number in range(10):
        held.spend(f"h{number}", 1, 100.0)
        assert len(held._credits) <= 3


async def test_an_agent_for_whose_description_there_is_no_room_is_not_served_and_the_log_says_why(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(budget, "MOST_OF_NAME", 100_000)
    large = description(ready=ready(metadata={"x": "y" * 60_000}))
    async with a_scene("evil", "good") as scene:
        evil, good = scene.hosts
        for name in ("a", "b", "c"):
            evil.descriptions[name] = large
            evil.agents = evil.agents | {name: BEAT}
        good.agents = good.agents | {"d": BEAT}
        await scene.settle(20)
        served = scene.dispatcher.agents.keys()
        assert served == {"echo", "a", "d"}
        [line] = [each for each in caplog.messages if "not served" in each]
        assert "fleet.name" in line
        # One of them gets smaller, and the other is taken.
        evil.descriptions["a"] = description()
        evil.agents = evil.agents | {"a": AgentBeat("ready", 8, 0, 0, 2)}
        await scene.settle(400)
        assert len(served) == 4


async def test_descriptions_that_change_with_every_beat_are_read_within_the_credit(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(budget, "CREDIT", 100 * COST)
    monkeypatch.setattr(budget, "REFILL", COST)
    async with a_scene("evil") as scene:
        [evil] = scene.hosts
        read = 0
        agent: Any = scene.dispatcher.agent("echo")
        describe = agent.describe

        def count(described: Any) -> None:
            nonlocal read
            read += 1
            describe(described)

        agent.describe = count
        for number in range(500):
            body = description(description=f"the {number}th")
            evil.wire.send(DescribedAnew("echo", number, body))
            evil.descriptions["echo"] = body
            evil.agents["echo"] = AgentBeat("ready", 8, 0, 0, number)
            await scene.settle(0.1)
        assert 90 <= read <= 115
        assert any("faster than a front reads" in each for each in caplog.messages)
        await scene.settle(100)
        assert agent.settings.description == "the 499th"


async def test_agents_beyond_those_that_a_host_may_have_are_left_out_and_the_log_says_so(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gateway.fleet.front.hosts.MOST_AGENTS", 5)
    monkeypatch.setattr("gateway.fleet.front.front.MOST_OF_HOST", 5)
    async with a_scene("large") as scene:
        [large] = scene.hosts
        large.agents = {f"a{number}": BEAT for number in range(6)}
        await scene.settle(2)
        assert len(scene.front.hosts.agents) == 5
        [line] = [each for each in caplog.messages if "expected at most 5" in each]
        assert "6 agents" in line


# Requests


async def test_a_host_that_takes_nothing_gets_no_more_requests_than_there_is_room_for(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.fleet.front.link.MOST_UNTAKEN", 100_000)
    async with a_scene("deaf") as scene:
        [deaf] = scene.hosts
        monkeypatch.setattr(deaf._wires, "flush", lambda: None)  # acknowledges nothing
        call = a_call(payload=b'"%b"' % (b"x" * 30_000))
        for _ in range(4):
            await scene.submit(call)
        with pytest.raises(AgentUnavailable):
            scene.dispatcher.submit(call)
        other = scene.host("other")
        await scene.settle(2)
        await scene.submit(call)
        assert len(other.submitted) == 1


async def test_a_host_that_ends_no_request_that_was_cancelled_has_them_held_up_to_a_bound(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.fleet.front.link.MOST_LEFT", 5)
    async with a_scene("endless") as scene:
        [endless] = scene.hosts
        exchanges = []
        for _ in range(5):
            exchange = await scene.submit()
            scene.dispatcher.leave(exchange)
            exchanges.append(exchange)
        await scene.settle(2)
        assert not endless.ends
        assert [exchange.call.payload for exchange in exchanges] == [b""] * 5
        endless.fail(Error("cancelled", "as asked"), 0)  # which makes room for one more
        await scene.settle(2)
        scene.dispatcher.leave(await scene.submit())
        await scene.settle(2)
        assert not endless.ends
        scene.dispatcher.leave(await scene.submit())
        await scene.settle(2)
        assert len(endless.ends) == 1
