"""What a client brings beside its request: tools of its own, and answers to questions.

Both are JSON arrays that pass through as the client's own bytes. Checked is what an agent relies on
and what a dialect reads. Which tool calls are the client's, its tools decide (`tool_names`): a
worker calls tools of its own as well, and those must never be handed to the client.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta, Raw, Struct

from .events import MAX_ASKS, MAX_ID, MAX_TOOL_NAME
from .messages import JSON
from .payloads import MAX_REASON, as_bytes, kind

MAX_TOOLS = 128
"""Tools of one request: what OpenAI allows."""

MAX_BYTES = 1024 * 1024
"""Of the tools, and of the answers, of one request as JSON text each. It is looked at before the
text is decoded: a body may hold a million of them."""

MAX_TOOL_DESCRIPTION = 16 * 1024
"""Characters."""

_Id: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_ID)]


class Tool(Struct, gc=False):
    name: Annotated[str, Meta(min_length=1, max_length=MAX_TOOL_NAME)]
    description: Annotated[str, Meta(max_length=MAX_TOOL_DESCRIPTION)] | None = None
    parameters: Raw = Raw(b"null")


class Resumed(Struct, gc=False):
    id: _Id
    status: Literal["resolved", "cancelled"] = "resolved"
    payload: Raw = Raw(b"null")


_decode_tools = msgspec.json.Decoder(Annotated[list[Tool], Meta(max_length=MAX_TOOLS)]).decode
_decode_resume = msgspec.json.Decoder(Annotated[list[Resumed], Meta(max_length=MAX_ASKS)]).decode


def check_tools(tools: JSON) -> str | None:
    """What is wrong with the tools of a client, or None."""
    if len(tools) > MAX_BYTES:
        return f"tools: {len(tools)} bytes, expected at most {MAX_BYTES}"
    try:
        decoded = _decode_tools(tools)
    except (msgspec.MsgspecError, RecursionError) as error:
        return f"tools: {str(error)[:MAX_REASON]}"
    if len({tool.name for tool in decoded}) < len(decoded):
        return "tools: two have the same name"
    for index, tool in enumerate(decoded):
        found = kind(as_bytes(tool.parameters))
        if found not in {"an object", "null"}:
            return f"tools[{index}].parameters is {found}, expected an object, a JSON Schema"
    return None


def tool_names(tools: JSON | None) -> frozenset[str]:
    """The names of a client's tools, which have passed `check_tools`."""
    return frozenset() if tools is None else frozenset(tool.name for tool in _decode_tools(tools))


def check_resume(resume: JSON) -> str | None:
    """What is wrong with a client's answers to questions, or None."""
    if len(resume) > MAX_BYTES:
        return f"resume: {len(resume)} bytes, expected at most {MAX_BYTES}"
    try:
        decoded = _decode_resume(resume)
    except (msgspec.MsgspecError, RecursionError) as error:
        return f"resume: {str(error)[:MAX_REASON]}"
    if len({answer.id for answer in decoded}) < len(decoded):
        return "resume: two answers are for the same ask"
    for index, answer in enumerate(decoded):
        # An agent that looks at the payload alone would take a withdrawn "yes" for one.
        if answer.status == "cancelled" and as_bytes(answer.payload) != b"null":
            return f"resume[{index}]: a cancelled answer has a payload, expected none"
    return None
