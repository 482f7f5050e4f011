"""The messages of a chat, put together from a client protocol's own forms."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from gateway.front.chats.refusals import refuse

MOST_THINGS = 10_000
"""Messages, items and parts of one request: each becomes a message, or a part of one."""


class Chat(Struct):
    """Messages as agents get them, and what an agent must take to be given them."""

    param: str
    """The member of the body that they are made from."""
    messages: list[dict[str, Any]] = field(default_factory=list)
    modes: set[str] = field(default_factory=set)
    things: int = 0
    """Messages, items and parts so far."""

    def count(self, things: int) -> None:
        """Raises InvalidRequest."""
        self.things += things
        if self.things > MOST_THINGS:
            raise refuse(f"{self.param!r} has more than {MOST_THINGS} items and parts", self.param)

    def add_text(self, role: str, content: Any) -> None:
        """Add what was said: a string or parts."""
        last = self._last_of_assistant()
        if role == "assistant" and last is not None and last["content"] is None:
            last["content"] = content  # said beside its calls, whichever came first
        else:
            self.messages.append({"role": role, "content": content})

    def add_call(self, call_id: str, name: str, arguments: Any) -> None:
        """Add a call of a tool; `arguments` are a JSON text in a string."""
        last = self._last_of_assistant()
        if last is None:
            last = {"role": "assistant", "content": None}
            self.messages.append(last)
        function = {"name": name, "arguments": arguments}
        call = {"id": call_id, "type": "function", "function": function}
        last.setdefault("tool_calls", []).append(call)

    def add_result(self, call_id: str, content: Any) -> None:
        """Add what a tool has returned: a string or parts."""
        self.messages.append({"role": "tool", "tool_call_id": call_id, "content": content})

    def _last_of_assistant(self) -> dict[str, Any] | None:
        last = self.messages[-1] if self.messages else None
        return last if last is not None and last["role"] == "assistant" else None


def of_parts(parts: list[dict[str, Any]]) -> Any:
    """A content: a string where it is one text, which the simplest agents read."""
    if len(parts) == 1 and parts[0]["type"] == "text":
        return parts[0]["text"]
    return parts
