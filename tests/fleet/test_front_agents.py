"""What a front knows of the agents of its hosts, and what it tells of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from gateway.agents.agent import Agent
from gateway.errors import (
    AgentNotFound,
    AgentUnavailable,
    HandlerNotImplemented,
)
from gateway.fleet.front import front as module
from gateway.fleet.messages import (
    AgentBeat,
    Described,
)
from gateway.workers import checker_places
from gateway.workers.input_checker import InputChecker
from tests.fleet.front_scene import READY, ScriptedHost, a_call, a_scene, description, line


async def test_the_list_of_agents_counts_workers_and_requests_as_they_are_now(
    autojump_clock: MockClock,
) -> None:
    async with a_scene("h1", "h2") as scene:
        for host in scene.hosts:
            host.agents = {"echo": AgentBeat("ready", 8, 0, 0, 1, workers=3)}
        await scene.settle(2)
        agent = scene.dispatcher.agent("echo")
        await scene.submit()
        assert (agent.summary.workers, agent.summary.in_flight) == (6, 1)
        [host] = [each for each in scene.hosts if each.submitted]
        host.agents = {"echo": AgentBeat("ready", 8, 1, 0, 1, workers=2**60)}
        await scene.settle(1)
        host.say(line(host.give(), output=1))
        await scene.settle()
        assert (agent.summary.workers, agent.summary.in_flight) == (1_000_003, 0)


# Agents


async def test_an_agent_whose_last_host_is_gone_is_known_for_a_while(
    autojump_clock: MockClock,
) -> None:
    async with a_scene("h1") as scene:
        scene.kill(scene.hosts[0])
        await scene.settle(10)
        with pytest.raises(AgentUnavailable):
            scene.dispatcher.submit(a_call())
        await trio.sleep(module.LINGER_SECONDS)
        await scene.settle(2)
        with pytest.raises(AgentNotFound):
            scene.dispatcher.submit(a_call())
        scene.host("h1")
        await scene.settle(3)
        await scene.submit()


async def test_an_agent_that_is_new_at_a_host_is_served(autojump_clock: MockClock) -> None:
    async with a_scene("h1") as scene:
        scene.hosts[0].agents["other"] = AgentBeat("ready", 8, 0, 0, 1)
        await scene.settle(3)
        await scene.submit(a_call("other"))
        assert scene.hosts[0].submitted[0].agent == "other"


async def test_hosts_serve_only_what_the_configuration_lets_them(autojump_clock: MockClock) -> None:
    async with a_scene("h1", "h2", hosts={"h1": ["echo"], "h2": ["other-*"]}) as scene:
        for _ in range(4):
            await scene.submit()
        assert len(scene.hosts[0].submitted) == 4


async def test_what_workers_declare_is_known_and_checked_by_the_front(
    autojump_clock: MockClock,
) -> None:
    async with a_scene("h1") as scene:
        [host] = scene.hosts
        only_chat = READY.replace(b'"chat","invoke"', b'"chat"')
        host.descriptions["echo"] = description(ready=only_chat, session="sticky", continues=True)
        host.agents = {"echo": AgentBeat("ready", 8, 0, 0, 2)}
        await scene.settle(3)
        agent: Agent = scene.dispatcher.agent("echo")
        assert agent.summary.handlers == ("chat",)
        assert (agent.settings.session, agent.settings.on_disconnect) == ("sticky", "continue")
        with pytest.raises(HandlerNotImplemented):
            scene.dispatcher.submit(a_call())


async def test_what_a_worker_has_declared_is_known_before_its_first_word(
    autojump_clock: MockClock,
) -> None:
    async with a_scene("h1") as scene:
        [host] = scene.hosts
        exchange = await scene.submit(a_call(method="chat"))
        only_chat = READY.replace(b'"chat","invoke"', b'"chat"')
        host.wire.send(Described("echo", 9, description(ready=only_chat)))
        host.say(line(host.give(), message="x"))
        await exchange.collect()
        assert scene.dispatcher.agent("echo").summary.handlers == ("chat",)
        scene.dispatcher.leave(exchange)
        await scene.submit(a_call(method="chat"))
        assert host.submitted[-1].described == 9


def ready_for(schema: bytes, handlers: bytes = b'"chat","invoke"') -> bytes:
    return READY.replace(b'"chat","invoke"]', handlers + b'],"input":' + schema)


TEXT, NUMBER = b'{"type":"string"}', b'{"type":"number"}'


async def test_where_hosts_declare_different_things_each_checks_requests_itself(
    autojump_clock: MockClock,
) -> None:
    """As long as one version of an agent takes the place of another, none knows what the other
    takes: numbers of descriptions are each host's own."""

    def describe(host: ScriptedHost) -> None:
        ready = ready_for(*{"old": (TEXT,), "new": (NUMBER, b'"chat"')}[host.peer.name])
        host.descriptions["echo"] = description(ready=ready)

    async with a_scene("old", "new", before=describe) as scene:
        await scene.settle(3)  # until both are known
        agent: Agent = scene.dispatcher.agent("echo")
        for _ in range(6):
            await scene.submit()  # one of them has no such handler
        assert agent.declared.checks is None
        assert [each.described for host in scene.hosts for each in host.submitted] == [None] * 6
        old, new = scene.hosts
        assert old.submitted
        assert new.submitted
        new.draining = True
        await scene.settle(3)
        assert agent.declared.checks is not None
        assert agent.declared.checks.schema == TEXT
        await scene.submit()
        assert old.submitted[-1].described == 1


