"""An answer that came as one chat message, and not as chunks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw, Struct

from gateway.front.openai.calls import FunctionCall, new_call_id

if TYPE_CHECKING:
    from protocol import Payload


class _Message(Struct, gc=False):
    content: Raw = Raw(b"null")
    tool_calls: Raw = Raw(b"null")
    reasoning_content: Raw = Raw(b"null")


class _Part(Struct, gc=False):
    text: str


class _Function(Struct, gc=False):
    name: str
    arguments: Raw = Raw(b'"{}"')


class _ToolCall(Struct, gc=False):
    function: _Function
    id: str | None = None


_decode_message = msgspec.json.Decoder(_Message).decode
_decode_parts = msgspec.json.Decoder(list[_Part | str]).decode
_decode_calls = msgspec.json.Decoder(list[_ToolCall]).decode
_decode_text = msgspec.json.Decoder(str).decode

EMPTY = b'""'


class Message(Struct, frozen=True, gc=False):
    """`text` and `reasoning` are JSON strings."""

    text: bytes
    reasoning: bytes | None
    calls: list[FunctionCall]


def read_message(result: Payload, names: frozenset[str]) -> Message:
    """Read a message that the wire has checked to be one.

    Of its `tool_calls`, in OpenAI's form, those to the tools in `names` are the client's to make;
    others are the agent's own.
    """
    message = _decode_message(result)
    reasoning = bytes(message.reasoning_content)
    return Message(
        text=_text_of(bytes(message.content)),
        reasoning=reasoning if reasoning[:1] == b'"' else None,
        calls=_calls_of(message.tool_calls, names),
    )


def _text_of(content: bytes) -> bytes:
    """The text of a content: strings and parts with a text are joined, anything else is shown as
    the JSON text that it is."""
    if content[:1] == b'"':
        return content
    if content == b"null":
        return EMPTY
    try:
        parts = _decode_parts(content)
    except (msgspec.MsgspecError, RecursionError):
        return msgspec.json.encode(content.decode())
    texts = [part if isinstance(part, str) else part.text for part in parts]
    return msgspec.json.encode("".join(texts))


def _calls_of(calls: Raw, names: frozenset[str]) -> list[FunctionCall]:
    if not names:
        return []
    try:
        decoded = _decode_calls(calls)
    except (msgspec.MsgspecError, RecursionError):
        return []
    return [
        FunctionCall(
            each.id or new_call_id(), each.function.name, _arguments_of(each.function.arguments)
        )
        for each in decoded
        if each.function.name in names
    ]


def _arguments_of(arguments: Raw) -> str:
    """Arguments as OpenAI has them: a JSON text in a string, where many write the object itself."""
    text = bytes(arguments)
    return _decode_text(text) if text[:1] == b'"' else text.decode()
