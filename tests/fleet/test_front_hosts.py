"""Which hosts a front knows, what it believes of them, and which of them gets a request."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.agents.status import AgentState
from gateway.fleet.front import hosts as module
from gateway.fleet.front.hosts import Hosts, merged_state
from gateway.fleet.messages import VERSION, AgentBeat, Beat
from gateway.fleet.subjects import Peer

A, B, C = Peer("a", "1"), Peer("b", "1"), Peer("c", "1")


def agent(
    *, state: str = "ready", capacity: int = 8, in_flight: int = 0, waiting: int = 0
) -> AgentBeat:
    return AgentBeat(state, capacity, in_flight, waiting, 1)


def beat(*, draining: bool = False, version: int = VERSION, **agents: AgentBeat) -> bytes:
    return msgspec.msgpack.encode(Beat(version, "1.0", draining, agents))


def chosen(hosts: Hosts, name: str = "echo", **options: Any) -> Peer | None:
    at = hosts.choose(name, 0.0, **options)
    return None if at is None else at.host.peer


def test_the_least_loaded_host_gets_a_request() -> None:
    hosts = Hosts()
    hosts.heard(A, beat(echo=agent(capacity=8, in_flight=4)))
    hosts.heard(B, beat(echo=agent(capacity=2, in_flight=1, waiting=1)))
    hosts.heard(C, beat(echo=agent(capacity=4, in_flight=1)))
    assert chosen(hosts) == C


@pytest.mark.parametrize("state", ["cold", "starting"])
def test_a_host_whose_workers_are_still_to_start_is_asked_when_the_others_are_full(
    state: str,
) -> None:
    hosts = Hosts()
    hosts.heard(A, beat(echo=agent(state=state)))
    hosts.heard(B, beat(echo=agent(in_flight=7)))
    assert chosen(hosts) == B
    hosts.heard(B, beat(echo=agent(state="busy", in_flight=8, waiting=1)))
    assert chosen(hosts) == A


def test_what_a_front_has_given_counts_before_the_host_tells_of_it() -> None:
    hosts = Hosts()
    hosts.heard(A, beat(echo=agent(capacity=2)))
    hosts.heard(B, beat(echo=agent(capacity=2, in_flight=1)))
    for at in hosts.of("echo"):
        at.mine = 2 if at.host.peer == A else 0
    assert chosen(hosts) == B


@pytest.mark.parametrize(
    ("told", "since", "expected"),
    [
        (agent(in_flight=1), -1, (0, 0)),
        (agent(), 3, (3, 0)),
        (agent(capacity=2), 3, (2, 1)),
        (agent(capacity=2, in_flight=2, waiting=3), -1, (2, 2)),
        (agent(in_flight=1), -5, (0, 0)),
        (agent(in_flight=2, waiting=1), 0, (2, 1)),
        (agent(capacity=1, in_flight=4), 1, (4, 1)),
    ],
)
def test_what_has_come_and_gone_since_a_beat_is_counted(
    told: AgentBeat, since: int, expected: tuple[int, int]
) -> None:
    hosts = Hosts()
    hosts.heard(A, beat(echo=told))
    [at] = hosts.of("echo")
    at.mine = 10
    at.hear(told)
    at.mine += since
    assert at.now == expected
    at.hear(told)
    assert at.now == (told.in_flight, told.waiting)


def test_hosts_at_rest_take_turns() -> None:
    hosts = Hosts()
    for peer in (A, B, C):
        hosts.heard(peer, beat(echo=agent()))
    found: Counter[Peer] = Counter()
    for _ in range(30):
        at = hosts.choose("echo", 0.0)
        assert at is not None
        at.served += 1
        found[at.host.peer] += 1
    assert set(found.values()) == {10}


def test_a_draining_host_gets_nothing_and_one_that_was_tried_not_again() -> None:
    hosts = Hosts()
    hosts.heard(A, beat(echo=agent(), draining=True))
    hosts.heard(B, beat(echo=agent(in_flight=7)))
    assert chosen(hosts) == B
    assert chosen(hosts, without=[B]) is None


def test_a_host_whose_breaker_is_open_is_asked_only_if_there_is_no_other() -> None:
    hosts = Hosts()
    hosts.heard(A, beat(echo=agent(state="open")))
    assert chosen(hosts) == A
    hosts.heard(B, beat(echo=agent(in_flight=8, waiting=50)))
    assert chosen(hosts) == B


def test_a_host_that_broke_the_protocol_is_left_alone_for_a_while() -> None:
    hosts = Hosts()
    host = hosts.heard(A, beat(echo=agent()))
    assert host is not None
    host.avoided_until = 5.0
    assert hosts.choose("echo", 4.0) is None
    assert hosts.choose("echo", 5.0) is not None


def test_an_agent_goes_with_its_last_host_and_comes_back_with_it() -> None:
    hosts = Hosts()
    hosts.heard(A, beat(echo=agent(), other=agent()))
    hosts.heard(B, beat(echo=agent()))
    assert set(hosts.agents) == {"echo", "other"}
    hosts.heard(A, beat(echo=agent()))
    assert set(hosts.agents) == {"echo"}
    hosts.lost(A)
    assert chosen(hosts) == B
    hosts.lost(B)
    assert set(hosts.agents) == set()
    assert chosen(hosts) is None
    hosts.heard(A, beat(echo=agent()))
    assert chosen(hosts) == A


@given(st.binary(max_size=200))
def test_no_bytes_do_harm(data: bytes) -> None:
    hosts = Hosts()
    hosts.heard(A, data)
    hosts.choose("echo", 0.0)


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.builds(
            AgentBeat,
            st.sampled_from([*AgentState, "", "x" * 50]),
            st.integers(-(2**63), 2**63 - 1),
            st.integers(-(2**63), 2**63 - 1),
            st.integers(-(2**63), 2**63 - 1),
            st.integers(-(2**63), 2**63 - 1),
        ),
        max_size=5,
    )
)
@example({"cold": AgentBeat(AgentState.COLD, 0, 2**63 - 1, 2**63 - 1, 0)})
def test_no_numbers_do_harm(agents: dict[str, AgentBeat]) -> None:
    hosts = Hosts()
    hosts.heard(A, msgspec.msgpack.encode(Beat(VERSION, "1.0", False, agents)))
    for name in agents:
        at = hosts.choose(name, 0.0)
        if at is not None:
            _, busy, _ = at.load
            assert 0 <= busy <= 2 * module.MOST_COUNT + 1  # of a worker that is to start first
            assert at.capacity > 0


def test_what_is_no_name_of_an_agent_is_left_out() -> None:
    hosts = Hosts()
    long = "a" * (module.MOST_NAME + 1)
    hosts.heard(A, beat(**{"echo": agent(), "../x": agent(), "": agent(), long: agent()}))
    assert set(hosts.agents) == {"echo"}


def test_a_host_is_believed_no_more_agents_than_there_may_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MOST_AGENTS", 3)
    hosts = Hosts()
    for number in range(5):
        hosts.heard(A, beat(**{f"agent{number}-{each}": agent() for each in range(10)}))
        assert len(hosts.agents) <= 3


def test_a_host_that_starts_over_and_over_takes_no_room_from_others() -> None:
    hosts = Hosts()
    for number in range(100):
        hosts.heard(Peer("bad", str(number)), beat(echo=agent()))
    assert len(hosts) == module.MOST_STARTS
    assert "has the name of 32 others" in hosts.ignored
    assert hosts.heard(A, beat(echo=agent())) is not None


@pytest.mark.parametrize("peer", [Peer("a b", "1"), Peer("a", ""), Peer("a" * 65, "1")])
def test_what_is_no_name_of_a_process_is_no_host(peer: Peer) -> None:
    assert Hosts().heard(peer, beat(echo=agent())) is None


def test_a_host_of_another_version_is_no_host() -> None:
    hosts = Hosts()
    assert hosts.heard(A, beat(version=VERSION + 1, echo=agent())) is None
    assert "version 2" in hosts.ignored


def test_agents_of_hosts_of_one_name_are_all_told_of() -> None:
    hosts = Hosts()
    for number in range(8):  # more than a machine's cores may be
        hosts.heard(Peer("vm", str(number)), beat(**{f"a{number}": agent(), "both": agent()}))
    told = {name: at.host.peer.nonce for name, at in hosts.latest}
    assert told == {f"a{number}": str(number) for number in range(8)} | {"both": "7"}
    assert len(hosts.latest) == len(told)


def test_a_host_serves_only_what_it_may() -> None:
    hosts = Hosts(lambda host, name: (host, name) == ("a", "echo"))
    hosts.heard(A, beat(echo=agent(), other=agent()))
    hosts.heard(B, beat(echo=agent(), other=agent()))
    assert chosen(hosts, without=[A]) is None
    assert set(hosts.agents) == {"echo"}


def test_a_conversation_stays_where_it_is_when_others_come_and_go() -> None:
    hosts = Hosts()
    for peer in (A, B):
        hosts.heard(peer, beat(echo=agent()))
    before = {str(each): chosen(hosts, session=str(each)) for each in range(200)}
    assert set(before.values()) == {A, B}
    hosts.heard(C, beat(echo=agent()))
    after = {str(each): chosen(hosts, session=str(each)) for each in range(200)}
    moved = {each for each in before if before[each] != after[each]}
    assert moved
    assert {after[each] for each in moved} == {C}


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (["busy", "ready"], AgentState.READY),
        (["open", "backoff"], AgentState.BACKOFF),
        (["cold", "starting"], AgentState.COLD),
        (["nonsense"], AgentState.OPEN),
        ([], AgentState.AWAY),
    ],
)
def test_the_state_of_an_agent_is_that_of_its_best_host(
    states: list[str], expected: AgentState
) -> None:
    hosts = Hosts()
    for number, state in enumerate(states):
        hosts.heard(Peer("a" * (number + 1), "1"), beat(echo=agent(state=state)))
    assert merged_state(hosts.of("echo")) is expected


def test_an_agent_at_draining_hosts_alone_is_away() -> None:
    hosts = Hosts()
    hosts.heard(A, beat(draining=True, echo=agent()))
    assert merged_state(hosts.of("echo")) is AgentState.AWAY
