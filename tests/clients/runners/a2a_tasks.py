"""What a2a-sdk for Python does with tasks and cards: `python -m … URL`, told as a line of JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
from a2a.types import (
    CancelTaskRequest,
    GetExtendedAgentCardRequest,
    GetTaskRequest,
    ListTasksRequest,
    SendMessageRequest,
    SubscribeToTaskRequest,
    TaskPushNotificationConfig,
)
from a2a.utils.errors import A2AError
from google.protobuf.json_format import MessageToDict, ParseDict

from . import KEY, SECONDS

URL = f"{sys.argv[1]}/a2a/told"


def said(text: str, **configuration: Any) -> SendMessageRequest:
    message = {"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": text}]}
    return ParseDict({"message": message, "configuration": configuration}, SendMessageRequest())


def state(task: dict[str, Any]) -> str:
    return str(task["status"]["state"]).removeprefix("TASK_STATE_")


def text(task: dict[str, Any]) -> str:
    artifacts = task.get("artifacts", [])
    return "".join(part["text"] for each in artifacts for part in each["parts"])


async def error(doing: Any) -> str:
    """The name of the error that is raised."""
    try:
        await doing
    except A2AError as raised:
        return type(raised).__name__
    return ""


@asynccontextmanager
async def client(**config: Any) -> AsyncIterator[Any]:
    headers = {"X-API-Key": KEY}
    async with httpx.AsyncClient(headers=headers, timeout=SECONDS) as http:
        factory = ClientFactory(ClientConfig(httpx_client=http, **config))
        yield await factory.create_from_url(URL)


async def cards() -> dict[str, Any]:
    async with httpx.AsyncClient(timeout=SECONDS) as http:
        stranger = MessageToDict(await A2ACardResolver(http, URL).get_agent_card())
    async with client() as it:
        known = MessageToDict(await it.get_extended_agent_card(GetExtendedAgentCardRequest()))
    return {
        "strangers_skills": [skill["id"] for skill in stranger["skills"]],
        "skills": [skill["id"] for skill in known["skills"]],
        "modes": known["defaultInputModes"],
        "url": known["supportedInterfaces"][0]["url"],
    }


async def cut_and_cancelled() -> dict[str, Any]:
    told: dict[str, Any] = {}
    async with client() as it:
        stream = it.send_message(said("hold a2a-tasks"))
        task = MessageToDict(await anext(stream))["task"]["id"]
        async for event in stream:
            if event.HasField("artifact_update"):
                break
        await stream.aclose()
        now = MessageToDict(await it.get_task(GetTaskRequest(id=task)))
        told["while it runs"] = [state(now), text(now)[:6]]
        follower = it.subscribe(SubscribeToTaskRequest(id=task))
        first = MessageToDict(await anext(follower))["task"]
        told["followed"] = [first["id"] == task, state(first), text(first)[:6]]
        cancelled = MessageToDict(await it.cancel_task(CancelTaskRequest(id=task)))
        told["cancelled"] = state(cancelled)
        *_, last = [MessageToDict(event) async for event in follower]
        told["the stream's end"] = state(last["statusUpdate"])
        told["afterwards"] = state(MessageToDict(await it.get_task(GetTaskRequest(id=task))))
        told["cancelled again"] = await error(it.cancel_task(CancelTaskRequest(id=task)))
        told["followed again"] = await error(anext(it.subscribe(SubscribeToTaskRequest(id=task))))
        listed = MessageToDict(await it.list_tasks(ListTasksRequest(page_size=100)))
        told["listed"] = task in [each["id"] for each in listed["tasks"]]
        told["another"] = await error(it.get_task(GetTaskRequest(id=f"task_{'0' * 56}")))
        push = TaskPushNotificationConfig(task_id=task, url="http://127.0.0.1/")
        told["push"] = await error(it.create_task_push_notification_config(push))
    return told


async def polled() -> list[str]:
    """The states of a task that is not waited for, and of the same one when it is done."""
    async with client(streaming=False, polling=True) as it:
        [began] = [MessageToDict(event) async for event in it.send_message(said("hello a2a-poll"))]
        task = began["task"]
        while state(task) in {"SUBMITTED", "WORKING"}:
            await asyncio.sleep(0.01)
            task = MessageToDict(await it.get_task(GetTaskRequest(id=began["task"]["id"])))
        return [state(task), text(task)]


async def main() -> None:
    told = {"cards": await cards(), "tasks": await cut_and_cancelled(), "polled": await polled()}
    print(json.dumps(told))


asyncio.run(main())