async def test_a_front_checks_inputs_from_the_first_request_on(autojump_clock: MockClock) -> None:
    def describe(host: ScriptedHost) -> None:
        host.descriptions["echo"] = description(ready=ready_for(TEXT))

    for _ in range(16):  # tasks that are started together begin in any order
        async with a_scene("h1", before=describe) as scene:
            assert scene.dispatcher.agent("echo").declared.checks is not None


@pytest.mark.parametrize("how", ["kill", "drain", "remove"])
async def test_an_agent_is_as_those_hosts_describe_it_that_are_there(
    autojump_clock: MockClock, how: str
) -> None:
    """Also when the host that has described it last goes: the others are asked again."""
    async with a_scene("old") as scene:
        [old] = scene.hosts
        new = scene.host("new")
        new.descriptions["echo"] = description(ready=ready_for(NUMBER), session="sticky")
        await scene.settle(3)
        agent: Agent = scene.dispatcher.agent("echo")
        assert agent.settings.session == "sticky"
        if how == "kill":
            scene.kill(new)
        elif how == "drain":
            new.draining = True
        else:
            new.agents = {"other": new.agents["echo"]}
        await scene.settle(10)
        assert agent.settings.session == "none"
        assert agent.declared.inputs is None
        await scene.submit()
        assert old.submitted[-1].described == 1


# What is told


async def test_the_status_is_that_of_all_hosts_together(autojump_clock: MockClock) -> None:
    worker = {
        "pid": 5,
        "state": "ready",
        "age": 1.0,
        "served": 2,
        "in_flight": 0,
        "capacity": 8,
        "memory": 100,
    }
    failure = {"message": "it died", "at": 7.0, "pid": 4, "setting": None}
    async with a_scene("h1", "h2", "h3") as scene:
        first, second, _silent = scene.hosts
        told = {
            "workers": [worker],
            "started": 3,
            "failures": 1,
            "last_failure": failure,
            "last_limit": None,
            "sandbox": {"level": "strict"},
        }
        first.status = json.dumps(told).encode()
        second.status = json.dumps(told | {"workers": [worker, worker]}).encode()
        first.draining = True
        await scene.settle(2)
        body = msgspec.json.encode(await scene.dispatcher.agent("echo").status())
        status = json.loads(body)
        assert [each["host"] for each in status["workers"]] == ["h1", "h2", "h2"]
        assert (status["started"], status["failures"]) == (6, 2)
        assert status["last_failure"]["message"] == "it died"
        hosts = {each["name"]: each for each in status["hosts"]}
        assert [hosts[name]["answered"] for name in ("h1", "h2", "h3")] == [True, True, False]
        assert [hosts[name]["draining"] for name in ("h1", "h2", "h3")] == [True, False, False]
        assert {each["version"] for each in hosts.values()} == {"1.2.3"}


@pytest.mark.parametrize("body", [None, b"", b"nonsense", description(ready=b"x\n")])
async def test_an_agent_that_is_not_described_is_not_served(
    autojump_clock: MockClock, body: Any
) -> None:
    async with a_scene("bad") as scene:
        [bad] = scene.hosts
        bad.descriptions["other"] = body
        bad.agents["other"] = AgentBeat("ready", 8, 0, 0, 1)
        await scene.settle(50)
        with pytest.raises(AgentNotFound):
            scene.dispatcher.submit(a_call("other"))
        await scene.submit()  # others of it are


async def test_no_more_agents_come_than_a_front_has_room_for(
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MOST_AGENTS", 5)
    async with a_scene("bad") as scene:
        for number in range(20):
            scene.hosts[0].agents[f"a{number}"] = AgentBeat("ready", 8, 0, 0, 1)
        await scene.settle(5)
        assert len(scene.dispatcher.agents) == 5


async def test_every_agent_that_declares_a_schema_has_its_inputs_checked_by_the_front(
    autojump_clock: MockClock,
) -> None:
    names = [f"a{number}" for number in range(20)]
    ready = READY.replace(b"}}", b',"input":{"type":"integer"}}}')
    async with a_scene("h1", before=partial(describe_all, names=names, ready=ready)) as scene:
        for name in names:
            assert scene.dispatcher.agents[name].declared.inputs is not None


async def test_the_processes_that_check_inputs_are_so_many_for_all_agents_of_a_front(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checker_places, "MOST_PROCESSES", 1)
    ready = READY.replace(b"}}", b',"input":{"type":"integer"}}}')
    describe_two = partial(describe_all, names=("a", "b"), ready=ready)
    async with a_scene("h1", before=describe_two) as scene:
        before: InputChecker | None = None
        for name in ("a", "b"):
            inputs = scene.dispatcher.agents[name].declared.inputs
            assert inputs is not None
            await inputs.check(b"1")
            assert before is None or before.pid is None
            before = inputs


def describe_all(host: ScriptedHost, *, names: Sequence[str], ready: bytes) -> None:
    for name in names:
        host.agents[name] = AgentBeat("ready", 8, 0, 0, 1)
        host.descriptions[name] = description(ready=ready)
