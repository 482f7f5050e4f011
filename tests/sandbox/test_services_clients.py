"""Unmodified clients of models, in the strict sandbox and without a network, use keys that they
cannot have.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.harness import RunningGateway, running_gateway
from tests.javascript import MODULES, need_package, need_runtime
from tests.sandbox.doors import KEY, Upstream
from tests.sandbox.users import available_users, need_sandbox

HERE = Path(__file__).parent
PROGRAMS = ("services_agent.py", "services_clients.py", "services_clients.mjs")
TOKENS = ("one", "two", "three")
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def chat(text: str) -> Any:
    choice = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}
    return {
        "id": "x",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [choice],
    }


def message(text: str) -> Any:
    delta = {"type": "text_delta", "text": text}
    return {"type": "content_block_delta", "index": 0, "delta": delta}


def gemini(text: str) -> Any:
    return {"candidates": [{"index": 0, "content": {"role": "model", "parts": [{"text": text}]}}]}


MESSAGE: Any = {
    "type": "message_start",
    "message": {
        "id": "x",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 3, "output_tokens": 1},
    },
}
BLOCK = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
STOP = chat("") | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
FORMS: dict[str, Any] = {
    # What is asked for, and what comes before the texts, for each, and at the end.
    "/v1/chat/completions": ([], chat, [STOP, "[DONE]"]),
    "/v1/messages": (
        [MESSAGE, BLOCK],
        message,
        [{"type": "content_block_stop", "index": 0}, {"type": "message_stop"}],
    ),
    "/v1/models/m:streamGenerateContent?alt=sse": ([], gemini, []),
    "/v1beta/models/m:streamGenerateContent?alt=sse": ([], gemini, []),
}


def event(data: Any) -> bytes:
    if isinstance(data, str):
        return f"data: {data}\n\n".encode()
    name = f"event: {data['type']}\n" if "type" in data else ""
    return f"{name}data: {json.dumps(data)}\n\n".encode()


class Model:
    """A service that sends each token when the last one was seen at the other end."""

    def __init__(self) -> None:
        self.upstream = Upstream(self.answer)
        self.seen = [trio.Event() for _ in TOKENS]
        self.asked: list[bytes] = []
        self.left = trio.Event()

    async def answer(self, upstream: Upstream, stream: trio.SocketStream, head: bytes) -> None:
        if b'"hello"' not in head:
            await upstream.until(stream, b'"hello"')
        self.asked.append(head.partition(b"\r\n\r\n")[0])
        before, form, after = FORMS[head.split(b" ")[1].decode()]
        await stream.send_all(HEAD + b"".join(map(event, before)))
        if len(self.asked) > 1:
            await stream.send_all(event(form("first")))
            await upstream.until(stream, b"never")
            self.left.set()
            return
        for token, seen in zip(TOKENS, self.seen, strict=True):
            await stream.send_all(event(form(token)))
            await seen.wait()
        await stream.send_all(b"".join(map(event, after)))
        await stream.aclose()


@contextmanager
def copied() -> Iterator[Path]:
    """The programs in a folder that others can read, and which holds nothing else."""
    with tempfile.TemporaryDirectory(prefix="clients-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for each in PROGRAMS:
            shutil.copy(HERE / each, folder)
        if MODULES.exists():
            (folder / "node_modules").symlink_to(MODULES)
        yield folder


@asynccontextmanager
async def serving(tmp_path: Path) -> AsyncIterator[tuple[RunningGateway, Model, Path]]:
    """A gateway with an agent that has three services, for which one model answers."""
    need_sandbox(available_users()[0])
    model = Model()
    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(
            partial(trio.serve_tcp, model.upstream.serve, 0, host="127.0.0.1")
        )
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        with copied() as folder:
            toml = f"""
                [services]
                openai = {{ preset = "openai", url = "{url}/v1" }}
                anthropic = {{ preset = "anthropic", url = "{url}" }}
                google = {{ preset = "google", url = "{url}" }}
                [agents.bot]
                command = ["{sys.executable}", "-u", "{folder}/services_clients.py"]
                services = ["openai", "anthropic", "google"]
            """
            if MODULES.exists():
                toml += f'[agents.bot.sandbox]\nmounts_ro = ["{MODULES}"]\n'
            env = dict.fromkeys(("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"), KEY)
            async with running_gateway(toml=toml, folder=tmp_path, env=env) as gateway:
                yield gateway, model, folder
        nursery.cancel_scope.cancel()


CLIENTS = {
    "openai": (),
    "anthropic": (),
    "langchain": (),
    "litellm": (),
    "google": (),
    "openai for Node 20": ("node20", "openai", "openai"),
    "anthropic for Node 20": ("node20", "anthropic", "@anthropic-ai/sdk"),
    "AI SDK for Node 24": ("node24", "ai", "@ai-sdk/openai"),
    "curl": (),
}


def command(name: str, folder: Path) -> list[str]:
    if name == "curl":
        return ["curl"]
    if not CLIENTS[name]:
        return [sys.executable, f"{folder}/services_clients.py", name]
    runtime, client, package = CLIENTS[name]
    need_package(package)
    return [need_runtime(runtime), f"{folder}/services_clients.mjs", client]


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_client_streams_token_by_token_and_leaves_and_never_sees_the_key(
    tmp_path: Path, client: str
) -> None:
    async with serving(tmp_path) as (gateway, model, folder):
        asked = {"client": command(client, folder), "scan": KEY[::-1], "skipped": str(MODULES)}
        lines: list[str] = []
        body = {"input": asked, "stream": True}
        async with gateway.client.stream("POST", "/agent/bot/invoke", json=body) as response:
            async for line in response.aiter_lines():
                if not line.startswith('data: {"chunk":'):
                    assert line in {"", ": keep-alive", "data: [DONE]"}, line
                    continue
                text = json.loads(line.removeprefix("data: "))["chunk"]
                lines.append(text)
                for token, seen in zip(TOKENS, model.seen, strict=True):
                    if token in text:
                        seen.set()
        if client != "curl":
            with trio.fail_after(20):
                await model.left.wait()
        scan = json.loads(lines.pop(1))
        assert scan["found"] == []
        assert scan["looked_at"] > 100
        if client == "curl":
            said = [json.loads(each.removeprefix("data: ")) for each in lines[:-1]]
            assert said == [*map(chat, TOKENS), STOP]
        else:
            assert lines == [*TOKENS, "begun: first", "left"]
        assert all(KEY.encode() in head for head in model.asked)
        assert all(b"placeholder" not in head for head in model.asked)
    assert not any(KEY in line for line in gateway.log)
