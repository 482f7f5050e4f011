"""One message of a client, with what may be large kept aside for the agent.

Raises InvalidRequest and RequestTooLarge. What is wrong with a message as JSON-RPC is found by the
SDK, which gets all of it that is not kept aside.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from gateway.errors import RequestTooLarge
from gateway.front.bodies import check_nesting, check_utf8, decode_body
from protocol import on_one_line

MOST_REST = 64 * 1024
"""Bytes of a message without a tool call's arguments and answers. A client tells of itself and of
its capabilities with each request, in less than 2 KiB; these bytes become Python objects."""

MOST_OPENING = 8 * 1024
"""Bytes of a message that opens a session: its objects are kept for as long as that lasts. So much
can become 200 KiB of them."""

CALL = "tools/call"
OPENING = "initialize"

_KEPT = frozenset({OPENING, "notifications/initialized", None})
"""The methods of messages that a session keeps; None: it is not known what the SDK makes of it."""


class _Message(Struct, gc=False):
    jsonrpc: Raw | UnsetType = UNSET
    id: Raw | UnsetType = UNSET
    method: str | UnsetType = UNSET
    params: Raw | UnsetType = UNSET


class _CallParams(Struct, gc=False):
    """What is used of a call's parameters. Others are ignored, as the protocol wants it."""

    name: str
    arguments: Raw = Raw(b"null")
    input_responses: Raw | UnsetType = msgspec.field(default=UNSET, name="inputResponses")
    request_state: str | UnsetType | None = msgspec.field(default=UNSET, name="requestState")
    meta: Raw | UnsetType = msgspec.field(default=UNSET, name="_meta")
    task: Raw | UnsetType = UNSET


class ToolCall(Struct, frozen=True, gc=False):
    """A call as it was sent. The texts are JSON."""

    name: str
    arguments: bytes
    """An object."""
    responses: bytes | None
    """The answers to questions, an object; None if there are none."""
    state: str | None
    """What came with the questions."""


class Envelope(Struct, frozen=True, gc=False):
    """One message. `rest` is what the SDK is given, and `call` what it is not."""

    rest: bytes
    method: str | None = None
    """None: it could not be read."""
    call: ToolCall | None = None

    @property
    def may_open(self) -> bool:
        """Whether it may open a session."""
        return self.method in {OPENING, None}


_decode_message = msgspec.json.Decoder(_Message).decode
_decode_params = msgspec.json.Decoder(_CallParams).decode
_encode = msgspec.json.encode


def read_envelope(body: bytes) -> Envelope:
    """Read the body of a POST."""
    check_utf8(body)
    try:
        message = _decode_message(body)
    except (msgspec.DecodeError, RecursionError) as error:
        if len(body) > MOST_OPENING and not isinstance(error, msgspec.ValidationError):
            decode_body(_decode_message, body)  # it says what is wrong
        envelope = Envelope(body)
    else:
        method = "" if message.method is UNSET else message.method
        envelope = _read_call(message) or Envelope(body, method)
    most = MOST_OPENING if envelope.method in _KEPT else MOST_REST
    if len(envelope.rest) > most:
        raise RequestTooLarge(
            f"the message has {len(envelope.rest)} bytes beside the arguments of a tool call, "
            f"expected at most {most}"
        )
    return envelope


def _read_call(message: _Message) -> Envelope | None:
    """None: the message is no tool call, or none that could be one; the SDK says what it is."""
    if message.method != CALL or not isinstance(message.params, Raw):
        return None
    try:
        params = _decode_params(bytes(message.params))
    except (msgspec.DecodeError, RecursionError):
        return None
    arguments = bytes(params.arguments)
    if arguments == b"null":
        arguments = b"{}"
    responses = None if params.input_responses is UNSET else bytes(params.input_responses)
    if arguments[:1] != b"{" or (responses is not None and responses[:1] not in b"{n"):
        return None
    check_nesting(arguments)
    if responses is not None:
        check_nesting(responses)
    if len(state := params.request_state or "") > MOST_REST:
        raise RequestTooLarge(f"requestState has {len(state)} characters, expected fewer")
    call = ToolCall(
        name=params.name,
        arguments=on_one_line(arguments),
        responses=None if responses in {None, b"null"} else responses,
        state=state or None,
    )
    kept = _CallParams(params.name, Raw(b"{}"), meta=params.meta, task=params.task)
    rest = _Message(message.jsonrpc, message.id, message.method, Raw(_encode(kept)))
    return Envelope(_encode(rest), CALL, call)
