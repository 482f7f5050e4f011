"""From a request's body to a checked `Call`: every 400 of the native dialect.

Payloads are checked to be JSON and kept as the bytes they are: a huge or deeply nested one costs no
Python objects. Knows nothing of ASGI.

A member that is not known is refused, because what it asks for might change the answer and would
not be done. Ignored are members that ask for nothing: those that are null, and notes of a client's
own (`$schema`, `x-…`). What stands in a message or in the context is the agent's business, and
passes through.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from gateway.call import Call
from gateway.errors import InvalidRequest
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
from gateway.observe.tracecontext import read_trace_context
from protocol import MAX_INPUT_NESTING, as_one_line, on_one_line
from protocol.tools import check_resume, check_tools
from protocol.wording import Problem, read_mismatch

if TYPE_CHECKING:
    from gateway.front.dialect import RequestHead
    from protocol import Method


_MOST_NOTES_BYTES = 64 * 1024
"""Of a body beside what is used of it, where it has unknown members: to look at each of them costs
Python objects."""

_N = ord("n")
"""The first byte of `null`."""

_NULL = Raw(b"null")

_NOTHING: frozenset[str] = frozenset()
"""What most requests need of their agent."""


class InvokeBody(Struct, gc=False, forbid_unknown_fields=True):
    input: Raw | UnsetType = UNSET
    stream: bool | None = False
    context: Raw = _NULL
    events: bool | None = False
    tools: Raw = _NULL
    resume: Raw = _NULL


class ChatBody(Struct, gc=False, forbid_unknown_fields=True):
    messages: Raw | UnsetType = UNSET
    stream: bool | None = False
    context: Raw = _NULL
    events: bool | None = False
    tools: Raw = _NULL
    resume: Raw = _NULL


class _LooseInvokeBody(InvokeBody, gc=False, forbid_unknown_fields=False):
    pass


class _LooseChatBody(ChatBody, gc=False, forbid_unknown_fields=False):
    pass


class Context(Struct, gc=False):
    conversation_id: str | None = None
    user_id: str | None = None
    custom: Raw = _NULL


_DECODERS = {
    "invoke": (
        msgspec.json.Decoder(InvokeBody).decode,
        msgspec.json.Decoder(_LooseInvokeBody).decode,
    ),
    "chat": (msgspec.json.Decoder(ChatBody).decode, msgspec.json.Decoder(_LooseChatBody).decode),
}
"""Two decoders for each method: one refuses unknown members, the other passes over them."""
_decode_context = msgspec.json.Decoder(Context).decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode


def read_call(agent: str, method: Method, head: RequestHead, body: bytes) -> Call:
    """Check the body. Raises InvalidRequest and RequestTooLarge."""
    check_utf8(body)
    decoded: Any = _decode_body(method, body)
    payload = decoded.input if method == "invoke" else decoded.messages
    if payload is UNSET:
        raise _missing(method)
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
    context, body_id, user = _read_context(on_one_line(context))
    conversation = conversation_of(head, body_id)
    if conversation != body_id:
        context = _with_conversation(context, conversation)
    tools = resume = None
    if decoded.tools is not _NULL or decoded.resume is not _NULL:
        tools, resume = _read_array("tools", decoded.tools), _read_array("resume", decoded.resume)
    check_size(payload, context, more=len(tools or b"") + len(resume or b""))
    needs = _NOTHING
    if tools is not None or resume is not None:
        needs = _needs(tools, resume)
        if not decoded.events:
            name = "resume" if tools is None else "tools"
            raise InvalidRequest(
                f'{name!r} needs "events": true: without events the answer could not tell what '
                "the agent asks for"
            )
    return Call(
        agent=agent,
        method=method,
        payload=payload,
        stream=bool(decoded.stream),
        context=context,
        conversation=conversation,
        user=user,
        owner=head.owner,
        request_id=head.request_id,
        total=caller_timeout(head),
        events=bool(decoded.events),
        tools=tools,
        resume=resume,
        trace=read_trace_context(head.fields),
        needs=needs,
    )


_ARRAYS = {"tools": check_tools, "resume": check_resume}


def _read_array(name: str, value: Raw) -> bytes | None:
    """What stands in `tools` or `resume`; None if that is nothing. Raises InvalidRequest."""
    text = on_one_line(bytes(value))
    if text == b"null":
        return None
    if problem := _ARRAYS[name](text):
        raise InvalidRequest(problem)
    return text if text[1:-1].strip() else None


def _needs(tools: bytes | None, resume: bytes | None) -> frozenset[str]:
    given = {"tools": tools, "asks": resume}
    return frozenset(need for need, value in given.items() if value is not None)


def _missing(method: Method) -> InvalidRequest:
    if method == "invoke":
        return InvalidRequest("'input' is missing; expected {\"input\": …}")
    return InvalidRequest(
        '\'messages\' is missing; expected {"messages": [{"role": "user", "content": "…"}]}'
    )


def _decode_body(method: Method, body: bytes) -> Any:
    """Decode a whole body, without the unknown members that ask for nothing."""
    decode, decode_loosely = _DECODERS[method]
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        mismatch = read_mismatch(error)
        if mismatch.problem is not Problem.UNKNOWN_KEY:
            raise InvalidRequest(readable(error)) from None
    except (msgspec.DecodeError, RecursionError):
        return decode_body(decode, body)  # it explains what is wrong
    decoded = decode_body(decode_loosely, body)
    known = type(decoded).__struct_fields__
    if getattr(decoded, known[0]) is UNSET:
        raise _missing(method)
    values = [getattr(decoded, name) for name in known]
    used = sum(len(memoryview(value)) for value in values if isinstance(value, Raw))
    if len(body) - used > _MOST_NOTES_BYTES:
        unknown = [mismatch.subject.strip("`")]  # there may be a million, and one is enough
    else:
        unknown = [
            name
            for name, value in decode_body(_decode_members, body).items()
            if name not in known and not _asks_for_nothing(name, value)
        ]
    if unknown:
        names = ", ".join(repr(name[:80]) for name in unknown[:10])
        raise InvalidRequest(
            f"unknown in the body: {names}; expected {', '.join(known)} (a note of your own may be "
            "called 'x-…')",
            field=unknown[0][:80],
        )
    return decoded


def _asks_for_nothing(name: str, value: Raw) -> bool:
    return name == "$schema" or name.startswith("x-") or memoryview(value)[0] == _N


def _read_context(context: bytes) -> tuple[bytes, str | None, str | None]:
    """The context, the conversation that it names, and the user. Raises InvalidRequest."""
    if context == b"null":
        return b"{}", None, None
    try:
        decoded = _decode_context(context)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidRequest(readable(error, "context")) from None
    custom = bytes(decoded.custom)
    if custom[:1] not in b"{n":
        raise InvalidRequest("context.custom is not an object")
    return context, decoded.conversation_id, decoded.user_id


def _with_conversation(context: bytes, conversation: str | None) -> bytes:
    """The context with its `conversation_id`, last: of a key given twice the last counts."""
    members = context[:-1].rstrip()
    comma = b"" if members == b"{" else b","
    return b'%b%b"conversation_id":%b}' % (members, comma, msgspec.json.encode(conversation))
