"""The messages of a run's input: from AG-UI's form to that of chat completions, which agents get.

| role | message |
| --- | --- |
| `user`, `assistant`, `system`, `tool` | the same |
| `developer` | `system` |
| `reasoning`, `activity` | none: what the agent told beside its answer is not given back to it |

Each keeps its `id` and its `name`. A content of one text becomes a string, which the simplest
agents read.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta, Raw, Struct

from gateway.errors import InvalidRequest
from gateway.front.ag_ui.content import TextPart, convert, read_parts
from gateway.front.ag_ui.errors import refuse
from gateway.front.bodies import readable
from protocol.events import MAX_ID

MOST_THINGS = 10_000
"""Messages, parts and tool calls of one input: each becomes an object here."""

_Content: TypeAlias = Annotated[Raw, Meta(extra_json_schema={"type": ["string", "array"]})]
"""A string, or a list of parts; `content` reads those."""

_QUOTE, _BRACKET = b'"['


class Function(Struct, gc=False):
    name: str
    arguments: str


class ToolCall(Struct, gc=False):
    id: str
    function: Function
    type: Literal["function"] = "function"


class SystemMessage(Struct, gc=False, tag_field="role", tag="system"):
    id: str
    content: str
    name: str | None = None


class DeveloperMessage(SystemMessage, gc=False, tag_field="role", tag="developer"):
    pass


class UserMessage(Struct, gc=False, tag_field="role", tag="user"):
    id: str
    content: _Content
    name: str | None = None


class AssistantMessage(Struct, gc=False, rename="camel", tag_field="role", tag="assistant"):
    id: str
    content: str | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None


class ToolMessage(Struct, gc=False, rename="camel", tag_field="role", tag="tool"):
    id: str
    content: _Content
    tool_call_id: str
    error: str | None = None


class ReasoningMessage(Struct, gc=False, tag_field="role", tag="reasoning"):
    id: str


class ActivityMessage(Struct, gc=False, tag_field="role", tag="activity"):
    id: str


Message: TypeAlias = (
    SystemMessage
    | DeveloperMessage
    | UserMessage
    | AssistantMessage
    | ToolMessage
    | ReasoningMessage
    | ActivityMessage
)

_decode_messages = msgspec.json.Decoder(list[Message]).decode


class Conversation(Struct):
    """The messages of an input, as the agent gets them, and what must be known of them."""

    messages: list[dict[str, Any]] = []
    modes: set[str] = set()
    """What an agent must have declared to be given them."""
    calls: dict[str, str | None] = {}
    """The tool calls in them by their ids: the name of each without a result, None for one that
    has a result. Only ids that an agent could use as well: `protocol.events.MAX_ID`."""
    things: int = 0

    def add(self, message: Message, place: str) -> None:
        """Raises InvalidRequest."""
        self.count(1)
        match message:
            case SystemMessage(content=content):
                self._say("system", message, content)
            case UserMessage(content=content):
                self._say("user", message, self._content(content, f"{place}.content"))
            case AssistantMessage(content=content, tool_calls=calls):
                more: dict[str, Any] = {}
                if calls:
                    self.count(len(calls))
                    more["tool_calls"] = calls
                    self.calls |= {c.id: c.function.name for c in calls if len(c.id) <= MAX_ID}
                self._say("assistant", message, content, **more)
            case ToolMessage(content=content, tool_call_id=call, error=error):
                more = {"tool_call_id": call}
                if error is not None:
                    more["error"] = error
                if call in self.calls:
                    self.calls[call] = None
                self._say("tool", message, self._content(content, f"{place}.content"), **more)

    def count(self, things: int) -> None:
        """Raises InvalidRequest."""
        self.things += things
        if self.things > MOST_THINGS:
            raise refuse(f"more than {MOST_THINGS} messages, parts and tool calls", "messages")

    def _say(self, role: str, message: Message, content: Any, **more: Any) -> None:
        said = {"role": role, "id": message.id, "content": content, **more}
        name = getattr(message, "name", None)
        self.messages.append(said if name is None else {**said, "name": name})

    def _content(self, content: Raw, place: str) -> Any:
        first = memoryview(content)[0]
        if first == _QUOTE:
            return content
        if first != _BRACKET:
            raise refuse("expected a string or a list of parts", place)
        parts = read_parts(content, place)
        self.count(len(parts))
        if len(parts) == 1 and isinstance(parts[0], TextPart):
            return parts[0].text
        converted = []
        for index, part in enumerate(parts):
            part_for_agent, mode = convert(part, f"{place}[{index}]")
            converted.append(part_for_agent)
            if mode is not None:
                self.modes.add(mode)
        return converted


def read_messages(messages: Raw) -> Conversation:
    """Check and convert the messages of an input. Raises InvalidRequest."""
    try:
        decoded = _decode_messages(messages)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidRequest(readable(error, "messages"), field="messages") from None
    conversation = Conversation()
    for index, message in enumerate(decoded):
        conversation.add(message, f"messages[{index}]")
    if not conversation.messages:
        raise refuse("expected at least one of a user, a system, a tool or an agent", "messages")
    return conversation
