"""The end of the gateway as the clients of its streams see it: each stream has an end in order."""

from __future__ import annotations

import json
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import trio

from tests.harness import running_gateway
from tests.http.conftest import AGENTS, SCRIPTED
from tests.http.raw import Connection, connected
from tests.http.test_mcp_abuse import HANDSHAKE

HOLD: list[Any] = [["say", "a word"], ["hold"]]
MESSAGES = [{"role": "user", "content": json.dumps(HOLD)}]
CHAT = {"model": "scripted", "messages": MESSAGES, "stream": True}
UI_MESSAGE = {"id": "m", "role": "user", "parts": [{"type": "text", "text": json.dumps(HOLD)}]}
TOML = f"""
[server]
sandbox = "off"
drain = 0.2
console = true
dialects = ["native", "openai", "anthropic", "a2a", "ag-ui", "ui", "mcp"]
[agents.scripted]
command = {json.dumps(SCRIPTED)}
[agents.asking]
command = {json.dumps([sys.executable, str(AGENTS / "asking.py")])}
"""


def a2a(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def a2a_message(text: str) -> dict[str, Any]:
    return {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": text}]}


CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "native": ("/agent/scripted/invoke", {"input": HOLD, "stream": True}),
    "chat": ("/v1/chat/completions", CHAT),
    "response": ("/v1/responses", {"model": "scripted", "input": MESSAGES, "stream": True}),
    "anthropic": ("/v1/messages", {**CHAT, "max_tokens": 9}),
    "ag-ui": (
        "/ag-ui/scripted",
        {"threadId": "t", "runId": "r", "messages": [{"id": "m", **MESSAGES[0]}]},
    ),
    "ui": ("/ui/scripted", {"id": "c", "messages": [UI_MESSAGE]}),
    "a2a": (
        "/a2a/scripted",
        a2a("SendStreamingMessage", message=a2a_message(json.dumps(HOLD))),
    ),
}
"""Streams of an agent that says a word, and then nothing."""

MORE = ("A2A-Version: 1.0", "Anthropic-Version: 2023-06-01", "Accept: application/json")
EVENTS = ("Accept: text/event-stream",)


async def test_every_stream_that_is_open_at_the_end_of_the_gateway_ends_in_order(
    tmp_path: Path,
) -> None:
    async with (
        running_gateway(toml=TOML, folder=tmp_path) as gateway,
        AsyncExitStack() as stack,
    ):
        streams: dict[str, Connection] = {}

        async def open_stream(name: str, path: str, *fields: str, body: Any = None) -> None:
            connection = await stack.enter_async_context(connected(gateway.port))
            method = "GET" if body is None else "POST"
            await connection.request(path, body, method=method, headers=fields)
            assert b" 200 " in await connection.until(b"\r\n\r\n"), name
            streams[name] = connection

        for name, (path, body) in CALLS.items():
            await open_stream(name, path, *MORE, body=body)
            await streams[name].until(b"a word")
        # A run, to which a second client is attached
        held = {"json": {"input": HOLD, "stream": True}, "headers": {"prefer": "respond-async"}}
        begun = await gateway.client.post("/agent/scripted/invoke", **held)  # type: ignore[arg-type]
        await open_stream("run", begun.headers["location"], *EVENTS)
        await streams["run"].until(b"a word")
        # A task that has asked its client something, and no agent has
        asked = await gateway.client.post(
            "/a2a/asking",
            json=a2a("SendMessage", message=a2a_message("hi")),
            headers={"a2a-version": "1.0"},
        )
        follow = a2a("SubscribeToTask", id=asked.json()["result"]["task"]["id"])
        await open_stream("task", "/a2a/asking", *MORE, body=follow)
        await streams["task"].until(b"INPUT_REQUIRED")
        # What tells whatever there is to be told
        accept = {"accept": "application/json, text/event-stream"}
        opened = await gateway.client.post("/mcp", json=HANDSHAKE, headers=accept)
        session = f"Mcp-Session-Id: {opened.headers['mcp-session-id']}"
        await open_stream("mcp", "/mcp", *EVENTS, session)
        await open_stream("console", "/console/api/live")
        await streams["console"].until(b"event: agents")

        gateway.process.send_signal(signal.SIGTERM)
        for name, connection in streams.items():
            try:
                await connection.until(rb"\r\n0\r\n\r\n")
            except AssertionError as error:
                raise AssertionError(f"{name} was cut") from error
        with trio.fail_after(20):
            await gateway.process.wait()
