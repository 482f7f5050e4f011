"""Which pages a browser lets read what the gateway answers."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from gateway.config import CallerKeys
from gateway.exchange import Exchange
from gateway.front.auth import Keys
from gateway.front.cors import METHODS, Cors, make_cors
from tests.unit.runs import Client, scene

APP = "https://app.example"


async def answer(exchange: Exchange) -> None:
    exchange.add_words([b'"done"'], trio.current_time())
    exchange.end()


async def ask(
    origin: str | None, *cors: str, method: str = "POST", keys: Any = None, **headers: str
) -> Client:
    """One request from a page of that origin."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    if origin is not None:
        fields["origin"] = origin
    async with scene(answer) as it:
        it.routes.cors = make_cors(cors)
        if keys is not None:
            it.routes.keys = keys
        return await it.ask(method=method, body={"input": 1}, headers=fields)


async def preflight(origin: str, *cors: str, keys: Any = None, **headers: str) -> Client:
    asked = {"access_control_request_method": "POST", **headers}
    return await ask(origin, *cors, method="OPTIONS", keys=keys, **asked)


def of_cors(client: Client) -> set[bytes]:
    return {name for name in client.headers if name.startswith(b"access-control-")}


async def test_a_response_is_shared_with_a_page_whose_origin_is_named() -> None:
    client = await ask(APP, "http://localhost:3000", APP)
    assert client.status == 200
    assert client.headers[b"access-control-allow-origin"] == APP.encode()
    assert client.headers[b"vary"] == b"Origin"
    exposed = client.headers[b"access-control-expose-headers"].lower().split(b", ")
    assert {b"x-request-id", b"x-run-id", b"ratelimit", b"retry-after"} <= {*exposed}
    assert b"access-control-allow-credentials" not in client.headers


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "https://evil.example",
        "http://app.example",
        "https://app.example:443",
        "https://app.example:8443",
        "https://APP.example",
        "HTTPS://app.example",
        "https://app.example.",
        "https://app.example/",
        "https://app.example.evil.example",
        "https://evil-app.example",
        "https://user@app.example",
        "https://app.example@evil.example",
        "https://app.example, https://evil.example",
        " https://app.example",
        "*",
        "",
    ],
)
async def test_no_other_origin_is_taken_for_it(origin: str) -> None:
    client = await ask(origin, APP)
    assert client.status == 200  # what protects from others than browsers are keys
    assert of_cors(client) == set()
    assert client.headers[b"vary"] == b"Origin"
    refused = await preflight(origin, APP)
    assert (refused.status, refused.error) == (403, "forbidden")
    assert of_cors(refused) == set()


async def test_two_origins_are_none() -> None:
    async with scene(answer) as it:
        it.routes.cors = Cors([APP])
        scope = it.scope_of("/agent/a/invoke", {})
        scope["headers"] += [(b"origin", APP.encode())] * 2
        client = Client(b'{"input": 1}')
        await it.routes(scope, client.receive, client.send)
        assert of_cors(client) == set()


async def test_a_preflight_allows_what_the_page_asks_for() -> None:
    asked = "authorization,content-type,x-stainless-os"
    client = await preflight(APP, APP, access_control_request_headers=asked)
    assert client.status == 204
    assert client.headers[b"access-control-allow-origin"] == APP.encode()
    assert client.headers[b"access-control-allow-methods"] == METHODS
    assert client.headers[b"access-control-allow-headers"] == asked.encode()
    assert client.headers[b"access-control-max-age"] == b"600"
    vary = [value for name, value in client.sent[0][1]["headers"] if name == b"vary"]
    assert b"Origin" in vary
    assert b"Access-Control-Request-Headers" in b", ".join(vary)


@pytest.mark.parametrize("names", ["", "a b", "a,,b", "a\x00", "a: b", ",".join(["x"] * 200)])
async def test_what_are_no_names_of_fields_is_not_repeated(names: str) -> None:
    client = await preflight(APP, APP, access_control_request_headers=names)
    assert client.status == 204
    assert b"access-control-allow-headers" not in client.headers


async def test_a_preflight_needs_no_key_and_a_401_can_be_read_by_the_page() -> None:
    keys = Keys(CallerKeys(on=True))
    assert (await preflight(APP, APP, keys=keys)).status == 204
    refused = await ask(APP, APP, keys=keys)
    assert refused.status == 401
    assert refused.headers[b"access-control-allow-origin"] == APP.encode()


async def test_every_origin_is_allowed_where_the_settings_say_so_but_not_into_a_private_network():
    client = await ask("https://any.example", "*")
    assert client.headers[b"access-control-allow-origin"] == b"*"
    assert b"vary" not in client.headers
    private = {"access_control_request_private_network": "true"}
    asked = await preflight("https://any.example", "*", **private)
    assert asked.status == 204
    assert b"access-control-allow-private-network" not in asked.headers
    named = await preflight(APP, APP, **private)
    assert named.headers[b"access-control-allow-private-network"] == b"true"


async def test_without_the_setting_nothing_is_said_to_pages() -> None:
    client = await ask(APP)
    assert of_cors(client) == set()
    assert b"vary" not in client.headers
    assert (await preflight(APP)).status == 405


async def test_options_that_are_no_preflight_are_as_they_were() -> None:
    assert (await ask(APP, APP, method="OPTIONS")).status == 405
    assert (await ask(None, APP, method="OPTIONS")).status == 405
