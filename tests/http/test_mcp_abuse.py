"""What hostile callers of `/mcp` get, and what they can make the gateway hold."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from gateway.config.keys import hash_key, new_key
from gateway.front.mcp.routes.endpoint import MOST_IN_ALL
from gateway.front.mcp.routes.sessions import MOST_SESSIONS, MOST_SUBSCRIPTIONS
from tests.harness import GatewayInThread, RunningGateway, gateway_in_thread, running_gateway
from tests.http.raw import becomes
from tests.http.test_mcp import ACCEPT, HANDSHAKE, VERSATILE, rpc

TOML = f"""
[server]
dialects = ["mcp", "native"]

[defaults]
workers = {{ min = 1, max = 1 }}

[agents.versatile]
command = {json.dumps(VERSATILE)}
"""

MOST_GROWTH = 48 * 1024 * 1024
"""Bytes that all of the abuse below may make the gateway grow by: one body of 7 MiB is held as it
came, as what the agent is sent and as what it answers."""

MOST_AFTER_BODIES = 24 * 1024 * 1024
"""Bytes that remain of refused bodies of 6 MiB each: the last ones, on their way out (19 MB at most
were measured, and 77 MB where each waited for the garbage collector)."""

EXACT = {"MALLOC_MMAP_THRESHOLD_": str(1024 * 1024)}
"""Has glibc give back what is freed of large bodies at once, so that what is resident is what is
held. By default it learns to keep up to 64 MiB of it, to use again."""


USUAL = httpx.Limits()


@asynccontextmanager
async def serving(folder: Path, toml: str = TOML) -> AsyncIterator[RunningGateway]:
    async with running_gateway(toml=toml, folder=folder, env=EXACT) as gateway:
        yield gateway


def client_of(
    gateway: RunningGateway | GatewayInThread, limits: httpx.Limits = USUAL
) -> httpx.AsyncClient:
    headers = {"accept": ACCEPT, "content-type": "application/json"}
    return httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=30, limits=limits)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayInThread]:
    with gateway_in_thread(TOML, tmp_path_factory.mktemp("mcp")) as gateway:
        yield gateway


def resident(gateway: RunningGateway) -> int:
    pages = int(Path(f"/proc/{gateway.process.pid}/statm").read_text().split()[1])
    return pages * 4096


async def open_session(client: httpx.AsyncClient) -> str:
    opened = await client.post("/mcp", json=HANDSHAKE)
    assert opened.status_code == 200
    return str(opened.headers["mcp-session-id"])


def many(item: str, size: int) -> str:
    return f"[{','.join([item] * (size // (len(item) + 1)))}]"


def call(arguments: str, more: str = "") -> str:
    return (
        '{"jsonrpc":"2.0","id":1,"method":"tools/call",'
        f'"params":{{"name":"versatile_invoke","arguments":{arguments}{more}}}}}'
    )


LARGE = 6 * 1024 * 1024

BODIES: dict[str, tuple[str, int]] = {
    "empty": ("", 400),
    "no object": ("[]", 400),
    "a batch": (f"[{json.dumps(HANDSHAKE)}]", 400),
    "a large batch": (many("[]", LARGE), 413),
    "cut": ('{"jsonrpc":"2.0"', 400),
    "a large one, cut": ('{"jsonrpc":"2.0","x":' + many("[]", LARGE), 400),
    "deep": ('{"jsonrpc":"2.0","id":1,"method":"ping","params":' + "[" * 30_000, 400),
    "very deep": (call("[" * 1_000_000), 400),
    "deep arguments": (call('{"x":' + "[" * 10_000 + "]" * 10_000 + "}"), 400),
    "large _meta": (call("{}", f',"_meta":{{"x":{many("[]", LARGE)}}}'), 413),
    "a large state": (call("{}", f',"requestState":"{"x" * LARGE}"'), 413),
    "a large name": (call("{}").replace("versatile", "x" * LARGE), 413),
    "a large id": (json.dumps({**rpc("ping"), "id": "x" * LARGE}), 413),
    "a long number": (f'{{"jsonrpc":"2.0","id":{"9" * 5000},"method":"ping"}}', 400),
    "half a character": ('{"jsonrpc":"2.0","id":1,"method":"\\ud800"}', 400),
    "arguments that are no object": (call("[]"), 200),
    "a large opening": (
        json.dumps({**HANDSHAKE, "params": {"x": [{}] * 9000}}),
        413,
    ),
    "a large opening that is no JSON": (
        '{"jsonrpc":"2.0","id":1,"method":"initialize","x":NaN,"params":' + many("{}", 9000) + "}",
        400,
    ),
}


async def test_no_body_and_no_number_of_sessions_makes_the_gateway_grow(tmp_path: Path) -> None:
    async with serving(tmp_path) as gateway, client_of(gateway) as client:
        first = await open_session(client)
        session = {"mcp-session-id": first}
        before = resident(gateway)
        for name, (body, status) in BODIES.items():
            response = await client.post("/mcp", content=body, headers=session)
            assert response.status_code == status, (name, response.text[:200])
            assert resident(gateway) - before < MOST_AFTER_BODIES, name
        large = call(f'{{"task":"hello","x":{many("[]", LARGE)}}}', f',"zz":{many("[]", 100_000)}')
        answered = await client.post("/mcp", content=large, headers=session)
        assert '"structuredContent":{"done": "whole"}' in answered.text
        unread = [await open_session(client) for _ in range(3 * MOST_SESSIONS)]
        gone = await client.post("/mcp", json=rpc("ping"), headers=session)
        assert gone.status_code == 404  # it was used longest ago
        last = {"mcp-session-id": unread[-1]}
        assert (await client.post("/mcp", json=rpc("ping"), headers=last)).status_code == 200
        assert resident(gateway) - before < MOST_GROWTH


async def test_however_a_session_is_opened_it_is_one_of_those_that_may_be(
    shared: GatewayInThread,
) -> None:
    escaped = json.dumps(HANDSHAKE).replace("initialize", "initializ\\u0065")
    unread = json.dumps(HANDSHAKE).replace('s": {}', 's": {"experimental": {"x": {"y": NaN}}}')
    async with client_of(shared) as client:
        for body in (escaped, unread):
            first = {"mcp-session-id": await open_session(client)}
            for _ in range(MOST_SESSIONS):
                opened = await client.post("/mcp", content=body)
                assert opened.status_code == 200
            gone = await client.post("/mcp", json=rpc("ping"), headers=first)
            assert gone.status_code == 404


async def test_a_session_in_use_is_not_ended_for_a_new_one(shared: GatewayInThread) -> None:
    async with client_of(shared) as client:
        first = await open_session(client)
        async with client.stream("GET", "/mcp", headers={"mcp-session-id": first}) as stream:
            assert stream.status_code == 200
            for _ in range(MOST_SESSIONS + 1):
                await open_session(client)
            ping = await client.post("/mcp", json=rpc("ping"), headers={"mcp-session-id": first})
            assert ping.status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "text/plain"}, 415),
        ({"accept": "text/html"}, 406),
        ({"host": "evil.example"}, 421),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"mcp-session-id": "x"}, 404),
        ({"mcp-session-id": "\x7f" * 8000}, 404),
        ({"mcp-protocol-version": "2099-01-01"}, 400),
        ({"mcp-protocol-version": "2026-07-28"}, 400),
    ],
)
async def test_a_request_that_is_not_right_is_refused(
    shared: GatewayInThread, headers: dict[str, str], status: int
) -> None:
    async with client_of(shared) as client:
        response = await client.post("/mcp", json=rpc("ping"), headers=headers)
    assert response.status_code == status, response.text


async def test_a_page_of_the_gateways_own_may_call(shared: GatewayInThread) -> None:
    async with client_of(shared) as client:
        own = {"origin": shared.url}
        assert (await client.post("/mcp", json=HANDSHAKE, headers=own)).status_code == 200
        for method in ("PUT", "OPTIONS", "HEAD"):
            response = await client.request(method, "/mcp")
            assert (response.status_code, response.headers["allow"]) == (405, "DELETE, GET, POST")


async def test_whoever_waits_for_changes_is_told_and_let_go_at_the_end(tmp_path: Path) -> None:
    """In both eras: `subscriptions/listen`, and the session's stream."""
    async with (
        serving(tmp_path) as gateway,
        client_of(gateway) as client,
        AsyncExitStack() as streams,
    ):
        session = {"mcp-session-id": await open_session(client)}
        notice = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        older = await streams.enter_async_context(client.stream("GET", "/mcp", headers=session))
        assert (await client.post("/mcp", json=notice, headers=session)).status_code == 202
        body = rpc("subscriptions/listen", notifications={"toolsListChanged": True})
        body["params"]["_meta"] = MODERN_META
        headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": "subscriptions/listen"}
        newer = await streams.enter_async_context(
            client.stream("POST", "/mcp", json=body, headers=headers)
        )
        lines = {"older": older.aiter_lines(), "newer": newer.aiter_lines()}
        await line_with(lines["newer"], "acknowledged")
        more = TOML + f"[agents.another]\ncommand = {json.dumps(VERSATILE)}\n"
        (tmp_path / "gateway.toml").write_text(more)
        gateway.process.send_signal(signal.SIGHUP)
        for each in lines.values():
            await line_with(each, "notifications/tools/list_changed")

        async def is_listed() -> bool:
            tools = (await modern_list(client)).json()["result"]["tools"]
            return "another_chat" in {tool["name"] for tool in tools}

        await becomes(is_listed)  # the first change may be that the other agent has declared itself
        gateway.process.send_signal(signal.SIGTERM)
        await line_with(lines["newer"], '"resultType":"complete"')
        for each in lines.values():
            with trio.fail_after(20):
                async for _ in each:
                    pass
        await gateway.process.wait()


