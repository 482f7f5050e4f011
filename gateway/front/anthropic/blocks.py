"""Content blocks of what a client sends, as the parts of chat completions.

| block | parts |
| --- | --- |
| `text` | `text` |
| `image` | `image_url`, with a data URL where the data is in the block |
| `document` with base64 | `file` |
| `document` with text or blocks | these |
| `search_result` | `text`, with the title and the source before it |

A document's title and context, and a search result's title and source, are a text before it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw, Struct

from gateway.front.bodies import readable
from gateway.front.chats.parameters import NOTHING, given, is_string
from gateway.front.chats.refusals import refuse, unsupported

if TYPE_CHECKING:
    from gateway.errors import InvalidRequest
    from gateway.front.chats.chat import Chat

    Part = dict[str, Any]


class Block(Struct, gc=False):
    """A content block of any type."""

    type: str
    text: Raw = NOTHING
    source: Raw = NOTHING
    title: str | None = None
    context: str | None = None
    citations: Raw = NOTHING
    content: Raw = NOTHING
    id: str | None = None
    name: str | None = None
    input: Raw = NOTHING
    tool_use_id: str | None = None
    is_error: bool | None = None


class _Source(Struct, gc=False):
    type: str
    media_type: str = ""
    data: Raw = NOTHING
    url: Raw = NOTHING
    content: Raw = NOTHING


class _Citations(Struct, gc=False):
    enabled: bool | None = None


_decode_blocks = msgspec.json.Decoder(list[Block]).decode
_decode_source = msgspec.json.Decoder(_Source).decode
_decode_citations = msgspec.json.Decoder(_Citations).decode
_decode_text = msgspec.json.Decoder(str).decode

_MEDIA_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+", re.ASCII)

_DOCUMENT = "document"
"""The name of a file that was given no title."""

SHOWN = ("text", "image", "document", "search_result")
"""The types of blocks that are shown to an agent."""


def read_blocks(content: Raw, place: str, chat: Chat) -> list[Block]:
    """The blocks of a content; a string is a block of text. Raises InvalidRequest."""
    if is_string(content):
        return [Block("text", content)]
    try:
        blocks = _decode_blocks(content)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise refuse(readable(error, place), place) from None
    chat.count(len(blocks))
    return blocks


def parts_of(
    blocks: list[Block], place: str, chat: Chat, allowed: tuple[str, ...] = SHOWN
) -> list[Part]:
    """The parts for all blocks, each of which must be of a type in `allowed`. Raises
    InvalidRequest."""
    parts: list[Part] = []
    for index, block in enumerate(blocks):
        where = f"{place}[{index}]"
        if block.type not in allowed:
            raise unknown_block(block, where, allowed)
        parts += parts_of_one(block, where, chat)
    return parts


def unknown_block(block: Block, place: str, allowed: tuple[str, ...]) -> InvalidRequest:
    """A 400 for a block that nothing can be made of."""
    return unsupported(
        f"{place}.type",
        f"{block.type[:80]!r} cannot be given to an agent; expected one of {', '.join(allowed)}",
    )


def parts_of_one(block: Block, place: str, chat: Chat) -> list[Part]:
    """The parts for a block whose type is in `SHOWN`. Raises InvalidRequest."""
    match block.type:
        case "text":
            return [_text(string(block.text, f"{place}.text"))]
        case "image":
            return [_image(_source(block, place), f"{place}.source", chat)]
        case "document":
            return _document(block, place, chat)
        case _:
            return _search_result(block, place, chat)


def _text(text: Raw | str) -> Part:
    return {"type": "text", "text": text}


def _image(source: _Source, place: str, chat: Chat) -> Part:
    chat.modes.add("image")
    match source.type:
        case "base64":
            url = _data_url(source, place)
        case "url":
            url = string(source.url, f"{place}.url")
        case kind:
            raise _unknown_source(kind, place, "base64 and url")
    return {"type": "image_url", "image_url": {"url": url}}


def _document(block: Block, place: str, chat: Chat) -> list[Part]:
    _refuse_citations(block, place)
    source, within = _source(block, place), f"{place}.source"
    match source.type:
        case "base64":
            chat.modes.add("file")
            file = {"filename": block.title or _DOCUMENT, "file_data": _data_url(source, within)}
            return [*_heading(block.context), {"type": "file", "file": file}]
        case "text":
            found = [_text(string(source.data, f"{within}.data"))]
        case "content":
            inner = read_blocks(source.content, f"{within}.content", chat)
            found = parts_of(inner, f"{within}.content", chat, ("text", "image"))
        case kind:
            raise _unknown_source(kind, within, "base64, text and content")
    return [*_heading(block.title, block.context), *found]


def _search_result(block: Block, place: str, chat: Chat) -> list[Part]:
    _refuse_citations(block, place)
    source = _decode_text(string(block.source, f"{place}.source"))
    inner = read_blocks(block.content, f"{place}.content", chat)
    found = parts_of(inner, f"{place}.content", chat, ("text",))
    return [*_heading(block.title, source), *found]


def _heading(*lines: str | None) -> list[Part]:
    said = [line for line in lines if line]
    return [_text("\n".join(said))] if said else []


def _refuse_citations(block: Block, place: str) -> None:
    if not given(block.citations):
        return
    try:
        enabled = _decode_citations(block.citations).enabled
    except (msgspec.MsgspecError, RecursionError) as error:
        raise refuse(readable(error, f"{place}.citations"), f"{place}.citations") from None
    if enabled:
        raise unsupported(f"{place}.citations", "an agent does not tell where its words are from")


def _source(block: Block, place: str) -> _Source:
    try:
        return _decode_source(block.source)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise refuse(readable(error, f"{place}.source"), f"{place}.source") from None


def _unknown_source(kind: str, place: str, expected: str) -> InvalidRequest:
    return unsupported(
        f"{place}.type",
        f"{kind[:80]!r} is not supported, {expected} are: the gateway keeps and fetches no files",
    )


def _data_url(source: _Source, place: str) -> Raw:
    """A data URL (RFC 2397), a JSON string."""
    if _MEDIA_TYPE.fullmatch(source.media_type) is None:
        raise refuse(
            f"{place}.media_type is {source.media_type[:80]!r}, expected a media type",
            f"{place}.media_type",
        )
    data = memoryview(string(source.data, f"{place}.data"))
    return Raw(b"".join((b'"data:', source.media_type.encode(), b";base64,", data[1:])))


def string(value: Raw, place: str) -> Raw:
    """A member that must be a string. Raises InvalidRequest."""
    if not is_string(value):
        found = "not a string" if given(value) else "missing"
        raise refuse(f"{place} is {found}; expected a string", place)
    return value
