"""The a2a-sdk package for Python."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import httpx
from a2a.client import ClientConfig, ClientFactory
from a2a.client.errors import A2AClientError, AgentCardResolutionError
from a2a.types import CancelTaskRequest, SendMessageRequest
from a2a.utils.errors import A2AError
from google.protobuf import json_format

from . import MAX_STEPS, PICTURE, SECONDS, TOOL, Order, Reply, serve

TOOLS = "urn:agent-gateway:a2a:tools:1"
FAILED = {"TASK_STATE_FAILED", "TASK_STATE_REJECTED"}


class Turn:
    """What is said of one task, in one turn or more."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.task = ""
        self.calls: list[Any] = []
        self.asks: list[Any] = []
        self._said: set[str] = set()
        """The artifacts of earlier turns."""

    def begin(self) -> None:
        self.calls, self.asks = [], []

    def take(self, event: dict[str, Any]) -> None:
        """Take an event of a stream, or the task that is the answer."""
        if (task := event.get("task")) is not None:
            self.task = task["id"]
            for artifact in task.get("artifacts", []):
                if artifact["artifactId"] not in self._said:
                    self._artifact(artifact)
            self._said |= {each["artifactId"] for each in task.get("artifacts", [])}
            self._status(task["status"], task.get("metadata", {}))
        elif (update := event.get("artifactUpdate")) is not None:
            self._artifact(update["artifact"])
            self._said.add(update["artifact"]["artifactId"])
        elif (update := event.get("statusUpdate")) is not None:
            self._status(update["status"], update.get("metadata", {}))

    def _artifact(self, artifact: dict[str, Any]) -> None:
        for part in artifact["parts"]:
            self.reply.say(part.get("text"))
            if "raw" in part:
                self.reply.files.append((part["filename"], part["mediaType"], part["raw"]))

    def _status(self, status: dict[str, Any], metadata: dict[str, Any]) -> None:
        reply, state = self.reply, status["state"]
        parts = status.get("message", {}).get("parts", [])
        if state in FAILED:
            reply.fail(state, " ".join(part["text"] for part in parts if "text" in part))
            return
        for part in parts:
            if isinstance(data := part.get("data"), dict):
                self._data(data)
        if state not in {"TASK_STATE_SUBMITTED", "TASK_STATE_WORKING"}:
            reply.finish = metadata.get("finish") or state.removeprefix("TASK_STATE_").lower()
            reply.spent(metadata.get("usage"), "input_tokens", "output_tokens")

    def _data(self, data: dict[str, Any]) -> None:
        reply = self.reply
        self.calls += data.get("toolCalls", [])
        self.asks += data.get("asks", [])
        reply.asks += [each["message"] for each in data.get("asks", [])]
        match data.get("type"):
            case "reasoning":
                reply.reasoning += data["text"]
            case "status":
                reply.statuses.append(data["text"])
            case "state" if "value" in data:
                reply.state = data["value"]
            case "state":  # a patch (RFC 6902), of which the agent uses this much
                for each in data["patch"]:
                    reply.state[each["path"].removeprefix("/")] = each["value"]
            case "tool_call":
                reply.own.append((data["name"], data["arguments"], None))
            case "tool_result":
                name, arguments, _ = reply.own.pop()
                reply.own.append((name, arguments, data["content"]))


async def ask(url: str, order: Order) -> Reply:
    reply = Reply()
    headers = {"Authorization": f"Bearer {order.key}"}
    async with httpx.AsyncClient(headers=headers, timeout=SECONDS) as http:
        with reply.noting_errors(A2AClientError, AgentCardResolutionError, A2AError):
            config = ClientConfig(streaming=order.do != "answer", httpx_client=http)
            client = await ClientFactory(config).create_from_url(f"{url}/a2a/{order.model}")
            await converse(client, order, Turn(reply))
    if reply.error is not None:
        reply.error["status"] = None  # only errors in fetching the card have one
    return reply


async def converse(client: Any, order: Order, turn: Turn) -> None:
    parts: list[Any] = [{"text": order.text}]
    if order.image:
        kind, data = PICTURE.removeprefix("data:").split(";base64,")
        parts.append({"raw": data, "mediaType": kind})
    metadata = {TOOLS: [TOOL]} if order.tools else {}
    for step in range(MAX_STEPS):
        turn.begin()
        said = {"messageId": f"m{step}", "role": "ROLE_USER", "parts": parts}
        if turn.task:
            said["taskId"] = turn.task
        request = {"message": {**said, "metadata": metadata}}
        async for event in client.send_message(
            json_format.ParseDict(request, SendMessageRequest())
        ):
            turn.take(json_format.MessageToDict(event))
            if order.do == "leave" and turn.reply.text:
                await client.cancel_task(CancelTaskRequest(id=turn.task))
                return
        if turn.calls:
            results = [
                {"call": call["id"], "content": turn.reply.call(call["name"], call["arguments"])}
                for call in turn.calls
            ]
            parts = [{"data": {"toolResults": results}}]
        elif turn.asks and order.answer is not None:
            parts = [{"data": order.answer}]
        else:
            return


def main() -> None:
    with asyncio.Runner() as runner:
        serve(("a2a-sdk",), lambda order: runner.run(ask(sys.argv[1], order)))


main()
