"""The client's tools, as an agent is offered them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import msgspec
from msgspec import Meta, Struct

from gateway.front.chats.refusals import refuse
from protocol.tools import check_tools

if TYPE_CHECKING:
    from collections.abc import Sequence

ToolName: TypeAlias = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")]
"""OpenAI's and Anthropic's rule, with the longer names and the dots that tools of MCP servers
have."""

Choice: TypeAlias = str | dict[str, Any] | None
"""What the agent is told of the choice among the tools: None, "none", "auto", "required", or the
object by which chat completions name a function."""


class Tools(Struct, frozen=True, gc=False):
    """The tools that an agent may call, and what it is told of the choice among them."""

    wire: bytes | None = None
    """The JSON text for `Call.tools`; None: there are no tools, or none may be called."""
    names: frozenset[str] = frozenset()
    choice: Choice = None


def offer(functions: Sequence[dict[str, Any]], choice: Choice) -> Tools:
    """Offer functions in the form of the wire, unless the choice is not to call any. Raises
    InvalidRequest."""
    if not functions or choice == "none":
        return Tools(choice=choice)
    wire = msgspec.json.encode(functions)
    if (problem := check_tools(wire)) is not None:
        raise refuse(problem, "tools")
    return Tools(wire, frozenset(function["name"] for function in functions), choice)


def named_choice(name: str | None, names: frozenset[str]) -> Choice:
    """The choice of the one tool with that name. Raises InvalidRequest."""
    if name not in names:
        raise refuse(
            f"tool_choice names {str(name)[:80]!r}, which is not one of the tools", "tool_choice"
        )
    return {"type": "function", "function": {"name": name}}
