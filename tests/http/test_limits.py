"""Limits on requests and connections, through HTTP and by the clients that people have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import trio

from gateway.config.keys import hash_key, new_key
from gateway.front import listen
from gateway.front.addresses import AddressCounts
from tests.harness import GatewayInThread, gateway_in_thread, reload, running_gateway
from tests.http.carrier import bare_server
from tests.http.conftest import SCRIPTED
from tests.http.raw import becomes, connected

ALICE, BOB, CAROL = (new_key() for _ in range(3))

TOML = f"""
[server]
sandbox = "off"
max_body = "1M"

[defaults]
command = {json.dumps(SCRIPTED)}
workers = {{ min = 0, max = 1 }}

[agents.free]
[agents.paced.limits]
requests_per_second = 1
[agents.two-a-minute.limits]
requests_per_minute = 2
[agents.single.limits]
concurrent = 1
[agents.small.limits]
max_body = "1K"
[agents.tiny.limits]
max_body = 10

[keys.alice]
hash = "{hash_key(ALICE.encode())}"
[keys.bob]
hash = "{hash_key(BOB.encode())}"
limits = {{ requests_per_minute = 3, concurrent = 1, max_body = "2K" }}
[keys.carol]
hash = "{hash_key(CAROL.encode())}"
agents = ["free"]
limits = {{ requests_per_minute = 1 }}
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayInThread]:
    with gateway_in_thread(TOML, tmp_path_factory.mktemp("limits")) as gateway:
        yield gateway


def client_of(gateway: GatewayInThread, key: str = ALICE) -> httpx.Client:
    return httpx.Client(base_url=gateway.url, headers={"x-api-key": key}, timeout=30)


def invoke(client: httpx.Client, agent: str, script: Any = 1, **headers: str) -> httpx.Response:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(f"/agent/{agent}/invoke", json={"input": script}, headers=fields)


def setting_of(response: httpx.Response) -> str:
    return str(response.json()["error"]["setting"])


def test_an_agents_limit_is_one_for_all_its_callers(gateway: GatewayInThread) -> None:
    with client_of(gateway) as alice, client_of(gateway, CAROL) as carol:
        good = invoke(alice, "two-a-minute")
        assert good.headers["ratelimit-policy"] == '"agent-per-minute";q=2;w=60'
        # The head comes once the worker has started, which may take more than a second.
        assert re.fullmatch(r'"agent-per-minute";r=1;t=[1-6]\d?', good.headers["ratelimit"])
        # Whoever may not call it takes nothing of it, nor of her own.
        assert invoke(carol, "two-a-minute").status_code == 403
        body = {"model": "two-a-minute", "messages": [{"role": "user", "content": "hi"}]}
        assert alice.post("/v1/chat/completions", json=body).status_code == 200
        refused = invoke(alice, "two-a-minute")
        assert refused.status_code == 429
        assert refused.json()["error"]["type"] == "rate_limited"
        assert setting_of(refused) == "agents.two-a-minute.limits.requests_per_minute"
        assert 0 < int(refused.headers["retry-after"]) <= 60
        assert invoke(carol, "free").status_code == 200


def test_a_keys_limit_is_one_for_all_agents_and_dialects(gateway: GatewayInThread) -> None:
    with client_of(gateway, BOB) as bob, client_of(gateway) as alice:
        large = invoke(bob, "free", "x" * 3000)
        assert (large.status_code, setting_of(large)) == (413, "keys.bob.limits.max_body")
        small = invoke(bob, "small", "x" * 1500)
        assert (small.status_code, setting_of(small)) == (413, "agents.small.limits.max_body")
        held = {"input": [["say", "x"], ["hold"]], "stream": True}
        with bob.stream("POST", "/agent/free/invoke", json=held) as stream:
            left = stream.headers["ratelimit"]
            assert re.fullmatch(r'"key-per-minute";r=2;t=[1-6]\d?, "key-concurrent";r=0', left)
            refused = invoke(bob, "single")
            assert (refused.status_code, setting_of(refused)) == (429, "keys.bob.limits.concurrent")
        body = {"model": "free", "messages": [{"role": "user", "content": "hi"}]}
        # What was refused did not count: there are two more, once the stream's place is free.
        answers = [bob.post("/v1/chat/completions", json=body)]
        while answers[-1].status_code == 429 and "retry-after-ms" in answers[-1].headers:
            assert setting_of(answers[-1]) == "keys.bob.limits.concurrent"
            answers.append(bob.post("/v1/chat/completions", json=body))
        assert answers[-1].status_code == 200
        assert invoke(bob, "free").status_code == 200
        last = invoke(bob, "free")
        assert (last.status_code, setting_of(last)) == (429, "keys.bob.limits.requests_per_minute")
        assert invoke(alice, "free").status_code == 200


