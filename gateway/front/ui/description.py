"""The UI message stream as it is served here, described: see `gateway.front.described`.

What a part of each type may hold is checked where it is read, and described in the README beside
this file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from gateway.front.chats.tools import ToolName
from gateway.front.described import (
    ANY_ROUTE,
    AgentView,
    Json,
    Part,
    call,
    described,
    error_responses,
    errors_of,
    headers,
    parameters,
    ref,
)
from gateway.front.ui.messages import UIMessage
from gateway.front.ui.request import ChatBody, Tool
from protocol.events import MAX_ASKS
from protocol.tools import MAX_TOOLS, Resumed

if TYPE_CHECKING:
    from collections.abc import Iterable

_PREFIX = "UIError"

_PART = Annotated[
    dict[str, Any],
    Meta(extra_json_schema={"properties": {"type": {"type": "string"}}, "required": ["type"]}),
]

_Message: Any = described(UIMessage, "UIMessage", parts=list[_PART])
_Tool: Any = described(Tool, "UITool", input_schema=dict[str, Any] | None)
_Answer: Any = described(Resumed, "UIAnswer", payload=Any)

SendMessages = described(
    ChatBody,
    "UIChat",
    messages=Annotated[list[_Message], Meta(min_length=1)],
    tools=Annotated[dict[ToolName, _Tool], Meta(max_length=MAX_TOOLS)] | None,
    resume=Annotated[list[_Answer], Meta(max_length=MAX_ASKS)] | None,
)

_STREAM = (
    "A UI message stream, version 1: each event's data is a part, of which the last is `finish`, "
    "before `[DONE]`. A stream that fails ends with a part `error`, and without these."
)

_EXAMPLE = {
    "id": "c1",
    "trigger": "submit-message",
    "messages": [
        {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "Hello"}]},
    ],
}


def describe(agents: Iterable[AgentView]) -> Part:
    """The paths of these agents."""
    paths: Json = {}
    for agent in agents:
        if agent.has("chat"):
            paths |= _paths_of(agent.name)
    return Part(
        paths=paths,
        types=(SendMessages,),
        responses=errors_of(_PREFIX, _error, kind="text/plain"),
        tags=(
            {"name": "ui", "description": "The AI SDK's UI message stream, for pages (`useChat`)."},
        ),
    )


def _paths_of(agent: str) -> Json:
    operation = call(
        f"Chat with {agent}",
        ref(SendMessages),
        _EXAMPLE,
        {},
        stream=_STREAM,
        errors=_PREFIX,
        operationId=f"ui_{agent}",
        tags=["ui"],
    )
    answered = operation["responses"]["200"]
    answered["description"] = "The answer, which is always a stream."
    del answered["content"]["application/json"]
    return {f"/ui/{agent}": {"post": operation}, f"/ui/{agent}/{{chat}}/stream": {"get": _resume()}}


def _resume() -> Json:
    chat = {"name": "chat", "in": "path", "required": True, "schema": {"type": "string"}}
    return {
        "summary": "Come back for the stream of a chat",
        "tags": ["ui"],
        "parameters": [chat, *parameters("X-Request-Id")],
        "responses": {
            "200": {
                "description": "The stream, from its beginning.",
                "headers": headers("X-Request-Id", "X-Run-Id"),
                "content": {"text/event-stream": {"schema": {"description": _STREAM}}},
            },
            "204": {"description": "There is none, or it was read to its end."},
            **error_responses(_PREFIX, (*ANY_ROUTE, 410, 503)),
        },
    }


def _error(types: object) -> Json:
    del types
    return {"type": "string", "description": "The message. `X-Error-Type` has the error's type."}
