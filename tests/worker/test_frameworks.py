"""Agents written with real frameworks, through a real gateway: `worker/examples/frameworks/`.

Their models are stand-ins, and nothing else is. Warnings of the frameworks' own stay in the agents'
processes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.harness import RunningGateway, running_gateway

FRAMEWORKS = Path(__file__).parents[2] / "worker" / "examples" / "frameworks"


WEATHER = {
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
"""A tool of a client's."""


def command(name: str) -> list[str]:
    return [sys.executable, "-m", "worker", f"{FRAMEWORKS / name}.py:agent"]


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def words(events: tuple[int, list[str]]) -> list[str]:
    """The chunks of a whole stream."""
    status, (*chunks, done) = events
    assert (status, done) == (200, "[DONE]"), events
    return [json.loads(chunk)["chunk"] for chunk in chunks]


@pytest.mark.parametrize("workers", ["", "workers = { min = 3 }"], ids=["default", "three workers"])
async def test_every_conversation_of_many_is_remembered_to_its_end_by_a_langgraph_agent(
    workers: str, tmp_path: Path
) -> None:
    toml = f"""
        [agents.recall]
        command = {json.dumps(command("langgraph_memory"))}
        {workers}
    """
    async with running_gateway(toml=toml, folder=tmp_path) as gateway:
        complete = []

        async def converse(name: str) -> None:
            for turn in range(1, 5):
                response = await gateway.post(
                    "/agent/recall/chat",
                    messages=said(f"{name}{turn}"),
                    context={"conversation_id": name},
                )
                assert response.status_code == 200, response.text
                assert response.headers["x-agent-session"] == ("new" if turn == 1 else "kept")
            complete.append(response.json()["message"]["content"])

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(converse, f"c{number}-")
        for user in ("u", "v"):  # who share no conversation
            context = {"conversation_id": "c", "user_id": user}
            streamed = await gateway.stream(
                "/agent/recall/chat", messages=said(f"I am {user}"), context=context
            )
            assert words(streamed) == [f"You said: I am {user}."]
        status = await gateway.state("recall")
        used = sum(worker["served"] > 0 for worker in status["workers"])
        assert used > 1 or not workers
    assert sorted(complete) == sorted(
        f"You said: {', '.join(f'c{number}-{turn}' for turn in range(1, 5))}."
        for number in range(20)
    )


async def test_a_pydantic_ai_agent_streams_and_takes_and_returns_models() -> None:
    async with running_gateway({"guide": command("pydantic_ai_chat")}) as gateway:
        streamed = await gateway.stream(
            "/agent/guide/chat", messages=said("Where?"), context={"user_id": "Ada"}
        )
        assert json.loads("".join(words(streamed))) == {"whereabouts": "Ada is in Rome."}
        # The stand-in calls its tools in its first turn, and finds that this is another one.
        before = [*said("Hi"), {"role": "assistant", "content": "Hello."}]
        streamed = await gateway.stream("/agent/guide/chat", messages=[*before, *said("Where?")])
        assert "".join(words(streamed)) == "success (no tool calls)"
        # Clients that ask for events see its own call; a call of their own is theirs to make.
        shown = await gateway.post(
            "/agent/guide/chat", messages=said("Where?"), events=True, tools=[WEATHER]
        )
        answer = shown.json()
        assert answer["finish"] == "tool_calls"
        assert answer["usage"]["input_tokens"] > 0
        assert [(each["type"], each.get("name")) for each in answer["events"]] == [
            ("tool_call", "whereabouts"),
            ("tool_result", None),
            ("tool_call", "weather"),
        ]
        planned = await gateway.post("/agent/guide/invoke", input={"city": "Rome", "days": 2})
        assert planned.json() == {"output": {"city": "Rome", "highlights": ["Pantheon"]}}
        refused = await gateway.post("/agent/guide/invoke", input={"trip": {"city": 3}})
        assert refused.status_code == 400
        assert refused.json()["error"]["message"] == (
            "input.trip.city: expected string, got integer"
        )


