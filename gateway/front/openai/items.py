"""From the `input` and the `instructions` of Responses to the messages of a chat.

| item | messages |
| --- | --- |
| a string | a message of the user |
| `message`, with or without its `type` | a message; parts become those of chat completions |
| `function_call` | a call in `tool_calls` of an assistant's message, together with its neighbours |
| `function_call_output` | a message of the role `tool` |
| `item_reference` | what was said under that id, while it is remembered |
| `reasoning`, `image_generation_call` | nothing: what the agent told beside its answer is its own |

A content of one text becomes a string, which the simplest agents read. `instructions` are a first
message of the role `system`, and so is what has the role `developer`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw, Struct

from gateway.front.bodies import readable
from gateway.front.chats.chat import Chat, of_parts
from gateway.front.chats.parameters import NOTHING, given, is_string
from gateway.front.chats.refusals import refuse, unsupported

if TYPE_CHECKING:
    from collections.abc import Callable

    Recall = Callable[[str], bytes | None]

_ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}

_TEXTS = frozenset({"input_text", "output_text", "text", "summary_text"})

_DROPPED = frozenset({"reasoning", "image_generation_call"})

_BRACE = ord("{")

_REASONING_ID = "rs_"
"""How the ids of reasoning items begin, in OpenAI's API and here."""


class _Item(Struct, gc=False):
    type: str | None = None
    role: str | None = None
    content: Raw = NOTHING
    call_id: str | None = None
    name: str | None = None
    arguments: Raw = NOTHING
    output: Raw = NOTHING
    id: str | None = None


class _Part(Struct, gc=False):
    type: str
    text: Raw = NOTHING
    refusal: Raw = NOTHING
    image_url: Raw = NOTHING
    detail: str | None = None
    file_data: Raw = NOTHING
    filename: str | None = None
    input_audio: Raw = NOTHING


_decode_items = msgspec.json.Decoder(list[_Item]).decode
_decode_item = msgspec.json.Decoder(_Item).decode
_decode_parts = msgspec.json.Decoder(list[_Part]).decode


def read_input(items: Raw, instructions: Raw, recall: Recall) -> Chat:
    """`recall` gives what an item was that is only named. Raises InvalidRequest."""
    chat = Chat("input")
    if given(instructions):
        chat.add_text("system", _string(instructions, "instructions"))
    if is_string(items):
        chat.add_text("user", items)
        return chat
    try:
        decoded = _decode_items(items)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise refuse(readable(error, "input"), "input") from None
    chat.count(len(decoded))
    for index, item in enumerate(decoded):
        _add_item(chat, item, f"input[{index}]", recall)
    if not chat.messages:
        raise refuse("'input' holds no message; expected a string or items", "input")
    return chat


def _add_item(chat: Chat, item: _Item, place: str, recall: Recall) -> None:
    match item.type:
        case None if item.role is None and item.id is not None:
            _add_reference(chat, item.id, place, recall)
        case None | "message":
            if item.role not in _ROLES:
                raise refuse(
                    f"{place}.role is {str(item.role)[:80]!r}, expected one of {', '.join(_ROLES)}",
                    f"{place}.role",
                )
            content = _content(item.content, f"{place}.content", chat)
            chat.add_text(_ROLES[item.role], content)
        case "function_call":
            _add_call(chat, item, place)
        case "function_call_output":
            output = _content(item.output, f"{place}.output", chat)
            if item.call_id is None:
                raise refuse(f"{place}.call_id is missing", f"{place}.call_id")
            chat.add_result(item.call_id, output)
        case "item_reference":
            if item.id is None:
                raise refuse(f"{place}.id is missing", f"{place}.id")
            _add_reference(chat, item.id, place, recall)
        case kind if kind not in _DROPPED:
            raise unsupported(
                f"{place}.type",
                f"{kind[:80]!r} is of a custom tool, or a tool that OpenAI runs; none is here",
            )


def _add_reference(chat: Chat, item_id: str, place: str, recall: Recall) -> None:
    if item_id.startswith(_REASONING_ID):
        return
    item = recall(item_id)
    if item is None:
        raise refuse(
            f"{place}: item {item_id[:80]!r} not found: the gateway remembers what was said only "
            "for a while; send the item itself (in the AI SDK: `store: false`)",
            place,
            "item_not_found",
        )
    _add_item(chat, _decode_item(item), place, recall)


def _add_call(chat: Chat, item: _Item, place: str) -> None:
    if item.call_id is None or item.name is None:
        missing = "call_id" if item.call_id is None else "name"
        raise refuse(f"{place}.{missing} is missing", f"{place}.{missing}")
    chat.add_call(item.call_id, item.name, _string(item.arguments, f"{place}.arguments"))


def _content(content: Raw, place: str, chat: Chat) -> Any:
    """A content as chat completions have it: a string, or parts."""
    if is_string(content):
        return content
    try:
        parts = _decode_parts(content)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise refuse(readable(error, place), place) from None
    chat.count(len(parts))
    return of_parts(
        [_part(part, f"{place}[{index}]", chat.modes) for index, part in enumerate(parts)]
    )


def _part(part: _Part, place: str, modes: set[str]) -> dict[str, Any]:
    match part.type:
        case kind if kind in _TEXTS:
            return {"type": "text", "text": _string(part.text, f"{place}.text")}
        case "refusal":
            return {"type": "text", "text": _string(part.refusal, f"{place}.refusal")}
        case "input_image":
            modes.add("image")
            url = _string(part.image_url, f"{place}.image_url")
            detail = {} if part.detail is None else {"detail": part.detail}
            return {"type": "image_url", "image_url": {"url": url, **detail}}
        case "input_file":
            modes.add("file")
            data = _string(part.file_data, f"{place}.file_data")
            name = {} if part.filename is None else {"filename": part.filename}
            return {"type": "file", "file": {**name, "file_data": data}}
        case "input_audio":
            modes.add("audio")
            if memoryview(part.input_audio)[0] != _BRACE:
                raise refuse(f"{place}.input_audio: expected an object", f"{place}.input_audio")
            return {"type": "input_audio", "input_audio": part.input_audio}
    raise refuse(
        f"{place}.type is {part.type[:80]!r}, expected input_text, output_text, refusal, "
        "input_image, input_file or input_audio",
        f"{place}.type",
    )


def _string(value: Raw, place: str) -> Raw:
    """A member that must be a string. (The gateway keeps no files: there are no ids of any.)"""
    if not is_string(value):
        found = "missing" if not given(value) else "not a string"
        raise refuse(f"{place} is {found}; expected a string", place)
    return value
