"""From a request's headers and body to a checked `Call`: every 400 and 415 of the two hot routes.

Payloads are checked to be JSON and kept as the bytes they are; a huge or deeply nested one costs no
Python objects. Knows nothing of ASGI.
"""

from __future__ import annotations

import itertools
import math
import re
import secrets
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from gateway.errors import InvalidRequest, UnsupportedMediaType
from gateway.exchange import Call
from protocol import MAX_INPUT_NESTING, ROLES, Role, as_payload, is_utf8, nests_deeper

if TYPE_CHECKING:
    from collections.abc import Iterable

    from protocol import Method, Payload

_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}\Z")
"""What of a client's `X-Request-Id` is taken over: visible ASCII, so that it can stand in a header
and in a line of the log."""

_SHORT_BYTES = 64 * 1024
"""Messages up to this are decoded with their contents, which takes a few times as much memory; of
longer ones the contents are only looked at."""

_TOO_DEEP = f"the body nests arrays and objects deeper than {MAX_INPUT_NESTING}"

_OWN_IDS = itertools.count(1)
_OWN_PREFIX = secrets.token_hex(4)


class _Message(Struct, gc=False):
    """As much of a chat message as is looked at; the reference API's "Message Roles"."""

    role: Role
    content: Raw = Raw(b"null")


class _PlainMessage(Struct, gc=False, forbid_unknown_fields=True):
    """The same of a message that holds strings and nothing else, as most do."""

    role: Role
    content: str | None = None
    name: str | None = None
    tool_call_id: str | None = None


class _InvokeBody(Struct, gc=False):
    input: Raw | UnsetType = UNSET
    stream: bool = False
    context: Raw = Raw(b"null")


class _ChatBody(Struct, gc=False):
    messages: Raw | UnsetType = UNSET
    stream: bool = False
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


class RequestHead(Struct, gc=False):
    """What the headers of a request say, as far as it matters."""

    request_id: str
    content_type: bytes | None = None
    content_encoding: bytes | None = None
    content_length: int = 0
    has_body: bool = False
    timeout: bytes | None = None


def read_head(headers: Iterable[tuple[bytes, bytes]]) -> RequestHead:
    """Look through the headers once. Never fails: what is wrong with one is said later."""
    head = RequestHead(request_id="")
    for name, value in headers:
        if name == b"content-type":
            head.content_type = value
        elif name == b"content-length":
            head.content_length = int(value) if value.isdigit() else 0
            head.has_body = head.content_length > 0
        elif name == b"transfer-encoding":
            head.has_body = True
        elif name == b"content-encoding":
            head.content_encoding = value
        elif name == b"x-request-id":
            if _REQUEST_ID.match(value):
                head.request_id = value.decode("ascii")
        elif name == b"x-timeout":
            head.timeout = value
    if not head.request_id:
        head.request_id = new_request_id()
    return head


def new_request_id() -> str:
    """An id that no other request of this or of another gateway has."""
    return f"{_OWN_PREFIX}-{next(_OWN_IDS):x}"


def check_media_type(head: RequestHead) -> None:
    """Raises UnsupportedMediaType for anything but JSON.

    A type must be given: a browser sends a form or plain text to any address, this one too, without
    asking first, and JSON only after asking (Fetch standard, "CORS-safelisted request-header").
    """
    if head.content_encoding is not None and head.content_encoding.strip() != b"identity":
        raise UnsupportedMediaType(
            f"Content-Encoding {_shown(head.content_encoding)} is not supported; send plain JSON"
        )
    if head.content_type is None:
        raise UnsupportedMediaType("no Content-Type; expected application/json")
    kind, _, parameters = head.content_type.lower().partition(b";")
    kind = kind.strip()
    if kind != b"application/json" and not kind.endswith(b"+json"):
        raise UnsupportedMediaType(
            f"Content-Type is {_shown(head.content_type)}, expected application/json"
        )
    charset = parameters.strip().replace(b'"', b"")
    if charset.startswith(b"charset=") and charset not in {b"charset=utf-8", b"charset=us-ascii"}:
        raise UnsupportedMediaType(f"{_shown(charset)} is not supported, expected charset=utf-8")


def read_call(agent: str, method: Method, head: RequestHead, body: bytes) -> Call:
    """Check the body. Raises InvalidRequest."""
    # msgspec takes the bytes of a Raw value as they are; the agent would be handed them.
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
    # An agent that answers with its input must not thereby break the protocol for all its requests.
    if plain and len(body) - len(memoryview(payload)) - len(context) <= 2 * MAX_INPUT_NESTING:
        # What stands beside the two is too short to nest so deeply.
        too_deep = nests_deeper(context, MAX_INPUT_NESTING - 1)
    else:
        too_deep = nests_deeper(body, MAX_INPUT_NESTING)
    if too_deep:
        raise InvalidRequest(_TOO_DEEP)
    payload = bytes(payload) if b"\n" in body else as_payload(payload)
    if method == "chat" and not plain:
        _check_messages(payload)
    context, conversation = _read_context(context)
    return Call(
        agent=agent,
        method=method,
        payload=payload,
        stream=decoded.stream,
        context=context,
        conversation=conversation,
        request_id=head.request_id,
        total=_read_timeout(head.timeout),
    )


def _decode(decode: Any, body: bytes) -> Any:
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        raise InvalidRequest(_readable(str(error))) from None
    except RecursionError:
        raise InvalidRequest(_TOO_DEEP) from None
    except msgspec.DecodeError as error:
        if body[:3] == b"\xef\xbb\xbf":
            raise InvalidRequest("the body starts with a byte-order mark; remove it") from None
        reason = str(error).removeprefix("JSON is malformed: ") if body.strip() else "it is empty"
        raise InvalidRequest(f"the body is not JSON: {reason}") from None


def _are_plain(messages: Raw) -> bool:
    """Whether they are short, all well, at least one, and nest nothing."""
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
    """Which message it is, which msgspec does not tell."""
    try:
        messages = _decode_list(payload)
    except (msgspec.MsgspecError, RecursionError):
        return "'messages' is not a list; expected a list of messages"
    for index, message in enumerate(messages):
        try:
            _decode_message(bytes(message))
        except (msgspec.MsgspecError, RecursionError) as error:
            return _readable(str(error), f"messages[{index}]")
    raise AssertionError("messages that cannot be decoded, one by one can")


def _read_context(context: bytes) -> tuple[bytes, str | None]:
    if context == b"null":
        return b"{}", None
    try:
        decoded = _decode_context(context)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidRequest(_readable(str(error), "context")) from None
    custom = bytes(decoded.custom)
    if custom[:1] not in b"{n":
        raise InvalidRequest("context.custom is not an object")
    return context, decoded.conversation_id


def _read_timeout(value: bytes | None) -> float:
    if value is None:
        return math.inf
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise InvalidRequest(f"X-Timeout is {_shown(value)}, expected seconds, more than 0")
    return seconds


def _readable(reason: str, place: str = "") -> str:
    """msgspec's words, with the place in front: `messages[2].role: invalid enum value 'bot'`."""
    reason, _, path = reason.partition(" - at `")
    where = f"{place}{path.rstrip('`').removeprefix('$')}".lstrip(".")
    if reason.startswith("Invalid enum value"):
        reason += f", expected one of {', '.join(ROLES)}"
    return f"{where or 'the body'}: {reason[:1].lower()}{reason[1:]}"


def _shown(value: bytes) -> str:
    return repr(value[:80].decode("latin-1"))