async def test_an_openai_agents_agent_has_a_session_for_each_conversation() -> None:
    async with running_gateway({"clerk": command("openai_agents_sessions")}) as gateway:
        for number in (1, 2, 3):
            streamed = await gateway.stream(
                "/agent/clerk/chat",
                messages=said(f"word{number}"),
                context={"conversation_id": "c"},
            )
            chunks = words(streamed)
            assert len(chunks) == 7
            assert "".join(chunks) == f"{number} so far, the last one: word{number}"
        other = await gateway.post("/agent/clerk/chat", messages=said("hi"))
        assert other.json()["message"]["content"] == "1 so far, the last one: hi"


async def test_an_agent_keeps_its_notes_in_sqlite_through_workers_and_restarts(
    tmp_path: Path,
) -> None:
    toml = f"""
        [server]
        state_dir = "{tmp_path / "state"}"
        [agents.notes]
        command = {json.dumps(command("sqlite_notes"))}
        state = true
        max_requests = 1
    """
    noted = []
    for _ in range(2):
        async with running_gateway(toml=toml, folder=tmp_path) as gateway:
            for user in ("u", "v", "u"):
                noted.append(f"{len(noted)}")
                response = await gateway.post(
                    "/agent/notes/invoke", input=noted[-1], context={"user_id": user}
                )
                answer = response.json()
    assert answer == {"output": ["0", "2", "3", "5"]}


class Upstream:
    """A server that speaks as OpenAI's does, of which one request is made."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/v1"
        self.asked: list[dict[str, Any]] = []

    async def answer(self, stream: trio.SocketStream) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += await stream.receive_some()
        head, _, body = data.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        while len(body) < int(fields[b"content-length"]):
            body += await stream.receive_some()
        self.asked.append(json.loads(body))
        answer = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
        for word in ("Roses ", "are ", "red."):
            delta = {"index": 0, "delta": {"role": "assistant", "content": word}}
            chunk = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "m",
                     "choices": [delta]}  # fmt: skip
            answer += b"data: %b\n\n" % json.dumps(chunk).encode()
        await stream.send_all(answer + b"data: [DONE]\n\n")
        await stream.aclose()


@asynccontextmanager
async def upstream() -> AsyncIterator[Upstream]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    server = Upstream(listener.socket.getsockname()[1])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, server.answer, [listener])
        yield server
        nursery.cancel_scope.cancel()


async def ask_poet(gateway: RunningGateway) -> list[str]:
    return words(await gateway.stream("/agent/poet/chat", messages=said("A poem.")))


async def test_an_agent_streams_a_model_over_the_network(tmp_path: Path) -> None:
    # Without the sandbox: in it, this machine is what no network setting lets an agent reach.
    async with upstream() as server:
        toml = f"""
            [server]
            sandbox = "off"
            [agents.poet]
            command = {json.dumps(command("model_over_network"))}
            [agents.poet.sandbox.env]
            OPENAI_BASE_URL = "{server.url}"
            OPENAI_API_KEY = "none"
            OPENAI_MODEL = "verse"
        """
        async with running_gateway(toml=toml, folder=tmp_path) as gateway:
            assert await ask_poet(gateway) == ["Roses ", "are ", "red."]
    (asked,) = server.asked
    assert (asked["model"], asked["messages"], asked["stream"]) == ("verse", said("A poem."), True)


async def test_an_agent_whose_model_is_out_of_reach_is_told_the_setting(tmp_path: Path) -> None:
    toml = f"""
        [agents.poet]
        command = {json.dumps(command("model_over_network"))}
        [agents.poet.sandbox.env]
        OPENAI_BASE_URL = "http://api.example.invalid/v1"
        OPENAI_API_KEY = "none"
    """
    async with running_gateway(toml=toml, folder=tmp_path) as gateway:
        response = await gateway.post("/agent/poet/chat", messages=said("A poem."))
        assert response.status_code == 500
        assert response.json()["error"]["setting"] == "sandbox.network"
