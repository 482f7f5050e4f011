"""A front that speaks A2A with an agent that is played, and what its clients are told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from gateway.exchange import Exchange
from gateway.front.a2a.dialect import A2ADialect
from protocol import Outcome
from tests.unit.asgi import DIALECTS
from tests.unit.runs import Client, RunScene, say, scene

VERSION = {"a2a-version": "1.0"}
MINE = {"authorization": "Bearer mine"}
ASKS = b'[{"id":"a1","reason":"input_required","message":"Which day?"}]'
TOOL = {"name": "weather", "description": "", "parameters": {"type": "object"}}


def message(*parts: Any, **more: Any) -> dict[str, Any]:
    found = [{"text": part} if isinstance(part, str) else part for part in parts]
    return {"messageId": "m1", "role": "ROLE_USER", "parts": found, **more}


def event(exchange: Exchange, **members: Any) -> None:
    exchange.add_words([json.dumps(members).encode()], trio.current_time())


def body_of(method: str, params: Any = None, rpc_id: Any = 7) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": rpc_id, "method": method, "params": params or {}}


@asynccontextmanager
async def a2a(story: Any, **more: Any) -> AsyncIterator[RunScene]:
    async with scene(story, dialects=(A2ADialect(), *DIALECTS), **more) as it:
        yield it


async def rpc(
    it: RunScene, method: str, params: Any = None, *, agent: str = "a", **headers: str
) -> Client:
    body = body_of(method, params)
    return await it.ask(f"/a2a/{agent}", body, headers={**VERSION, **headers})


async def send(it: RunScene, *parts: Any, **more: Any) -> Any:
    client = await rpc(it, "SendMessage", {"message": message(*parts, **more)})
    assert client.json["id"] == 7
    return client.json["result"]["task"]


async def begin(it: RunScene, *parts: Any) -> Any:
    """A task that was told before it had ended."""
    params = {"message": message(*parts), "configuration": {"returnImmediately": True}}
    return (await rpc(it, "SendMessage", params)).json["result"]["task"]


def results(client: Client) -> list[Any]:
    """The results of a stream's events."""
    lines = [line for line in client.body.split(b"\n") if line.startswith(b"data: ")]
    told = [json.loads(line.removeprefix(b"data: ")) for line in lines]
    assert {(each["jsonrpc"], each["id"]) for each in told} == {("2.0", 7)}
    return [each["result"] for each in told]


def states(events: list[Any]) -> list[str]:
    found = [event.get("task", event.get("statusUpdate")) for event in events]
    return [each["status"]["state"].removeprefix("TASK_STATE_") for each in found if each]


def text_of(artifacts: list[Any]) -> str:
    return "".join(part.get("text", "") for each in artifacts for part in each["parts"])


async def talk(exchange: Exchange) -> None:
    say(exchange, "Hello, ")
    await trio.sleep(1)
    say(exchange, "there")
    exchange.end(outcome=Outcome("stop", b'{"input_tokens":7,"output_tokens":3}'))


async def hold(exchange: Exchange) -> None:
    say(exchange, "so far")
    await trio.sleep_forever()
