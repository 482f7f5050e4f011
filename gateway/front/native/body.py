"""From a request's body to a checked `Call`: every 400 of the native dialect.

Payloads are checked to be JSON and kept as the bytes they are: a huge or deeply nested one costs no
Python objects. Knows nothing of ASGI.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from gateway.errors import InvalidRequest, RequestTooLarge
from gateway.exchange import Call
from gateway.front.dialect import caller_timeout, conversation_of
from protocol import (
    MAX_INPUT_NESTING,
    MAX_REQUEST_BYTES,
    ROLES,
    Role,
    as_one_line,
    is_utf8,
    nests_deeper,
    on_one_line,
)
from protocol.wording import Problem, read_mismatch, why_malformed

if TYPE_CHECKING:
    from gateway.front.dialect import RequestHead
    from protocol import Method, Payload

_SHORT_BYTES = 64 * 1024
"""Messages up to this size are decoded with their contents, which takes a few times their size in
memory; the contents of longer ones are only skimmed."""

_TOO_DEEP = f"the body nests arrays and objects deeper than {MAX_INPUT_NESTING}"


class _Message(Struct, gc=False):
    """What is checked of a chat message; the roles are the reference API's "Message Roles"."""

    role: Role
    content: Raw = Raw(b"null")


class _PlainMessage(Struct, gc=False, forbid_unknown_fields=True):
    """A chat message that holds strings and nothing else, as most do."""

    role: Role
    content: str | None = None
    name: str | None = None
    tool_call_id: str | None = None


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
_decode_messages = msgspec.json.Decoder(list[_Message]).decode
_decode_plain_messages = msgspec.json.Decoder(list[_PlainMessage]).decode
_decode_message = msgspec.json.Decoder(_Message).decode
_decode_list = msgspec.json.Decoder(list[Raw]).decode


def read_call(agent: str, method: Method, head: RequestHead, body: bytes) -> Call:
    """Check the body. Raises InvalidRequest and RequestTooLarge."""
    # msgspec does not check the bytes inside a Raw value, and they go to the agent as they are.
    if not is_utf8(body):
        raise InvalidRequest("the body is not UTF-8")
    decoded: Any = _decode(_decode_invoke if method == "invoke" else _decode_chat, body)
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
    plain = method == "chat" and _are_plain(payload)
    # Bounded so that an agent may answer with its input, inside an envelope, and not thereby break
    # the wire protocol, which ends all requests of its worker.
    if plain and len(body) - len(memoryview(payload)) - len(context) <= 2 * MAX_INPUT_NESTING:
        # Whatever else the body holds is too short to nest that deeply.
        too_deep = nests_deeper(context, MAX_INPUT_NESTING - 1)
    else:
        too_deep = nests_deeper(body, MAX_INPUT_NESTING)
    if too_deep:
        raise InvalidRequest(_TOO_DEEP)
    payload = as_one_line(payload, source=body)
    if method == "chat" and not plain:
        _check_messages(payload)
    context, body_id = _read_context(on_one_line(context))
    conversation = conversation_of(head, body_id)
    if conversation != body_id:
        context = _with_conversation(context, conversation)
    if (length := len(payload) + len(context)) > MAX_REQUEST_BYTES:
        # What is escaped so that the request is one line takes more bytes than before.
        raise RequestTooLarge(
            f"the body makes {length} bytes for the agent, and the most is {MAX_REQUEST_BYTES}"
        )
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


def _decode(decode: Any, body: bytes) -> Any:
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        raise InvalidRequest(_readable(error)) from None
    except RecursionError:
        raise InvalidRequest(_TOO_DEEP) from None
    except msgspec.DecodeError as error:
        if body[:3] == b"\xef\xbb\xbf":
            raise InvalidRequest("the body starts with a byte-order mark; remove it") from None
        reason = why_malformed(error) if body.strip() else "it is empty"
        raise InvalidRequest(f"the body is not JSON: {reason}") from None


def _are_plain(messages: Raw) -> bool:
    """Whether the messages are short, valid, at least one, and nest nothing."""
    if len(memoryview(messages)) > _SHORT_BYTES:
        return False
    try:
        return bool(_decode_plain_messages(messages))
    except msgspec.MsgspecError:
        return False


def _check_messages(payload: Payload) -> None:
    try:
        messages = _decode_messages(payload)
    except (msgspec.MsgspecError, RecursionError):
        raise InvalidRequest(_what_is_wrong(payload)) from None
    if not messages:
        raise InvalidRequest("'messages' is empty; expected at least one message")
    for index, message in enumerate(messages):
        if memoryview(message.content)[0] not in b'"[{n':
            raise InvalidRequest(
                f"messages[{index}].content is {bytes(message.content)[:20].decode()}, "
                "expected a string, a list, an object or null"
            )


def _what_is_wrong(payload: Payload) -> str:
    """Find the first message that is wrong: msgspec does not tell which one it was."""
    try:
        messages = _decode_list(payload)
    except (msgspec.MsgspecError, RecursionError):
        return "'messages' is not a list; expected a list of messages"
    for index, message in enumerate(messages):
        try:
            _decode_message(bytes(message))
        except (msgspec.MsgspecError, RecursionError) as error:
            return _readable(error, f"messages[{index}]")
    raise AssertionError("messages that cannot be decoded, one by one can")


def _read_context(context: bytes) -> tuple[bytes, str | None]:
    if context == b"null":
        return b"{}", None
    try:
        decoded = _decode_context(context)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidRequest(_readable(error, "context")) from None
    custom = bytes(decoded.custom)
    if custom[:1] not in b"{n":
        raise InvalidRequest("context.custom is not an object")
    return context, decoded.conversation_id


def _with_conversation(context: bytes, conversation: str | None) -> bytes:
    """The context with its `conversation_id`, last: of a key given twice the last counts."""
    members = context[:-1].rstrip()
    comma = b"" if members == b"{" else b","
    return b'%b%b"conversation_id":%b}' % (members, comma, msgspec.json.encode(conversation))


def _readable(error: Exception, place: str = "") -> str:
    """A mismatch with its place in front: `messages[2].role: invalid enum value 'bot', …`."""
    mismatch = read_mismatch(error)
    where = f"{place}{mismatch.path}".lstrip(".") or "the body"
    reason = mismatch.sentence[:1].lower() + mismatch.sentence[1:]
    if mismatch.problem is Problem.NOT_A_CHOICE:
        reason += f", expected one of {', '.join(ROLES)}"
    return f"{where}: {reason}"