MODERN_META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


async def modern_list(client: httpx.AsyncClient) -> httpx.Response:
    headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/list"}
    return await client.post("/mcp", json=rpc("tools/list", _meta=MODERN_META), headers=headers)


async def line_with(lines: AsyncIterator[str], text: str) -> None:
    with trio.fail_after(20):
        async for line in lines:
            if text in line:
                return
    raise AssertionError(f"no line with {text!r}")


LISTEN = {"mcp-protocol-version": "2026-07-28", "mcp-method": "subscriptions/listen"}
CALL = {
    "mcp-protocol-version": "2026-07-28",
    "mcp-method": "tools/call",
    "mcp-name": "versatile_chat",
}


def listen_body() -> dict[str, Any]:
    return rpc("subscriptions/listen", notifications={"toolsListChanged": True}, _meta=MODERN_META)


def key_toml(name: str, key: str, more: str = "") -> str:
    return f'[keys.{name}]\nhash = "{hash_key(key.encode())}"\n{more}\n'


async def test_only_calls_of_agents_take_places_of_a_key(tmp_path: Path) -> None:
    key = new_key()
    toml = TOML + key_toml("one", key, "limits = { concurrent = 1 }")
    async with serving(tmp_path, toml) as gateway, client_of(gateway) as client:
        client.headers["x-api-key"] = key
        streamed = client.stream("POST", "/mcp", json=listen_body(), headers=LISTEN)
        async with streamed as listening:
            assert listening.status_code == 200
            assert (await modern_list(client)).status_code == 200
            arguments = {"message": "hold"}
            body = rpc("tools/call", name="versatile_chat", arguments=arguments)
            body["params"]["_meta"] = {**MODERN_META, "progressToken": 1}
            called = client.stream("POST", "/mcp", json=body, headers=CALL)
            async with called as calling:
                assert calling.status_code == 200
                assert (await client.post("/mcp", json=body, headers=CALL)).status_code == 429
                assert (await modern_list(client)).status_code == 200


