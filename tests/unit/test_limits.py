"""Limits on requests, in virtual time: what is counted, what is held, and what is said of it."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from trio.testing import MockClock

from gateway.config import AgentSettings, KeySettings, LimitSettings
from gateway.config.keys import hash_key
from gateway.errors import RateLimited, RequestTooLarge
from gateway.front.limits import make_limits
from gateway.front.limits.places import Owner
from gateway.front.limits.rates import Rate
from tests.unit.limits import ask, in_progress, is_refused, limits_of

SECOND, MINUTE = 1, 60


# Rates
async def test_one_more_request_than_allowed_is_refused_until_the_time_that_is_said(
    autojump_clock: MockClock,
) -> None:
    limits = limits_of(LimitSettings(requests_per_second=3))
    for _ in range(3):
        ask(limits).leave()
        await trio.sleep(0.2)
    with pytest.raises(RateLimited) as caught:
        ask(limits)
    wait = caught.value.retry_after
    assert wait == pytest.approx(0.4)
    await trio.sleep(wait - 0.001)
    assert is_refused(limits)
    await trio.sleep(0.001)
    assert not is_refused(limits)


async def test_the_stricter_of_two_rates_holds_and_the_longer_wait_is_told(
    autojump_clock: MockClock,
) -> None:
    limits = limits_of(LimitSettings(requests_per_second=2, requests_per_minute=3))
    assert [is_refused(limits) for _ in range(3)] == [False, False, True]
    await trio.sleep(1)
    assert [is_refused(limits) for _ in range(2)] == [False, True]
    with pytest.raises(RateLimited) as caught:
        ask(limits)
    assert caught.value.retry_after == pytest.approx(59)
    assert caught.value.details["setting"] == "agents.a.limits.requests_per_minute"


async def test_what_one_limit_refuses_is_not_counted_by_another(autojump_clock: MockClock) -> None:
    limits = limits_of(
        LimitSettings(requests_per_second=1), LimitSettings(requests_per_minute=2, concurrent=5)
    )
    assert not is_refused(limits, "k")
    for _ in range(10):
        assert is_refused(limits, "k")  # by the agent
    assert in_progress(limits) == [0]
    await trio.sleep(1)
    assert not is_refused(limits, "k")  # so the key has one left
    await trio.sleep(1)
    assert is_refused(limits, "k")  # by the key
    assert not is_refused(limits)  # so the agent has one left, for others


Arrivals = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.5, 1.0, 7.0, 60.0]), st.sampled_from(["", "k"])),
    max_size=60,
)


@given(
    agent=st.tuples(st.integers(0, 4), st.integers(0, 8)),
    key=st.tuples(st.integers(0, 4), st.integers(0, 8)),
    arrivals=Arrivals,
)
@settings(max_examples=150, deadline=None)
def test_a_request_is_let_in_exactly_if_every_window_has_room(
    agent: tuple[int, int], key: tuple[int, int], arrivals: list[tuple[float, str]]
) -> None:
    async def main() -> None:
        limits = limits_of(
            LimitSettings(requests_per_second=agent[0], requests_per_minute=agent[1]),
            LimitSettings(requests_per_second=key[0], requests_per_minute=key[1]),
        )
        let_in: list[tuple[float, str]] = []
        now = 0.0

        def room(most: int, seconds: int, name: str) -> bool:
            counted = [at for at, who in let_in if at > now - seconds and name in {"", who}]
            return not most or len(counted) < most

        for pause, who in arrivals:
            clock.jump(pause)
            now = trio.current_time()
            expected = room(agent[0], SECOND, "") and room(agent[1], MINUTE, "")
            if who:
                expected &= room(key[0], SECOND, "k") and room(key[1], MINUTE, "k")
            assert is_refused(limits, who) is not expected
            if expected:
                let_in.append((now, who))

    clock = MockClock()
    trio.run(main, clock=clock)


@given(
    most=st.integers(1, 4),
    pauses=st.lists(st.sampled_from([0.0, 0.13, 0.52, 0.91, 1.03, 7.0]), max_size=60),
)
@settings(max_examples=150, deadline=None)
def test_a_rate_decides_as_the_moving_window_of_the_package_limits(
    most: int, pauses: list[float]
) -> None:
    """At no moment at which a window ends: there the package refuses, and here there is room, since
    a client that waits exactly as long as it was told must not be refused."""

    async def main() -> None:
        rate = Rate(Owner("agent", "a"), "second", most)
        theirs = MovingWindowRateLimiter(MemoryStorage())
        item = RateLimitItemPerSecond(most)
        for pause in pauses:
            clock.jump(pause)
            has_room = rate.has_room()
            if has_room:
                rate.times.append(trio.current_time())
            assert theirs.hit(item) is has_room
            assert rate.left(trio.current_time())[0] == theirs.get_window_stats(item).remaining

    clock = MockClock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("limits.storage.memory.time", SimpleNamespace(time=clock.current_time))
        trio.run(main, clock=clock)


async def test_what_a_request_is_told_is_a_list_of_structured_fields(
    autojump_clock: MockClock,
) -> None:
    limits = limits_of(
        LimitSettings(requests_per_second=5, concurrent=2), LimitSettings(requests_per_minute=60)
    )
    permit = ask(limits, "k")
    await trio.sleep(0.3)
    assert permit.fields() == [
        (
            b"ratelimit-policy",
            (
                b'"key-per-minute";q=60;w=60, "agent-per-second";q=5;w=1, '
                b'"agent-concurrent";q=2;qu="concurrent-requests"'
            ),
        ),
        (
            b"ratelimit",
            b'"key-per-minute";r=59;t=60, "agent-per-second";r=4;t=1, "agent-concurrent";r=1',
        ),
    ]


async def test_a_refusal_lists_only_the_limits_that_were_met(autojump_clock: MockClock) -> None:
    limits = limits_of(LimitSettings(requests_per_second=1, requests_per_minute=50, concurrent=9))
    ask(limits).leave()
    with pytest.raises(RateLimited) as caught:
        ask(limits)
    assert caught.value.policies == '"agent-per-second";q=1;w=1'
    assert caught.value.left == '"agent-per-second";r=0;t=1'


FIELD = re.compile(r'"[a-z-]+"(;[a-z]+=(\d+|"[a-z-]+"))+(, "[a-z-]+"(;[a-z]+=(\d+|"[a-z-]+"))+)*')


@pytest.mark.parametrize("which", ["policies", "left"])
async def test_fields_are_lists_of_strings_with_parameters(which: str) -> None:
    """RFC 9651: keys and strings as they are written here."""
    limits = limits_of(LimitSettings(requests_per_second=1, requests_per_minute=1, concurrent=1))
    held = ask(limits)
    with pytest.raises(RateLimited) as caught:
        ask(limits)
    assert FIELD.fullmatch(getattr(caught.value, which))
    assert all(FIELD.fullmatch(value.decode()) for _, value in held.fields())


# Concurrent requests
async def test_a_request_beyond_those_in_progress_is_refused_at_once() -> None:
    limits = limits_of(LimitSettings(concurrent=2), LimitSettings(concurrent=1))
    first = ask(limits, "k")
    with pytest.raises(RateLimited, match="the key 'k' allows 1 request at a time") as caught:
        ask(limits, "k")
    assert caught.value.details["setting"] == "keys.k.limits.concurrent"
    second = ask(limits)
    assert is_refused(limits)
    for permit in (first, second):
        permit.leave()
        permit.leave()  # once is enough
    assert not is_refused(limits, "k")
    assert in_progress(limits) == [0, 0]


async def test_an_agent_that_only_the_body_names_is_looked_at_before_anything_is_counted() -> None:
    limits = limits_of(LimitSettings(concurrent=1, max_body=10), LimitSettings(concurrent=3))
    held = ask(limits)
    permit = limits.enter("k", None)
    with pytest.raises(RateLimited, match="agent 'a'"):
        permit.admit("a", 1)
    permit.leave()
    held.leave()
    permit = limits.enter("k", None)
    with pytest.raises(RequestTooLarge, match="larger than 10 bytes") as caught:
        permit.admit("a", 11)
    assert caught.value.details["setting"] == "agents.a.limits.max_body"
    permit.leave(caught.value)
    assert in_progress(limits) == [0, 0]


# Changes
async def test_a_change_keeps_the_counts_of_what_stays_as_it_is(autojump_clock: MockClock) -> None:
    limits = limits_of(LimitSettings(requests_per_minute=2, concurrent=3), name="a")
    held = [ask(limits), ask(limits)]
    limits.change(
        {"a": LimitSettings(requests_per_minute=2, requests_per_second=1, concurrent=1)},
        {"new": LimitSettings(concurrent=1)},
    )
    with pytest.raises(RateLimited) as caught:
        ask(limits)
    assert caught.value.details["setting"] == "agents.a.limits.requests_per_minute"
    await trio.sleep(60)
    with pytest.raises(RateLimited) as caught:
        ask(limits)  # two are still in progress, and now one may be
    assert caught.value.details["setting"] == "agents.a.limits.concurrent"
    assert '"agent-concurrent";r=0' in caught.value.left
    for permit in held:
        permit.leave()
    assert not is_refused(limits)
    assert in_progress(limits) == [0, 0]


async def test_nothing_is_kept_of_limits_that_were_taken_away(autojump_clock: MockClock) -> None:
    limits = limits_of(LimitSettings(requests_per_minute=1, concurrent=1))
    held = ask(limits)
    limits.change({}, {})
    assert not is_refused(limits)
    limits.change({"a": LimitSettings(requests_per_minute=1, concurrent=1)}, {})
    held.leave()
    assert not is_refused(limits)
    limits.change({}, {})
    assert (limits.of_agents, limits.of_keys) == ({}, {})


def test_where_nothing_is_limited_there_are_no_limits() -> None:
    agents = {"a": AgentSettings(command="x")}
    limited = {"a": AgentSettings(command="x", limits=LimitSettings(concurrent=1))}
    key = KeySettings(hash=hash_key(b"k" * 40), limits=LimitSettings(max_body=5))
    assert make_limits(agents, {}) is None
    assert make_limits(agents, {"k": key}) is not None
    limits = make_limits(limited, {})
    assert limits is not None
    assert make_limits(limited, {}, limits) is limits
    assert make_limits(agents, {}, limits) is None


async def test_limits_that_change_while_a_body_is_read_count_for_it() -> None:
    limits = limits_of(LimitSettings(requests_per_second=5, concurrent=2))
    permit = limits.enter("", "a")
    limits.change({"a": LimitSettings(requests_per_second=3, concurrent=1)}, {})
    permit.admit("a", 0)
    told = dict(permit.fields())
    assert told[b"ratelimit"] == b'"agent-per-second";r=2;t=1, "agent-concurrent";r=0'
    assert is_refused(limits)
    permit.leave()
    assert in_progress(limits) == [0]
    assert not is_refused(limits)


async def test_a_place_is_given_back_whose_limit_was_removed_meanwhile() -> None:
    limits = limits_of(LimitSettings(concurrent=1))
    permit = ask(limits)
    limits.change({"a": LimitSettings()}, {})
    assert not is_refused(limits)
    limits.change({"a": LimitSettings(concurrent=1)}, {})
    permit.leave()
    assert in_progress(limits) == [0]
    assert not is_refused(limits)
