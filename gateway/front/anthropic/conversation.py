"""From `system` and `messages` to the messages of a chat, as agents get them.

| in the body | messages |
| --- | --- |
| `system` | `system`, the first |
| a message of the user, the assistant or `system` | the same role; blocks as parts, see `blocks` |
| `tool_use` of the assistant | in `tool_calls`, with the input as a JSON text |
| `tool_result` of the user | `tool`, before what else the user says; `FAILED` with `is_error` |
| `thinking`, `redacted_thinking` | nothing: what an agent told beside its answer is its own |

Messages of the assistant that follow one another are joined where one has only calls, as the API
takes them for one turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Raw, Struct

from gateway.front.anthropic.blocks import (
    SHOWN,
    parts_of,
    parts_of_one,
    read_blocks,
    unknown_block,
)
from gateway.front.bodies import readable
from gateway.front.chats.chat import Chat, of_parts
from gateway.front.chats.parameters import given, is_string
from gateway.front.chats.refusals import refuse

if TYPE_CHECKING:
    from gateway.front.anthropic.blocks import Block


class Turn(Struct, gc=False):
    """A message."""

    role: Literal["user", "assistant", "system"]
    content: Raw


_decode_turns = msgspec.json.Decoder(list[Turn]).decode

_OF_USER = (*SHOWN, "tool_result")
_OF_ASSISTANT = ("text", "tool_use", "thinking", "redacted_thinking")
_DROPPED = frozenset({"thinking", "redacted_thinking"})

_BRACE = ord("{")

FAILED = "Error:"
"""The text before what a tool has returned that failed: chat completions have no other sign."""


def read_conversation(messages: Raw, system: Raw) -> Chat:
    """Raises InvalidRequest."""
    chat = Chat("messages")
    if given(system):
        blocks = read_blocks(system, "system", chat)
        chat.add_text("system", of_parts(parts_of(blocks, "system", chat, ("text",))))
    try:
        turns = _decode_turns(messages)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise refuse(readable(error, "messages"), "messages") from None
    chat.count(len(turns))
    if not turns:
        raise refuse("'messages' is empty; expected at least one message", "messages")
    for index, turn in enumerate(turns):
        place = f"messages[{index}].content"
        if is_string(turn.content):
            chat.add_text(turn.role, turn.content)
            continue
        blocks = read_blocks(turn.content, place, chat)
        match turn.role:
            case "user":
                _add_user(chat, blocks, place)
            case "assistant":
                _add_assistant(chat, blocks, place)
            case "system":
                chat.add_text("system", of_parts(parts_of(blocks, place, chat, ("text",))))
    if not chat.messages:
        raise refuse("'messages' holds nothing that an agent is told", "messages")
    return chat


def _add_user(chat: Chat, blocks: list[Block], place: str) -> None:
    parts: list[dict[str, Any]] = []
    for index, block in enumerate(blocks):
        where = f"{place}[{index}]"
        if block.type == "tool_result":
            _add_result(chat, block, where)
        elif block.type in SHOWN:
            parts += parts_of_one(block, where, chat)
        else:
            raise unknown_block(block, where, _OF_USER)
    if parts or not blocks:
        chat.add_text("user", of_parts(parts) if parts else "")


def _add_result(chat: Chat, block: Block, place: str) -> None:
    if block.tool_use_id is None:
        raise refuse(f"{place}.tool_use_id is missing", f"{place}.tool_use_id")
    parts: list[dict[str, Any]] = []
    if given(block.content):
        blocks = read_blocks(block.content, f"{place}.content", chat)
        parts = parts_of(blocks, f"{place}.content", chat)
    if block.is_error:
        parts = _failed(parts)
    chat.add_result(block.tool_use_id, of_parts(parts) if parts else "")


def _failed(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same parts, with `FAILED` before the first text."""
    if not parts or parts[0]["type"] != "text":
        return [{"type": "text", "text": FAILED}, *parts]
    text = msgspec.json.encode(parts[0]["text"])
    failed = msgspec.json.encode(FAILED + " ")
    return [{"type": "text", "text": Raw(b"%b%b" % (failed[:-1], text[1:]))}, *parts[1:]]


def _add_assistant(chat: Chat, blocks: list[Block], place: str) -> None:
    said: list[dict[str, Any]] = []
    calls: list[tuple[str, str, str]] = []
    for index, block in enumerate(blocks):
        where = f"{place}[{index}]"
        if block.type == "text":
            said += parts_of_one(block, where, chat)
        elif block.type == "tool_use":
            calls.append(_call(block, where))
        elif block.type not in _DROPPED:
            raise unknown_block(block, where, _OF_ASSISTANT)
    if said:
        chat.add_text("assistant", of_parts(said))
    for call in calls:
        chat.add_call(*call)


def _call(block: Block, place: str) -> tuple[str, str, str]:
    """The call's id, the tool's name, and the arguments."""
    if block.id is None or block.name is None:
        missing = "id" if block.id is None else "name"
        raise refuse(f"{place}.{missing} is missing", f"{place}.{missing}")
    if memoryview(block.input)[0] != _BRACE:
        found = "not an object" if given(block.input) else "missing"
        raise refuse(f"{place}.input is {found}; expected an object", f"{place}.input")
    return block.id, block.name, bytes(block.input).decode()
