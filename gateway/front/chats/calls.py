"""The tool calls of one answer, and which of them are the client's to make.

An agent tells of every call that it makes, also of those to tools of its own. A call is the
client's only if its tool is in the request, if nothing has been returned for it, and if the answer
ends with the finish `tool_calls`. So no call is told to the client before the end: a client that is
told of a call to a tool that it does not know fails.

A result belongs to a call that was told before it. Results of other ids say nothing, and are not
kept: an agent may send any number of them.
"""

from __future__ import annotations

import secrets
from io import StringIO
from typing import TYPE_CHECKING

from msgspec import Raw, Struct

from gateway.errors import InvalidAgentResponse

if TYPE_CHECKING:
    from protocol.events import ToolCall

MAX_HELD = 1024 * 1024
"""Characters of arguments that are kept of one answer until its end. Those of a call are in one
buffer: a model's come in pieces of a few characters, which is less than what each takes."""


class FunctionCall(Struct, frozen=True, gc=False):
    """A call that the client is to make; `arguments` is a JSON text."""

    id: str
    name: str
    arguments: str


def new_call_id() -> str:
    """An id for a call whose agent gave it none."""
    return f"call_{secrets.token_hex(12)}"


class Calls:
    """The calls of one answer to those tools whose `names` are in the request."""

    __slots__ = ("_arguments", "_held", "_named", "_names")

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self._named: dict[str, str] = {}
        """The name of each call, by its id: at most `protocol.events.MAX_CALLS`, which bounds the
        calls of every request."""
        self._arguments: dict[str, StringIO] = {}
        """The arguments of each that nothing was returned for."""
        self._held = 0

    @property
    def names(self) -> frozenset[str]:
        """Those of the client's tools."""
        return self._names

    def add(self, event: ToolCall) -> None:
        """Add a call, or a piece of its arguments. Raises InvalidAgentResponse."""
        if event.name not in self._names or self.is_answered(event.call):
            return
        piece = event.delta
        if not isinstance(piece, str):
            piece = bytes(event.arguments).decode() if isinstance(event.arguments, Raw) else "{}"
        self._held += len(piece)
        if self._held > MAX_HELD:
            raise InvalidAgentResponse(
                f"the arguments of the answer's tool calls are more than {MAX_HELD} characters "
                "together, the most that can be handed to the client"
            )
        self._named[event.call] = event.name
        self._arguments.setdefault(event.call, StringIO()).write(piece)

    def held(self, call: str) -> FunctionCall | None:
        """The call with that id, if it may yet be the client's."""
        arguments = self._arguments.get(call)
        if arguments is None:
            return None
        return FunctionCall(call, self._named[call], arguments.getvalue() or "{}")

    def answered(self, call: str) -> None:
        """Something was returned for a call: it was the agent's own, whatever is said of it yet."""
        arguments = self._arguments.pop(call, None)
        if arguments is not None:
            self._held -= len(arguments.getvalue())

    def is_answered(self, call: str) -> bool:
        """Whether something was returned for a call."""
        return call in self._named and call not in self._arguments

    def of_client(self) -> list[FunctionCall]:
        """The calls that the client is to make, once the answer has ended with `tool_calls`."""
        return [
            FunctionCall(call, self._named[call], arguments.getvalue() or "{}")
            for call, arguments in self._arguments.items()
        ]