def test_a_body_is_refused_before_it_is_sent_if_its_length_says_so(
    gateway: GatewayInThread,
) -> None:
    async def main() -> None:
        async with connected(gateway.port) as connection:
            await connection.send(
                b"POST /agent/tiny/invoke HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/json\r\nContent-Length: 11\r\n"
                b"X-API-Key: %b\r\n\r\n" % ALICE.encode()
            )
            answer = await connection.answer()
            assert (answer.status, answer.headers["connection"]) == (413, "close")
            assert answer.error["setting"] == "agents.tiny.limits.max_body"
        async with connected(gateway.port) as connection:
            await connection.send(
                b"POST /agent/tiny/invoke HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
                b"X-API-Key: %b\r\n\r\nb\r\n12345678901\r\n" % ALICE.encode()
            )
            assert (await connection.answer()).status == 413

    trio.run(main)


def test_a_client_that_leaves_gives_its_place_back(gateway: GatewayInThread) -> None:
    key = {"x-api-key": ALICE}
    hold = [["say", "x"], ["hold"]]

    async def main() -> None:
        async with httpx.AsyncClient(base_url=gateway.url, headers=key, timeout=30) as client:

            async def is_held() -> bool:
                return bool((await client.get("/agent/single")).json()["in_flight"])

            async def has_place() -> bool:
                answer = await client.post("/agent/single/invoke", json={"input": 1})
                return answer.status_code == 200

            for body in ({"input": hold}, {"input": hold, "stream": True}):
                async with connected(gateway.port) as connection:
                    await connection.request(
                        "/agent/single/invoke", body, headers=(f"X-API-Key: {ALICE}",)
                    )
                    await becomes(is_held)
                    assert not await has_place()
                await becomes(has_place)

    trio.run(main)


def test_a_run_holds_its_place_until_it_is_cancelled(gateway: GatewayInThread) -> None:
    with client_of(gateway) as alice:
        begun = invoke(alice, "single", [["hold"]], prefer="respond-async", idempotency_key="one")
        assert begun.status_code == 202
        refused = invoke(alice, "single")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert refused.headers["ratelimit"] == '"agent-concurrent";r=0'
        again = invoke(alice, "single", [["hold"]], prefer="respond-async", idempotency_key="one")
        assert again.status_code == 202
        run = begun.headers["x-run-id"]
        assert again.headers["x-run-id"] == run
        assert alice.post(f"/runs/{run}/cancel").status_code == 200
        while (answer := invoke(alice, "single")).status_code == 429:
            pass
        assert answer.status_code == 200


def counted(statuses: list[int]) -> httpx.Client:
    """A client of httpx that notes each response's status."""
    return httpx.Client(event_hooks={"response": [lambda each: statuses.append(each.status_code)]})


