"""What the bodies of requests have in common in every dialect: JSON, chat messages, their bounds.

Payloads are checked to be JSON and kept as the bytes they are: a huge or deeply nested one costs no
Python objects. Every function raises InvalidRequest for what does not fit, with the place where it
stands. Knows nothing of ASGI, and no client protocol.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw, Struct

from gateway.errors import InvalidRequest, RequestTooLarge
from protocol import MAX_INPUT_NESTING, MAX_REQUEST_BYTES, ROLES, Role, is_utf8, nests_deeper
from protocol.wording import Problem, read_mismatch, why_malformed

if TYPE_CHECKING:
    from collections.abc import Callable

    from protocol import Payload

_SHORT_BYTES = 64 * 1024
"""Messages up to this size are decoded with their contents, which takes a few times their size in
memory; the contents of longer ones are only skimmed."""

_TOO_DEEP = f"the body nests arrays and objects deeper than {MAX_INPUT_NESTING}"


class Message(Struct, gc=False):
    """What is checked of a chat message; the roles are the reference API's "Message Roles"."""

    role: Role
    content: Raw = Raw(b"null")


class _PlainMessage(Struct, gc=False, forbid_unknown_fields=True):
    """A chat message that holds strings and nothing else, as most do."""

    role: Role
    content: str | None = None
    name: str | None = None
    tool_call_id: str | None = None


_decode_messages = msgspec.json.Decoder(list[Message]).decode
_decode_plain_messages = msgspec.json.Decoder(list[_PlainMessage]).decode
_decode_message = msgspec.json.Decoder(Message).decode
_decode_list = msgspec.json.Decoder(list[Raw]).decode


def check_utf8(body: bytes) -> None:
    """Check a whole body: msgspec does not check the bytes inside a Raw value, and these go to the
    agent as they are."""
    if not is_utf8(body):
        raise InvalidRequest("the body is not UTF-8")


def refusal(error: Exception) -> InvalidRequest:
    """The 400 for a body that does not fit its type."""
    return InvalidRequest(readable(error))


def decode_body(
    decode: Any, body: bytes, refuse: Callable[[Exception], InvalidRequest] = refusal
) -> Any:
    """Decode a whole body by a decoder of msgspec's. `refuse` tells what does not fit its type."""
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        raise refuse(error) from None
    except RecursionError:
        raise InvalidRequest(_TOO_DEEP) from None
    except msgspec.DecodeError as error:
        if body[:3] == b"\xef\xbb\xbf":
            raise InvalidRequest("the body starts with a byte-order mark; remove it") from None
        reason = why_malformed(error) if body.strip() else "it is empty"
        raise InvalidRequest(f"the body is not JSON: {reason}") from None


def check_nesting(text: bytes, limit: int = MAX_INPUT_NESTING) -> None:
    """Check how deeply a body nests.

    The bound lets an agent answer with its input, inside an envelope, without breaking the wire
    protocol, which would end all requests of its worker.
    """
    if nests_deeper(text, limit):
        raise InvalidRequest(_TOO_DEEP)


def check_size(payload: Payload, context: bytes, *, more: int = 0) -> None:
    """Check what the agent is sent, which may be longer than the body: some characters are escaped
    so that a request is one line.

    `more` are the bytes of what else the agent gets: tools, answers to questions. Raises
    RequestTooLarge.
    """
    if (length := len(payload) + len(context) + more) > MAX_REQUEST_BYTES:
        raise RequestTooLarge(
            f"the body makes {length} bytes for the agent, and the most is {MAX_REQUEST_BYTES}"
        )


def are_plain(messages: Raw) -> bool:
    """Whether the messages are short, valid, at least one, and nest nothing."""
    if len(memoryview(messages)) > _SHORT_BYTES:
        return False
    try:
        return bool(_decode_plain_messages(messages))
    except msgspec.MsgspecError:
        return False


def check_messages(payload: Payload) -> None:
    """Check the roles of messages, and the kinds of their contents."""
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
            return readable(error, f"messages[{index}]")
    raise AssertionError("messages that cannot be decoded, one by one can")


def readable(error: Exception, place: str = "") -> str:
    """A mismatch with its place in front: `messages[2].role: invalid enum value 'bot', …`."""
    mismatch = read_mismatch(error)
    where = f"{place}{mismatch.path}".lstrip(".") or "the body"
    reason = mismatch.sentence[:1].lower() + mismatch.sentence[1:]
    if mismatch.problem is Problem.NOT_A_CHOICE:
        reason += f", expected one of {', '.join(ROLES)}"
    return f"{where}: {reason}"
