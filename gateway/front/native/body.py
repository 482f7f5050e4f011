"""From a request's body to a checked `Call`: every 400 of the native dialect.

Payloads are checked to be JSON and kept as the bytes they are: a huge or deeply nested one costs no
Python objects. Knows nothing of ASGI.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from gateway.errors import InvalidRequest
from gateway.exchange import Call
from gateway.front.bodies import (
    are_plain,
    check_messages,
    check_nesting,
    check_size,
    check_utf8,
    decode_body,
    readable,
)
from gateway.front.dialect import caller_timeout, conversation_of
from protocol import MAX_INPUT_NESTING, as_one_line, on_one_line

if TYPE_CHECKING:
    from gateway.front.dialect import RequestHead
    from protocol import Method


class _InvokeBody(Struct, gc=False):
    input: Raw | UnsetType = UNSET
    stream: bool | None = False
    context: Raw = Raw(b"null")


class _ChatBody(Struct, gc=False):
    messages: Raw | UnsetType = UNSET
    stream: bool | None = False
    context: Raw = Raw(b"null")


class _Context(Struct, gc=False):
    conversation_id: str | None = None
    user_id: str | None = None
    custom: Raw = Raw(b"null")


_decode_invoke = msgspec.json.Decoder(_InvokeBody).decode
_decode_chat = msgspec.json.Decoder(_ChatBody).decode
_decode_context = msgspec.json.Decoder(_Context).decode


def read_call(agent: str, method: Method, head: RequestHead, body: bytes) -> Call:
    """Check the body. Raises InvalidRequest and RequestTooLarge."""
    check_utf8(body)
    decoded: Any = decode_body(_decode_invoke if method == "invoke" else _decode_chat, body)
    payload = decoded.input if method == "invoke" else decoded.messages
    if payload is UNSET:
        expected = (
            '{"input": …}'
            if method == "invoke"
            else '{"messages": [{"role": "user", "content": "…"}]}'
        )
        key = "input" if method == "invoke" else "messages"
        raise InvalidRequest(f"{key!r} is missing; expected {expected}")
    context = bytes(decoded.context)
    plain = method == "chat" and are_plain(payload)
    if plain and len(body) - len(memoryview(payload)) - len(context) <= 2 * MAX_INPUT_NESTING:
        # Whatever else the body holds is too short to nest that deeply.
        check_nesting(context, MAX_INPUT_NESTING - 1)
    else:
        check_nesting(body)
    payload = as_one_line(payload, source=body)
    if method == "chat" and not plain:
        check_messages(payload)
    context, body_id = _read_context(on_one_line(context))
    conversation = conversation_of(head, body_id)
    if conversation != body_id:
        context = _with_conversation(context, conversation)
    check_size(payload, context)
    return Call(
        agent=agent,
        method=method,
        payload=payload,
        stream=bool(decoded.stream),
        context=context,
        conversation=conversation,
        request_id=head.request_id,
        total=caller_timeout(head),
    )


def _read_context(context: bytes) -> tuple[bytes, str | None]:
    if context == b"null":
        return b"{}", None
    try:
        decoded = _decode_context(context)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidRequest(readable(error, "context")) from None
    custom = bytes(decoded.custom)
    if custom[:1] not in b"{n":
        raise InvalidRequest("context.custom is not an object")
    return context, decoded.conversation_id


def _with_conversation(context: bytes, conversation: str | None) -> bytes:
    """The context with its `conversation_id`, last: of a key given twice the last counts."""
    members = context[:-1].rstrip()
    comma = b"" if members == b"{" else b","
    return b'%b%b"conversation_id":%b}' % (members, comma, msgspec.json.encode(conversation))
