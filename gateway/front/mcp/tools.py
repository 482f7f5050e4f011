"""The agents as tools: their names, what they take and what they give.

    agent `echo` ─┬─ echo_invoke   its input is the arguments, if it is declared to be an object
                  └─ echo_chat     {"message": …, "messages": […], "conversation_id": …}

An input that may be something else than an object stands in a member `input`, an output in `result`
(the protocol has objects only, but for its newest version).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec
from msgspec import Struct

from gateway.front.mcp.schemas import accepts_objects_only, plain_text, shown_schema, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterable

    from protocol import Method, Ready

    Json: TypeAlias = dict[str, Any]

MOST_PAGE_BYTES = 1024 * 1024
"""Of the tools on one page of the list."""

MOST_PAGE_TOOLS = 1000

INPUT = "input"
RESULT = "result"

METHODS: tuple[Literal["invoke"], Literal["chat"]] = ("invoke", "chat")

CHAT_INPUT: Json = {
    "type": "object",
    "properties": {
        "message": {"type": "string", "description": "What to say to the agent."},
        "messages": {
            "type": "array",
            "description": "What was said before, oldest first, where the agent does not know it.",
            "items": {
                "type": "object",
                "properties": {
                    "role": {"type": "string", "enum": ["system", "user", "assistant"]},
                    "content": {"type": "string"},
                },
                "required": ["role", "content"],
            },
        },
        "conversation_id": {
            "type": "string",
            "description": "The same in every call of one conversation; any name.",
        },
    },
    "required": ["message"],
}

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.encode


class Shapes(Struct, frozen=True):
    """What an agent's declared schemas are for its tool of invokes."""

    input: Json
    output: Json | None
    """None: none is declared."""
    wraps_input: bool
    wraps_output: bool


class AgentTools(Struct, frozen=True):
    """The tools of one agent, each as a JSON text, by their names in the order of the list."""

    ready: Ready | None
    """That they were made of."""
    shapes: Shapes
    listed: dict[str, bytes]


def name_of(agent: str, method: Method) -> str:
    """The name of an agent's tool. Agents' names hold letters, digits, `-` and `_`."""
    return f"{agent}_{method}"


def read_name(name: str) -> tuple[str, Method] | None:
    """The agent and the handler that a tool stands for; None: there is no such tool."""
    agent, _, handler = name.rpartition("_")
    for method in METHODS:
        if agent and handler == method:
            return agent, method
    return None


def make_tools(agent: str, ready: Ready | None, description: str | None) -> AgentTools:
    """The tools of an agent, whose last worker has declared `ready`, if any did."""
    shapes = _shapes(ready)
    listed = {}
    for method in METHODS:
        if ready is None or method in ready.handlers:
            tool = _tool(agent, method, shapes, description)
            listed[tool["name"]] = _encode(tool)
    return AgentTools(ready, shapes, listed)


def _tool(agent: str, method: Method, shapes: Shapes, description: str | None) -> Json:
    about = plain_text(description or "")
    does = "Chats with" if method == "chat" else "Calls"
    tool: Json = {
        "name": name_of(agent, method),
        "title": f"{agent}: {method}",
        "description": about or f"{does} the agent {agent}.",
        "inputSchema": CHAT_INPUT if method == "chat" else shapes.input,
    }
    if method == "invoke" and shapes.output is not None:
        tool["outputSchema"] = shapes.output
    return tool


def _shapes(ready: Ready | None) -> Shapes:
    takes = _schema(None if ready is None else ready.input)
    gives = _schema(None if ready is None else ready.output)
    wraps_input = not accepts_objects_only(takes)
    wraps_output = gives is not None and not accepts_objects_only(gives)
    shown = shown_schema(takes)
    if wraps_input:
        shown = wrapped(shown, INPUT, "The agent's input: any JSON value.")
    output = None
    if gives is not None:
        output = shown_schema(gives)
        if wraps_output:
            output = wrapped(output, RESULT, "The agent's output.")
    return Shapes(shown, output, wraps_input=wraps_input, wraps_output=wraps_output)


def _schema(text: bytes | None) -> object:
    if text is None:
        return None
    try:
        return _decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return {}


def page_of(tools: Iterable[tuple[str, bytes]], after: str) -> tuple[list[bytes], str | None]:
    """The tools whose names come after `after`, of those sorted by name; and after which the next
    page begins, None if this is the last."""
    page: list[bytes] = []
    size, last = 0, after
    for name, text in tools:
        if name <= after:
            continue
        if page and (size + len(text) > MOST_PAGE_BYTES or len(page) >= MOST_PAGE_TOOLS):
            return page, last
        page.append(text)
        size += len(text)
        last = name
    return page, None
