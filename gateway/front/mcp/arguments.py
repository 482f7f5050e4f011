"""From a tool's arguments to a checked `Call`. Raises InvalidRequest and RequestTooLarge."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from gateway.call import Call
from gateway.errors import InvalidRequest
from gateway.front.bodies import check_messages, check_size, readable
from gateway.front.dialect import caller_timeout, conversation_of
from gateway.front.mcp.tools import INPUT
from gateway.observe.tracecontext import read_trace_context
from protocol import on_one_line
from protocol.tools import check_resume

if TYPE_CHECKING:
    from gateway.front.dialect import RequestHead
    from protocol import Method


class _Chat(Struct, gc=False, forbid_unknown_fields=True):
    message: Raw | UnsetType = UNSET
    messages: Raw = Raw(b"null")
    conversation_id: str | None = None


class _Wrapped(Struct, gc=False, forbid_unknown_fields=True):
    input: Raw | UnsetType = UNSET


_decode_chat = msgspec.json.Decoder(_Chat).decode
_decode_wrapped = msgspec.json.Decoder(_Wrapped).decode


def read_call(
    head: RequestHead,
    agent: str,
    method: Method,
    arguments: bytes,
    *,
    wraps_input: bool,
    resume: bytes | None = None,
) -> Call:
    """The call that a tool with these arguments, a JSON object on one line, stands for. `resume`
    are the answers to an agent's questions."""
    conversation = None
    if method == "chat":
        payload, conversation = _read_chat(arguments)
    else:
        payload = _read_wrapped(arguments) if wraps_input else arguments
    conversation = conversation_of(head, conversation)
    context = b"{}"
    if conversation is not None:
        context = b'{"conversation_id":%b}' % msgspec.json.encode(conversation)
    check_size(payload, context, more=len(resume or b""))
    if resume is not None and (problem := check_resume(resume)):
        raise InvalidRequest(problem)
    return Call(
        agent=agent,
        method=method,
        payload=payload,
        stream=True,
        context=context,
        conversation=conversation,
        owner=head.owner,
        request_id=head.request_id,
        total=caller_timeout(head),
        events=True,
        resume=resume,
        trace=read_trace_context(head.fields),
        needs=frozenset() if resume is None else frozenset({"asks"}),
    )


def _read_wrapped(arguments: bytes) -> bytes:
    try:
        given = _decode_wrapped(arguments).input
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidRequest(f"{readable(error, 'arguments')}; expected {INPUT} alone") from None
    if given is UNSET:
        raise InvalidRequest(f"arguments: {INPUT} is missing", field=INPUT)
    return bytes(given)


def _read_chat(arguments: bytes) -> tuple[bytes, str | None]:
    try:
        given = _decode_chat(arguments)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidRequest(readable(error, "arguments")) from None
    if given.message is UNSET or bytes(given.message)[:1] != b'"':
        raise InvalidRequest("arguments: message is missing, or no string", field="message")
    message, before = bytes(given.message), on_one_line(bytes(given.messages)).strip()
    if before[:1] not in b"[n":
        raise InvalidRequest("arguments: messages is not a list", field="messages")
    earlier = b"" if before == b"null" else before[1:-1].strip()
    comma = b"," if earlier else b""
    payload = b'[%b%b{"role":"user","content":%b}]' % (earlier, comma, message)
    check_messages(payload)
    return payload, given.conversation_id
