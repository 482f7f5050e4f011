"""Limits on requests, in virtual time: what is counted, what is held, and what is said of it."""

from __future__ import annotations

import random
import re
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway.config import AgentSettings, KeySettings, LimitSettings
from gateway.config.keys import hash_key
from gateway.errors import RateLimited, RequestTooLarge
from gateway.exchange import Exchange
from gateway.front.limits import make_limits
from gateway.front.limits.permits import Limits, Permit
from gateway.front.limits.places import Owner
from gateway.front.limits.rates import Rate
from tests.unit.runs import ASYNC, Client, RunScene, keyed, scene

SECOND, MINUTE = 1, 60


def limits_of(
    agent: LimitSettings | None = None, key: LimitSettings | None = None, name: str = "a"
) -> Limits:
    """On the agent `name`, and on a key named `k`."""
    none = LimitSettings()
    return Limits({name: agent or none}, {"k": key or none})


def ask(limits: Limits, key: str = "", agent: str = "a") -> Permit:
    """One whole admission. Raises RateLimited."""
    permit = limits.enter(key, agent)
    try:
        permit.admit(agent, 0)
    except RateLimited as error:
        permit.leave(error)
        raise
    return permit


def is_refused(limits: Limits, key: str = "", agent: str = "a") -> bool:
    try:
        ask(limits, key, agent).leave()
    except RateLimited:
        return True
    return False


def in_progress(limits: Limits) -> list[int]:
    """How many requests each quota with `concurrent` counts as in progress."""
    return [
        places.taken
        for quota in (*limits.of_agents.values(), *limits.of_keys.values())
        if (places := quota.places) is not None
    ]


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


# Through the front


async def tell_a_word_and_hold(exchange: Exchange) -> None:
    exchange.add_words([b'"word"'], trio.current_time())
    await trio.sleep_forever()


async def answer(exchange: Exchange) -> None:
    exchange.add_words([b'"done"'], trio.current_time())
    exchange.end()


def setting_of(client: Client) -> str:
    return str(client.json["error"]["setting"])


def free(limits: Limits) -> bool:
    return not any(in_progress(limits))


async def test_a_stream_is_in_progress_until_its_end() -> None:
    limits = limits_of(LimitSettings(concurrent=1))
    streams: list[Exchange] = []

    async def story(exchange: Exchange) -> None:
        streams.append(exchange)
        exchange.add_words([b'"word"'], trio.current_time())

    async with scene(story, limits=limits) as it:
        stream = it.begin(body={"input": 1, "stream": True})
        await wait_all_tasks_blocked()
        assert stream.status == 200
        refused = await it.post()
        assert (refused.status, refused.error) == (429, "rate_limited")
        assert refused.headers[b"retry-after"] == b"1"
        streams[0].end()
        await stream.answered.wait()
        assert free(limits)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_gives_its_place_back(
    autojump_clock: MockClock, stream: bool
) -> None:
    limits = limits_of(LimitSettings(concurrent=1))
    async with scene(tell_a_word_and_hold, limits=limits) as it:
        client = it.begin(body={"input": 1, "stream": stream})
        await wait_all_tasks_blocked()
        assert in_progress(limits) == [1]
        client.leaves.set()
        await trio.sleep(1)
        assert free(limits)


async def test_a_client_that_never_sends_its_body_gives_its_place_back() -> None:
    limits = limits_of(LimitSettings(concurrent=1, requests_per_minute=5))
    async with scene(answer, limits=limits) as it:
        client = Client(b"")
        client._body = None
        scope = it.scope_of("/agent/a/invoke", {"content-length": "10"})
        it.nursery.start_soon(it.routes, scope, client.receive, client.send)
        await wait_all_tasks_blocked()
        assert in_progress(limits) == [1]
        client.leaves.set()
        await wait_all_tasks_blocked()
        assert free(limits)
        assert b'"agent-per-minute";r=3' in (await it.post()).headers[b"ratelimit"]


async def test_a_defect_of_ours_gives_the_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = limits_of(LimitSettings(concurrent=1))
    async with scene(answer, limits=limits) as it:
        monkeypatch.setattr("gateway.front.requests.Reply.send", lambda *_: 1 / 0)
        assert (await it.post()).status == 500
        assert free(limits)


async def test_a_run_is_in_progress_until_it_has_ended_whoever_waits_for_it() -> None:
    limits = limits_of(LimitSettings(concurrent=1))
    runs: list[Exchange] = []

    async def story(exchange: Exchange) -> None:
        runs.append(exchange)

    async with scene(story, limits=limits) as it:
        run = (await it.post(prefer="respond-async")).run
        assert (await it.post()).status == 429
        assert (await it.get(run)).status == 200  # to look at it takes no place
        runs.pop().end(b'"done"')
        await wait_all_tasks_blocked()
        assert free(limits)


async def test_who_comes_back_for_a_run_is_not_refused_because_of_it() -> None:
    limits = limits_of(LimitSettings(concurrent=1))
    runs: list[Exchange] = []

    async def story(exchange: Exchange) -> None:
        runs.append(exchange)

    async with scene(story, limits=limits) as it:
        first = it.begin(body={"input": 1}, headers=keyed("one"))
        await wait_all_tasks_blocked()
        first.leaves.set()
        again = it.begin(body={"input": 1}, headers=keyed("one"))
        other = await it.post(idempotency_key="two")
        assert other.status == 429
        runs.pop().end(b'"done"')
        await again.answered.wait()
        assert again.status == 200
        assert free(limits)


