"""What a front tells of its hosts: in the list of agents, and to the metrics."""

from __future__ import annotations

import msgspec
import pytest
from trio.testing import MockClock

from gateway.fleet.front import shown
from gateway.fleet.front.hosts import MOST_VERSION, Host, Hosts
from gateway.fleet.front.shown import OTHER_VERSIONS, Versions
from gateway.fleet.messages import VERSION, AgentBeat, Beat
from gateway.fleet.subjects import Peer
from gateway.front import status as module
from gateway.front.status import list_agents
from tests.fleet.front_scene import a_scene


def a_host(name: str, version: str) -> Host:
    """A host that has said that it has this version."""
    hosts = Hosts()
    beat = Beat(VERSION, version, False, {"echo": AgentBeat("ready", 8, 0, 0, 1)})
    host = hosts.heard(Peer.new(name), msgspec.msgpack.encode(beat))
    assert host is not None
    return host


def told(versions: Versions, *hosts: Host) -> list[tuple[str, str]]:
    return [(each.host, each.version) for each in versions.read(hosts)]


async def test_the_list_of_agents_has_the_hosts_of_each(autojump_clock: MockClock) -> None:
    async with a_scene("h1", "h2") as scene:
        first, second = scene.hosts
        first.draining = True
        second.agents["other"] = AgentBeat("busy", 4, 4, 2, 1)
        await scene.settle(3)
        await scene.submit()
        agents = scene.dispatcher.agents
        listed = {each.name: each for each in list_agents(list(agents.values()), scene.front)}
        assert set(listed) == {"echo", "other"}
        hosts = listed["echo"].hosts
        assert hosts is not None
        assert [(each.name, each.draining, each.given) for each in hosts] == [
            ("h1", True, 0),
            ("h2", False, 1),
        ]
        assert {each.id for each in hosts} == {str(first.peer), str(second.peer)}
        [host] = listed["other"].hosts or ()
        assert (host.state, host.capacity, host.in_flight, host.waiting) == ("busy", 4, 4, 2)
        assert host.version == "1.2.3"
        assert [each.name for each in list_agents([agents["other"]], scene.front)] == ["other"]
        scene.kill(first)
        scene.kill(second)
        await scene.settle(10)
        [entry] = list_agents([agents["echo"]], scene.front)
        assert (entry.state, entry.hosts) == ("away", [])


async def test_a_list_tells_so_many_hosts_and_how_many_it_leaves_out(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_HOSTS_LISTED", 4)
    async with a_scene("h3", "h1", "h2") as scene:
        for host in scene.hosts:
            host.agents["other"] = AgentBeat("ready", 8, 0, 0, 1)
        await scene.settle(3)
        agents = scene.dispatcher.agents
        for entry in list_agents(list(agents.values()), scene.front):
            assert [each.name for each in entry.hosts or ()] == ["h1", "h2"]
            assert entry.more_hosts == 1
        [alone] = list_agents([agents["echo"]], scene.front)
        assert [each.name for each in alone.hosts or ()] == ["h1", "h2", "h3"]
        assert b"more_hosts" not in msgspec.json.encode(alone)


async def test_a_gateway_alone_lists_no_hosts(autojump_clock: MockClock) -> None:
    async with a_scene("h1") as scene:
        [entry] = list_agents(list(scene.dispatcher.agents.values()), None)
        assert b"hosts" not in msgspec.json.encode(entry)


def test_each_name_of_a_host_is_told_with_the_versions_that_it_has() -> None:
    hosts = [a_host("h2", "1"), a_host("h1", "2"), a_host("h1", "2"), a_host("h1", "1")]
    assert told(Versions(), *hosts) == [("h1", "1"), ("h1", "2"), ("h2", "1")]


def test_a_host_that_is_always_of_another_version_makes_few_labels_and_takes_none_of_others() -> (
    None
):
    versions = Versions()
    seen = set()
    for number in range(1000):
        seen |= set(told(versions, a_host("bad", f"{number}" + "x" * 1000)))
    assert len(seen) == shown.MOST_OF_ONE + 1
    assert ("bad", OTHER_VERSIONS) in seen
    assert max(len(version) for _, version in seen) == MOST_VERSION
    assert told(versions, a_host("good", "1.2.3"), a_host("bad", "1.2.3")) == [
        ("bad", "1.2.3"),
        ("good", "1.2.3"),
    ]


def test_the_versions_of_any_number_of_hosts_are_so_many_labels() -> None:
    versions = Versions()
    seen = {told(versions, a_host(f"h{number}", f"{number}"))[0][1] for number in range(1000)}
    assert len(seen) == shown.MOST_VERSIONS + 1
