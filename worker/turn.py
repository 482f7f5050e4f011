"""A turn: what the handler of one request says beside text, and how its answer ends because of it.

# Theory of operation

A handler yields text and events. Text goes the way it always went (`answer.chunk_encoder`); each
event comes to `note`. Reasoning, tool calls and their results, statuses and files become lines of
the wire at once, in their place among the chunks. Usage, a finish and questions are kept: they are
the answer's `Outcome`, which travels with its end.

A caller who did not ask for events gets none, and no outcome. What was yielded is checked all the
same, so that a mistake is found by whoever tries the agent first. A question is the one thing that
such a caller would miss: its message is text for them.

A tool call is the *client's* if the request's `tools` have its name. Such a call without a result
when the handler ends makes the finish `tool_calls`; any question makes it `input_required`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from protocol import LocalProtocolError, Method, Outcome
from protocol.events import MAX_ASKS, check_asks, read_event, read_usage
from protocol.tools import tool_names
from protocol.worker_side import WorkerConnection

from .events import (
    Ask,
    Event,
    Finish,
    ToolCall,
    ToolResult,
    Usage,
    encode_event,
    event_of,
    explain,
    tool_call,
)
from .messages import describe, to_plain


class Turn:
    """One request's answer while it is given. See the module's docstring."""

    __slots__ = ("_answered", "_asks", "_names", "_usage", "connection", "events", "finish", "id",
                 "method", "tools")  # fmt: skip

    def __init__(
        self,
        connection: WorkerConnection,
        request_id: int,
        method: Method,
        *,
        events: bool = False,
        tools: bytes | None = None,
    ) -> None:
        self.connection = connection
        self.id = request_id
        self.method: Method = method
        self.events = events
        """Whether the caller asked for more than text."""
        self.tools = tools
        """The client's tools, as JSON text."""
        self.finish: str | None = None
        """Why the answer ends, as far as the handler said so."""
        self._usage: dict[str, int] = {}
        self._asks: list[bytes] = []
        self._answered: dict[str, bool] = {}
        """Whether a result was told, for each call of a client's tool."""
        self._names: frozenset[str] | None = None

    def __repr__(self) -> str:
        waiting = f"{len(self._answered)} calls, {len(self._asks)} questions"
        return f"<Turn {self.id}, {'events' if self.events else 'text'}, {waiting}>"

    def note(self, event: Event | Mapping[str, Any]) -> bytes:
        """The line to send for an event, or for a dict that stands for one; or nothing.

        Raises TypeError or ValueError, worded for the agent's author, for an event that cannot be
        sent.
        """
        try:
            if isinstance(event, Event):
                return self._note(event)
            if event["type"] == "usage":
                self.add_usage(_read_counts(event))
                return b""
            return self._note(event_of(event))
        except TypeError as error:
            raise TypeError(self._unsent(event, error)) from None
        except (ValueError, LocalProtocolError) as error:
            raise ValueError(self._unsent(event, error)) from None

    def add_usage(self, counts: Mapping[str, int]) -> None:
        """Add to what the answer has used: names and counts of tokens."""
        for name, count in counts.items():
            self._usage[name] = self._usage.get(name, 0) + count

    def outcome(self) -> Outcome | None:
        """What is said with the end of the answer; None if there is nothing to say."""
        if self._asks:
            finish: str | None = "input_required"
        elif not all(self._answered.values()):
            finish = "tool_calls"
        else:
            finish = self.finish
        if not self.events or (finish is None and not self._usage):
            return None
        usage = msgspec.json.encode(self._usage) if self._usage else None
        asks = b"[%b]" % b",".join(self._asks) if self._asks else None
        return Outcome(finish, usage, asks)

    def _note(self, event: Event | Raw) -> bytes:
        text = bytes(event) if isinstance(event, Raw) else encode_event(event)
        match event:
            case Usage():
                self.add_usage(msgspec.json.decode(text, type=dict[str, int]))
            case Finish():
                self.finish = event.reason
            case Ask():
                check_asks(b"[%b]" % text)
                if len(self._asks) >= MAX_ASKS:
                    raise ValueError(f"more than {MAX_ASKS} questions in one turn")
                self._asks.append(text)
                if not self.events:
                    return self.connection.send_chunk(self.id, event.message)
            case _ if self.events:
                line = self.connection.send_event(self.id, Raw(text))
                self._follow(event)
                return line
            case _:
                read_event(text)
        return b""

    def _follow(self, event: Event | Raw) -> None:
        """Keep account of the client's calls. More pieces of one may come after its result."""
        if isinstance(event, ToolCall) and event.name in self._client_tools():
            self._answered.setdefault(event.call, False)
        elif isinstance(event, ToolResult) and event.call in self._answered:
            self._answered[event.call] = True

    def _client_tools(self) -> frozenset[str]:
        if self._names is None:
            self._names = tool_names(self.tools)
        return self._names

    def _unsent(self, event: object, error: Exception) -> str:
        why = _WIRE_NAMES.sub("", str(error))
        if why != str(error):
            name = type(event).__name__ if isinstance(event, Event) else "it"
            why = explain(name, ValueError(why.replace("`$[0]", "`$")))
        return f"an event of the {self.method} handler cannot be sent: {why}"


