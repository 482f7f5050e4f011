"""The client's tools: from OpenAI's forms to the wire's, and which of them may be called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from gateway.front.bodies import readable
from gateway.front.chats.parameters import NOTHING, given
from gateway.front.chats.refusals import refuse, unsupported
from gateway.front.chats.tools import ToolName, offer
from gateway.front.openai.parameters import read_tool_choice
from protocol.tools import MAX_TOOLS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.front.chats.tools import Tools


class ToolFunction(Struct, gc=False):
    """A function; `strict` and what else it may hold say nothing that an agent needs to call it."""

    name: ToolName
    description: str | None = None
    parameters: Raw = NOTHING


class Tool(Struct, gc=False):
    """A tool of chat completions."""

    type: str
    function: ToolFunction | None = None


class FlatTool(Struct, gc=False):
    """A tool of Responses: the function's members stand beside the type."""

    type: str
    name: ToolName | None = None
    description: str | None = None
    parameters: Raw = NOTHING

    # Refused, unless they ask for what is anyway.
    asynchronous: bool | None = msgspec.field(default=None, name="async")
    allowed_callers: list[str] | None = None


_decode_tools = msgspec.json.Decoder(Annotated[list[Tool], Meta(max_length=MAX_TOOLS)]).decode
_decode_flat_tools = msgspec.json.Decoder(
    Annotated[list[FlatTool], Meta(max_length=MAX_TOOLS)]
).decode


def read_tools(tools: Raw, choice: Raw, *, flat: bool) -> Tools:
    """Check `tools` and `tool_choice`; `flat`: they are of Responses. Raises InvalidRequest."""
    functions = list(_functions(tools, flat=flat)) if given(tools) else []
    names = frozenset(function["name"] for function in functions)
    return offer(functions, read_tool_choice(choice, names))


def _functions(tools: Raw, *, flat: bool) -> Iterable[dict[str, Any]]:
    try:
        decoded: list[Any] = (_decode_flat_tools if flat else _decode_tools)(tools)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise refuse(readable(error, "tools"), "tools") from None
    for index, tool in enumerate(decoded):
        if tool.type != "function":
            raise unsupported(
                f"tools[{index}].type",
                f"{tool.type[:80]!r} is a custom tool, or a tool that OpenAI runs; an agent is "
                "offered functions",
            )
        if flat:
            _check_calling(tool, f"tools[{index}]")
        function = tool if flat else tool.function
        if function is None or function.name is None:
            raise refuse(f"tools[{index}] has no name", f"tools[{index}]")
        yield {
            "name": function.name,
            "description": function.description or "",
            "parameters": function.parameters if given(function.parameters) else {},
        }


def _check_calling(tool: FlatTool, place: str) -> None:
    """Raises InvalidRequest for a way of calling that agents do not have."""
    if tool.asynchronous:
        raise unsupported(f"{place}.async", "the answer ends with a call, until its output is sent")
    if tool.allowed_callers is not None and "direct" not in tool.allowed_callers:
        raise unsupported(f"{place}.allowed_callers", "an agent calls tools directly")