async def test_what_a_key_has_open_ends_when_it_is_revoked(tmp_path: Path) -> None:
    revoked, kept = new_key(), new_key()
    without = TOML + key_toml("kept", kept)
    toml = without + key_toml("revoked", revoked)
    async with (
        serving(tmp_path, toml) as gateway,
        client_of(gateway) as client,
        AsyncExitStack() as streams,
    ):

        async def streams_of(key: str) -> tuple[dict[str, str], list[httpx.Response]]:
            fields = {"x-api-key": key}
            opened = await client.post("/mcp", json=HANDSHAKE, headers=fields)
            session = {**fields, "mcp-session-id": opened.headers["mcp-session-id"]}
            notice = {"jsonrpc": "2.0", "method": "notifications/initialized"}
            await client.post("/mcp", json=notice, headers=session)
            get = client.stream("GET", "/mcp", headers=session)
            body = listen_body()
            post = client.stream("POST", "/mcp", json=body, headers={**LISTEN, **fields})
            return session, [await streams.enter_async_context(each) for each in (get, post)]

        async def reload(text: str) -> None:
            (tmp_path / "gateway.toml").write_text(text)
            gateway.process.send_signal(signal.SIGHUP)

        async def is_declared() -> bool:
            described = await client.get("/agent/versatile", headers={"x-api-key": kept})
            return described.json()["handlers"] is not None

        await becomes(is_declared)  # nobody is told of what was so before
        session, ended = await streams_of(revoked)
        _, told = await streams_of(kept)
        # The agent comes with the same reload that takes the key away.
        await reload(without + f"[agents.another]\ncommand = {json.dumps(VERSATILE)}\n")
        with trio.fail_after(20):
            for each in ended:
                assert "list_changed" not in (await each.aread()).decode()
        lines = [each.aiter_lines() for each in told]
        for more in lines:
            await line_with(more, "notifications/tools/list_changed")
        await reload(toml)

        async def is_ended() -> bool:
            response = await client.post("/mcp", json=rpc("ping"), headers=session)
            return response.status_code == 404

        await becomes(is_ended)
        gateway.process.send_signal(signal.SIGTERM)
        for more in lines:
            with trio.fail_after(20):
                async for _ in more:
                    pass
        await gateway.process.wait()


