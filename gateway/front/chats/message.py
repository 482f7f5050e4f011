"""An answer that came as one chat message, and not as chunks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw, Struct

from gateway.errors import InvalidAgentResponse
from gateway.front.chats.calls import FunctionCall, new_call_id

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
    function: _Function | None = None
    id: str | None = None
    type: str = "function"


_decode_message = msgspec.json.Decoder(_Message).decode
_decode_parts = msgspec.json.Decoder(list[_Part | str]).decode
_decode_calls = msgspec.json.Decoder(list[_ToolCall] | None).decode
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
    others are the agent's own. Where there are `names`, raises InvalidAgentResponse for a call that
    is malformed: without it the answer would look whole.
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
        found = [_function_call(each, names) for each in _decode_calls(calls) or ()]
    except (ValueError, RecursionError) as error:  # of msgspec among them
        raise InvalidAgentResponse(
            f"the message's tool_calls are malformed: {error}; expected a list of "
            '{"id": …, "type": "function", "function": {"name": …, "arguments": "…"}}'
        ) from None
    return [call for call in found if call is not None]


def _function_call(call: _ToolCall, names: frozenset[str]) -> FunctionCall | None:
    """The call, if it is the client's to make. Raises ValueError."""
    if call.type != "function":
        return None
    if call.function is None:
        raise ValueError("a call without a function")
    name = call.function.name
    if name not in names:
        return None
    return FunctionCall(call.id or new_call_id(), name, _arguments_of(call.function.arguments))


def _arguments_of(arguments: Raw) -> str:
    """Arguments as OpenAI has them: a JSON text in a string, where many write the object itself.
    Raises ValueError."""
    text = bytes(arguments)
    if text[:1] == b'"':
        return _decode_text(text)
    if text == b"null":
        return "{}"
    if text[:1] != b"{":
        raise ValueError("arguments that are neither a string nor an object")
    return text.decode()
