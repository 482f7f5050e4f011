"""The native dialect, described: see `gateway.front.described`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from gateway.front.bodies import Message
from gateway.front.described import (
    AgentView,
    Json,
    Part,
    call,
    described,
    errors_of,
    ref,
)
from gateway.front.dialect import MOST_CONVERSATION_ID
from gateway.front.native.body import ChatBody, Context, InvokeBody
from protocol.events import MAX_ASKS
from protocol.tools import MAX_TOOLS, Resumed, Tool

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_PREFIX = "Error"

_CONVERSATION = Annotated[str, Meta(max_length=MOST_CONVERSATION_ID)]

ChatMessage: Any = described(
    Message, "ChatMessage", content=str | list[Any] | dict[str, Any] | None
)
_Tool: Any = described(Tool, "Tool", parameters=dict[str, Any] | None)
_Resumed: Any = described(Resumed, "Resume", payload=Any)
_Context: Any = described(
    Context, "Context", conversation_id=_CONVERSATION | None, custom=dict[str, Any] | None
)

_SECOND_STEP = {
    "context": _Context | None,
    "tools": Annotated[list[_Tool], Meta(max_length=MAX_TOOLS)] | None,
    "resume": Annotated[list[_Resumed], Meta(max_length=MAX_ASKS)] | None,
}
"""By which type each member is checked that a body keeps as it came."""

Invoke = described(InvokeBody, "Invoke", input=Any, **_SECOND_STEP)
Chat = described(
    ChatBody,
    "Chat",
    messages=Annotated[list[ChatMessage], Meta(min_length=1)],
    **_SECOND_STEP,
)

_NOTES = {"patternProperties": {"^x-": {}}, "additionalProperties": {"type": "null"}}
"""Members that ask for nothing are ignored: see `body`."""

_STREAM = (
    'Server-Sent Events: `data: {"chunk": "…"}` for each piece, with `events` also `event: '
    "agent`, and `data: [DONE]` at the end. A stream that fails ends with `event: error`, whose "
    "data is an error's body, and without `[DONE]`."
)

_CHAT_EXAMPLE = {"messages": [{"role": "user", "content": "Hello"}]}

_WITH_EVENTS: Json = {
    "finish": {"type": ["string", "null"]},
    "usage": {"type": ["object", "null"]},
    "asks": {"type": "array"},
    "events": {"type": "array", "items": {"type": "object"}},
}
"""What a whole answer has beside `output` or `message` where the body asks for events."""


def describe(agents: Iterable[AgentView]) -> Part:
    """The paths of these agents, each with its own schemas."""
    paths: Json = {}
    schemas: Json = {"Error": _error(None)}
    for agent in agents:
        paths |= _paths_of(agent, schemas)
    return Part(
        paths=paths,
        types=(Invoke, Chat),
        schemas=schemas,
        responses=errors_of(_PREFIX, _error),
        tags=({"name": "agents", "description": "The native API: one path for each handler."},),
    )


def open_bodies(found: Json) -> None:
    """Let the schemas of bodies allow what the check passes over."""
    for kind in (Invoke, Chat):
        schema = found[kind.__name__]
        schema |= _NOTES
        schema["properties"]["$schema"] = {}


def _paths_of(agent: AgentView, schemas: Json) -> Json:
    paths: Json = {}
    more = {"tags": ["agents"]} | (
        {} if agent.description is None else {"description": agent.description}
    )
    if agent.has("invoke"):
        body: Json = ref(Invoke)
        output: Json | bool = True
        if agent.input is not None:
            schemas[f"{agent.name}.input"] = agent.input
            member = {"properties": {"input": ref(f"{agent.name}.input")}}
            body = {"allOf": [ref(Invoke), member]}
        if agent.output is not None:
            schemas[f"{agent.name}.output"] = agent.output
            output = ref(f"{agent.name}.output")
        answer = {
            "type": "object",
            "properties": {"output": output, **_WITH_EVENTS},
            "required": ["output"],
        }
        sample = sample_of(agent.input)
        paths[f"/agent/{agent.name}/invoke"] = {
            "post": call(
                f"Invoke {agent.name}",
                body,
                None if sample is None else {"input": sample},
                answer,
                stream=_STREAM,
                errors=_PREFIX,
                operationId=f"invoke_{agent.name}",
                **more,
            )
        }
    if agent.has("chat"):
        answer = {
            "type": "object",
            "properties": {"message": {"type": "object"}, **_WITH_EVENTS},
            "required": ["message"],
        }
        paths[f"/agent/{agent.name}/chat"] = {
            "post": call(
                f"Chat with {agent.name}",
                ref(Chat),
                _CHAT_EXAMPLE,
                answer,
                stream=_STREAM,
                errors=_PREFIX,
                operationId=f"chat_{agent.name}",
                **more,
            )
        }
    return paths


def _error(types: Sequence[str] | None) -> Json:
    kind: Json = {"type": "string"} if types is None else {"enum": list(types)}
    if types is not None:
        return {
            "allOf": [
                ref("Error"),
                {"properties": {"error": {"properties": {"type": kind}}}},
            ]
        }
    return {
        "type": "object",
        "properties": {
            "error": {
                "type": "object",
                "description": "What went wrong. Further members tell more of some errors.",
                "properties": {
                    "type": kind,
                    "message": {"type": "string"},
                    "request_id": {"type": "string"},
                    "output_begun": {"type": "boolean"},
                },
                "required": ["type", "message", "request_id"],
            }
        },
        "required": ["error"],
    }


_MOST_DEPTH = 5


_SAMPLES: Json = {"string": "Hello", "integer": 1, "number": 1.5, "boolean": True, "array": []}


def sample_of(schema: Any, depth: int = 0) -> Any:
    """A value that a schema may well allow, for a first try by hand; None where none is found."""
    if schema is None or schema is True:
        return "Hello"
    if not isinstance(schema, dict) or depth > _MOST_DEPTH:
        return None
    for name in ("const", "default"):
        if name in schema:
            return schema[name]
    for name in ("examples", "enum", "anyOf", "oneOf", "allOf"):
        if first := next(iter(schema.get(name, ())), None):
            return sample_of(first, depth + 1) if name.endswith("Of") else first
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = kind[0]
    if kind != "object":
        return _SAMPLES.get(kind) if isinstance(kind, str) else None
    properties = schema.get("properties", {})
    found = {
        name: sample_of(properties.get(name), depth + 1) for name in schema.get("required", [])
    }
    return found if None not in found.values() else None