async def test_one_session_more_than_there_may_be_ends_one_of_the_key_that_has_most(
    tmp_path: Path,
) -> None:
    keys = [new_key() for _ in range(MOST_IN_ALL // MOST_SESSIONS)]
    few = new_key()
    toml = TOML + key_toml("few", few)
    toml += "".join(key_toml(f"many-{at}", key) for at, key in enumerate(keys))
    async with serving(tmp_path, toml) as gateway, client_of(gateway) as client:

        async def opened(key: str, count: int) -> list[str]:
            client.headers["x-api-key"] = key
            return [await open_session(client) for _ in range(count)]

        async def statuses(key: str, sessions: list[str]) -> list[int]:
            fields = [{"x-api-key": key, "mcp-session-id": each} for each in sessions]
            pings = [await client.post("/mcp", json=rpc("ping"), headers=each) for each in fields]
            return [each.status_code for each in pings]

        of_many = [(await opened(key, MOST_SESSIONS))[:2] for key in keys]
        of_few = await opened(few, 2)
        assert await statuses(few, of_few) == [200, 200]
        found = [await statuses(key, each) for key, each in zip(keys, of_many, strict=True)]
        assert found == [[404, 200], [404, 200], *[[200, 200]] * (len(keys) - 2)]


async def test_more_subscriptions_than_there_may_be_are_refused(shared: GatewayInThread) -> None:
    async with (
        client_of(shared, httpx.Limits(max_connections=None)) as client,
        AsyncExitStack() as streams,
    ):
        body = rpc("subscriptions/listen", notifications={"toolsListChanged": True})
        body["params"]["_meta"] = MODERN_META
        headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": "subscriptions/listen"}

        async def listen() -> httpx.Response:
            return await streams.enter_async_context(
                client.stream("POST", "/mcp", json=body, headers=headers)
            )

        for _ in range(MOST_SUBSCRIPTIONS):
            assert (await listen()).headers["content-type"].startswith("text/event-stream")
        refused = await listen()
        assert "limit reached" in (await refused.aread()).decode()


async def test_a_client_that_reads_nothing_holds_no_more_than_a_little(tmp_path: Path) -> None:
    """Floods of progress, of which nothing is read: what waits is bounded, and others go on."""
    async with (
        serving(tmp_path) as gateway,
        client_of(gateway) as client,
        AsyncExitStack() as connections,
    ):
        await modern_list(client)
        before = resident(gateway)
        body = rpc("tools/call", name="versatile_chat", arguments={"message": "flood"})
        body["params"]["_meta"] = {**MODERN_META, "progressToken": 1}
        data = json.dumps(body).encode()
        head = (
            f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{gateway.port}\r\nAccept: {ACCEPT}\r\n"
            "Content-Type: application/json\r\nMCP-Protocol-Version: 2026-07-28\r\n"
            "Mcp-Method: tools/call\r\nMcp-Name: versatile_chat\r\n"
            f"Content-Length: {len(data)}\r\n\r\n"
        )
        for _ in range(8):
            stream = await trio.open_tcp_stream("127.0.0.1", gateway.port)
            await connections.enter_async_context(stream)
            await stream.send_all(head.encode() + data)

        async def is_answered() -> bool:
            arguments = {"task": "hello"}
            headers = {
                "mcp-protocol-version": "2026-07-28",
                "mcp-method": "tools/call",
                "mcp-name": "versatile_invoke",
            }
            params = {"name": "versatile_invoke", "arguments": arguments, "_meta": MODERN_META}
            answer = await client.post("/mcp", json=rpc("tools/call", **params), headers=headers)
            return answer.json()["result"]["isError"] is False

        await becomes(is_answered)
        assert resident(gateway) - before < MOST_GROWTH