_WIRE_NAMES = re.compile(r"^(an event|asks): ")
"""How an error of the wire begins that is about a member."""


class _Function(Struct):
    name: str
    arguments: str | dict[str, Any] = ""


class _MessageCall(Struct):
    """A member of a message's `tool_calls`, as OpenAI's API has it."""

    id: str
    function: _Function


_OPENAI_COUNTS: dict[str, str] = {
    "prompt_tokens": "input_tokens",
    "completion_tokens": "output_tokens",
}


def take_apart(turn: Turn, message: Mapping[str, Any]) -> tuple[bytes, Mapping[str, Any]]:
    """Lines for the tool calls of a message, and the message without them, its usage and its
    finish.

    Nothing is taken for a caller who did not ask for events: the message is theirs as it is. Raises
    TypeError or ValueError, worded for the agent's author.
    """
    if not turn.events or not message.keys() & {"tool_calls", "usage", "finish"}:
        return b"", message
    rest = dict(message)
    calls, usage = rest.pop("tool_calls", None), rest.pop("usage", None)
    finish = rest.pop("finish", None)
    if finish is not None and not isinstance(finish, str):
        raise TypeError(f"a message's finish is {describe(finish)}, expected str")
    turn.finish = finish or turn.finish
    if usage is not None:
        turn.add_usage(_counts(usage))
    lines = b"".join(turn.note(call) for call in _calls(calls or ()))
    if lines and rest.get("content") is None:
        rest["content"] = ""  # else a stream would have the JSON text of what is left
    return lines, rest


def _read_counts(usage: Mapping[str, Any]) -> dict[str, int]:
    """The counts of a dict that stands for a usage, of whatever names."""
    text = msgspec.json.encode({name: usage[name] for name in usage if name != "type"})
    return msgspec.json.decode(read_usage(text), type=dict[str, int])


def _counts(usage: Any) -> dict[str, int]:
    if isinstance(usage, Usage):
        return msgspec.json.decode(encode_event(usage), type=dict[str, int])
    if not isinstance(usage, Mapping):
        raise TypeError(f"a message's usage is {describe(usage)}, expected Usage or a dict")
    return {
        _OPENAI_COUNTS.get(str(name), str(name)): count
        for name, count in usage.items()
        if type(count) is int
    }


def _calls(calls: object) -> list[ToolCall]:
    try:
        read = msgspec.convert(msgspec.to_builtins(calls, enc_hook=to_plain), list[_MessageCall])
    except (msgspec.MsgspecError, TypeError) as error:
        raise TypeError(f"a message's tool_calls: {error}") from None
    return [tool_call(each.id, each.function.name, each.function.arguments) for each in read]
