"""The parts of a UI message, as a page sends them: one Struct for all types, by their members."""

from __future__ import annotations

from msgspec import Raw, Struct

from gateway.front.chats.parameters import NOTHING

_TOOL, _DYNAMIC = "tool-", "dynamic-tool"


class Approval(Struct, gc=False):
    """What the user is asked of a call, and has said."""

    id: str
    approved: bool | None = None
    reason: str | None = None


class Part(Struct, gc=False, rename="camel"):
    """A part of a message, of any type."""

    type: str
    text: str | None = None
    media_type: str | None = None
    filename: str | None = None
    url: str | None = None
    provider_reference: dict[str, Raw] | None = None
    tool_call_id: str | None = None
    tool_name: str | None = None
    state: str | None = None
    input: Raw = NOTHING
    output: Raw = NOTHING
    error_text: str | None = None
    provider_executed: bool | None = None
    approval: Approval | None = None
    data: Raw = NOTHING
    parts: Raw = NOTHING

    @property
    def tool(self) -> str | None:
        """The name of the tool whose call it is; None: it is no call."""
        if self.type == _DYNAMIC:
            return self.tool_name
        return self.type.removeprefix(_TOOL) if self.type.startswith(_TOOL) else None