async def test_who_comes_back_for_a_run_that_was_forgotten_meanwhile_needs_a_place() -> None:
    limits = limits_of(LimitSettings(concurrent=1))
    async with scene(say_nothing, limits=limits) as it:
        assert (await it.post(prefer="respond-async")).status == 202
        it.runs.knows = lambda wish: True  # type: ignore[method-assign]  # the moment before
        assert (await it.post(idempotency_key="gone")).status == 429
        assert in_progress(limits) == [1]


async def say_nothing(exchange: Exchange) -> None:
    del exchange


async def test_good_responses_and_errors_of_others_say_what_is_left(
    autojump_clock: MockClock,
) -> None:
    limits = limits_of(LimitSettings(requests_per_minute=3))
    async with scene(answer, limits=limits) as it:
        good = await it.post()
        assert good.headers[b"ratelimit-policy"] == b'"agent-per-minute";q=3;w=60'
        assert good.headers[b"ratelimit"] == b'"agent-per-minute";r=2;t=60'
        bad = await it.ask(body={"messages": 1})
        assert bad.status == 400
        assert bad.headers[b"ratelimit"] == b'"agent-per-minute";r=1;t=60'
        assert (await it.post()).status == 200
        refused = await it.post()
        assert refused.status == 429
        assert [name for name, _ in refused.sent[0][1]["headers"]].count(b"ratelimit") == 1
        assert refused.headers[b"ratelimit"] == b'"agent-per-minute";r=0;t=60'
        assert refused.headers[b"retry-after"] == b"60"


MESSAGES = {"messages": [{"role": "user", "content": "hi"}]}
CHAT = {"model": "a", **MESSAGES}


async def test_openai_clients_are_refused_in_their_own_form(autojump_clock: MockClock) -> None:
    limits = limits_of(LimitSettings(requests_per_second=1))

    async with scene(answer, limits=limits) as it:
        assert (await it.ask("/v1/chat/completions", CHAT)).status == 200
        await trio.sleep(0.5)
        refused = await it.ask("/v1/chat/completions", CHAT)
        assert refused.status == 429
        error = refused.json["error"]
        assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
        assert error["setting"] == "agents.a.limits.requests_per_second"
        assert refused.headers[b"retry-after-ms"] == b"500"
        assert refused.headers[b"retry-after"] == b"1"
        assert refused.headers[b"ratelimit"] == b'"agent-per-second";r=0;t=1'


@pytest.mark.parametrize("path", ["/agent/a/chat", "/v1/chat/completions"])
async def test_a_body_that_is_too_large_for_the_agent_names_the_setting(path: str) -> None:
    limits = limits_of(LimitSettings(max_body=200, requests_per_minute=1, concurrent=1))
    async with scene(answer, limits=limits) as it:
        for _ in range(2):  # and is counted by no other limit
            refused = await it.ask(path, {**CHAT, "messages": MESSAGES["messages"] * 10})
            assert (refused.status, setting_of(refused)) == (413, "agents.a.limits.max_body")
        assert free(limits)
        assert (await it.ask(path, CHAT if "v1" in path else MESSAGES)).status == 200


async def test_a_body_whose_length_says_that_it_is_too_large_is_not_read() -> None:
    limits = limits_of(LimitSettings(max_body=10))
    async with scene(answer, limits=limits) as it:
        client = it.begin(body={"input": "x" * 50}, headers={"content-length": "63"})
        await client.answered.wait()
        assert (client.status, setting_of(client)) == (413, "agents.a.limits.max_body")
        assert client._body is not None
        assert client.headers[b"connection"] == b"close"


@pytest.mark.parametrize("seed", range(8))
async def test_no_place_is_ever_lost(autojump_clock: MockClock, seed: int) -> None:
    """Clients of all kinds, at random times: once all have ended, every place is free."""
    rng = random.Random(seed)
    limits = limits_of(LimitSettings(concurrent=3, requests_per_second=20, max_body=300))

    async def story(exchange: Exchange) -> None:
        await trio.sleep(rng.random())
        exchange.add_words([b'"word"'], trio.current_time())
        await trio.sleep(rng.random())
        exchange.end()

    async def one(it: RunScene) -> None:
        await trio.sleep(rng.random() * 5)
        body: dict[str, Any] = {"input": 1, "stream": rng.random() < 0.5, "model": "a"}
        body |= rng.choice([{}, MESSAGES, {"input": "x" * 300}])
        path = rng.choice(["/agent/a/invoke", "/agent/a/chat", "/v1/chat/completions"])
        headers = rng.choice([{}, ASYNC, keyed("one"), keyed("two")])
        client = it.begin(path, body, headers=headers)
        with trio.move_on_after(rng.choice([0, 0.5, 1, 10])):
            await client.answered.wait()
        client.leaves.set()
        if rng.random() < 0.3 and client.sent and b"x-run-id" in client.headers:
            await it.cancel(client.run)

    async with scene(story, limits=limits) as it:
        async with trio.open_nursery() as nursery:
            for _ in range(60):
                nursery.start_soon(one, it)
        await trio.sleep(10)
        assert free(limits)
        assert (await it.post()).status == 200


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