def test_openais_client_waits_as_long_as_it_is_told_and_succeeds(gateway: GatewayInThread) -> None:
    statuses: list[int] = []
    with openai.OpenAI(
        base_url=f"{gateway.url}/v1", api_key=ALICE, http_client=counted(statuses), max_retries=3
    ) as client:
        while 429 not in statuses:  # at the second call, unless this machine takes a second
            answer = client.chat.completions.create(
                model="paced", messages=[{"role": "user", "content": "hi"}]
            )
            assert answer.choices[0].message.content
        assert statuses[-2:] == [429, 200]  # the first wait was long enough
        impatient = client.with_options(max_retries=0)
        with pytest.raises(openai.RateLimitError) as caught:
            _ask_again_and_again(impatient)
    assert caught.value.code == "rate_limit_exceeded"
    assert caught.value.type == "rate_limit_error"
    assert float(caught.value.response.headers["retry-after-ms"]) <= 1000


def _ask_again_and_again(client: openai.OpenAI) -> None:
    for _ in range(100):
        client.responses.create(model="paced", input="hi")


async def test_a_reload_changes_limits_and_origins_and_keeps_what_was_counted(
    tmp_path: Path,
) -> None:
    page = {"origin": "https://app.example"}

    def toml(server: str, limits: str) -> str:
        return f"""
        [server]
        sandbox = "off"
        {server}
        [agents.a]
        command = {json.dumps(SCRIPTED)}
        limits = {{ {limits} }}
        """

    async def change(server: str, limits: str) -> None:
        await reload(gateway, tmp_path, toml(server, limits), "reload: done")

    async def ask() -> httpx.Response:
        return await gateway.client.post("/agent/a/invoke", json={"input": 1}, headers=page)

    async with running_gateway(toml=toml("", ""), folder=tmp_path) as gateway:
        unlimited = await ask()
        assert not {"ratelimit", "vary"} & unlimited.headers.keys()
        workers = (await gateway.state("a"))["workers"]
        await change('cors = ["https://app.example"]', "requests_per_minute = 2")
        limited = await ask()
        assert limited.headers["access-control-allow-origin"] == page["origin"]
        assert limited.headers["ratelimit"].startswith('"agent-per-minute";r=1;')
        await change("", "requests_per_minute = 2, concurrent = 1")
        assert (await ask()).status_code == 200
        refused = await ask()
        assert refused.status_code == 429
        assert setting_of(refused) == "agents.a.limits.requests_per_minute"
        assert "access-control-allow-origin" not in refused.headers
        await change("", "")
        assert (await ask()).status_code == 200
        assert [each["pid"] for each in (await gateway.state("a"))["workers"]] == [
            each["pid"] for each in workers
        ]


async def test_one_more_connection_than_an_address_may_have_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Every address of this machine that a test could connect from is one that is not counted.
    monkeypatch.setattr(listen, "client_of", lambda address: address[0].encode())
    counts = AddressCounts(2)
    async with bare_server(addresses=counts) as port, AsyncExitStack() as opened:
        first, second = [await opened.enter_async_context(connected(port)) for _ in range(2)]
        for connection in (first, second):
            await connection.request("/live", method="GET")
            assert (await connection.answer()).status == 200
        async with connected(port) as refused:
            await refused.request("/live", method="GET")
            answer = await refused.answer()
            assert (answer.status, answer.error["type"]) == (429, "rate_limited")
            assert answer.error["setting"] == "server.connections_per_address"
            assert (answer.headers["retry-after"], answer.headers["connection"]) == ("1", "close")
            assert await refused.has_ended()
        await first.stream.aclose()

        async def has_room() -> bool:
            return repr(counts) == "<AddressCounts 1 addresses, at most 2 each>" and (
                counts._taken[b"127.0.0.1"] == 1
            )

        await becomes(has_room)
        async with connected(port) as next_one:
            await next_one.request("/live", method="GET")
            assert (await next_one.answer()).status == 200
        await second.request("/live", method="GET")
        assert (await second.answer()).status == 200


async def test_a_proxy_on_this_machine_may_have_any_number_of_connections() -> None:
    async with bare_server(addresses=AddressCounts(1)) as port, AsyncExitStack() as opened:
        for connection in [await opened.enter_async_context(connected(port)) for _ in range(5)]:
            await connection.request("/live", method="GET")
            assert (await connection.answer()).status == 200
