"""The client's tools: from Anthropic's form to the wire's, and which of them may be called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from gateway.front.bodies import readable
from gateway.front.chats.parameters import NOTHING, given
from gateway.front.chats.refusals import refuse, unsupported
from gateway.front.chats.tools import ToolName, named_choice, offer
from protocol.tools import MAX_TOOLS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.front.chats.tools import Choice, Tools

OWN_TYPE = "custom"
"""The type of a tool that the client has described itself. All others are Anthropic's, with a date
in their names: what they take is known to its models, and to no agent."""


class Tool(Struct, gc=False):
    """A tool of the client's; `strict`, `input_examples`, `cache_control`, `defer_loading` and what
    else it may hold say nothing that an agent needs to call it."""

    name: ToolName | None = None
    description: str | None = None
    input_schema: Raw = NOTHING
    type: str | None = None
    allowed_callers: list[str] | None = None


class ToolChoice(Struct, gc=False, forbid_unknown_fields=True):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


_decode_tools = msgspec.json.Decoder(Annotated[list[Tool], Meta(max_length=MAX_TOOLS)]).decode
_decode_choice = msgspec.json.Decoder(ToolChoice).decode

_BRACE = ord("{")


def read_tools(tools: Raw, choice: Raw) -> tuple[Tools, bool | None]:
    """Check `tools` and `tool_choice`. Returns also whether several tools may be called at once, if
    the client says so. Raises InvalidRequest."""
    functions = list(_functions(tools)) if given(tools) else []
    names = frozenset(function["name"] for function in functions)
    decoded = _read_choice(choice) if given(choice) else None
    if decoded is None:
        return offer(functions, None), None
    disabled = decoded.disable_parallel_tool_use
    parallel = None if disabled is None else not disabled
    return offer(functions, _choice(decoded, names)), parallel


def _functions(tools: Raw) -> Iterable[dict[str, Any]]:
    try:
        decoded = _decode_tools(tools)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise refuse(readable(error, "tools"), "tools") from None
    for index, tool in enumerate(decoded):
        place = f"tools[{index}]"
        if tool.type not in {None, OWN_TYPE}:
            raise unsupported(
                f"{place}.type",
                f"{str(tool.type)[:80]!r} is a tool that Anthropic defines; an agent is offered "
                "those that are described by an input_schema",
            )
        if tool.name is None:
            raise refuse(f"{place}.name is missing", f"{place}.name")
        if memoryview(tool.input_schema)[0] != _BRACE:
            found = "not an object" if given(tool.input_schema) else "missing"
            raise refuse(
                f"{place}.input_schema is {found}; expected a JSON Schema", f"{place}.input_schema"
            )
        if tool.allowed_callers is not None and "direct" not in tool.allowed_callers:
            raise unsupported(f"{place}.allowed_callers", "an agent calls tools directly")
        yield {
            "name": tool.name,
            "description": tool.description or "",
            "parameters": tool.input_schema,
        }


def _read_choice(choice: Raw) -> ToolChoice:
    try:
        return _decode_choice(choice)
    except (msgspec.MsgspecError, RecursionError):
        raise unsupported(
            "tool_choice",
            "expected an object of type 'auto', 'any', 'none', or of type 'tool' with the name of "
            "one of the tools",
        ) from None


def _choice(choice: ToolChoice, names: frozenset[str]) -> Choice:
    """In the words of chat completions."""
    if choice.type == "tool":
        return named_choice(choice.name, names)
    if choice.type == "any" and not names:
        raise refuse("tool_choice is of type 'any', and there are no tools", "tool_choice")
    return "required" if choice.type == "any" else choice.type
