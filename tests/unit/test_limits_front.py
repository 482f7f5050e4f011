"""Limits on requests that come through a front: a place is held until the end, whatever it is."""

from __future__ import annotations

import random
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway.config import LimitSettings
from gateway.exchange import Exchange
from gateway.front.limits.permits import Limits
from tests.unit.limits import in_progress, limits_of
from tests.unit.runs import ASYNC, Client, RunScene, keyed, scene


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
