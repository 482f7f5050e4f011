"""The value and the outcome of an answer, given what is known of its request.

Owns what a result may hold; when one is legal, `gateway_side` knows.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, Raw

from .decoding import Answer
from .errors import RemoteProtocolError, Violation, wrong_shape
from .events import EventError, RequestEvents, check_outcome
from .framing import on_one_line
from .messages import JSON, End, Method, Outcome, Result
from .payloads import as_bytes, as_payload, check_chat_message, kind


class InFlight:
    """A request that has not ended."""

    __slots__ = ("chunked", "events", "method")

    def __init__(self, method: Method, events: RequestEvents | None) -> None:
        self.method = method
        self.chunked = False
        self.events = events
        """None: events were not asked for."""


def read_result(request_id: int, result: Answer, request: InFlight) -> Result | End:
    """The answer that a result is to its request. Raises RemoteProtocolError."""
    key, value, other = (
        ("output", result.output, result.message)
        if request.method == "invoke"
        else ("message", result.message, result.output)
    )
    if other is not UNSET:
        wrong_key = "message" if key == "output" else "output"
        raise wrong_shape(
            request_id, f"the result of {request.method} has {wrong_key!r}, expected {key!r}"
        )
    if value is UNSET:
        return End(request_id, _read_outcome(request_id, result, request.events))
    if request.chunked:
        raise RemoteProtocolError(
            Violation.RESULT_AFTER_CHUNKS,
            f"a result with {key!r} after chunks, expected {{}} to end them",
            request_id=request_id,
        )
    text = as_payload(value)
    if request.method == "chat" and (problem := check_chat_message(text)):
        raise wrong_shape(request_id, f"the message of a chat result: {problem}")
    return Result(request_id, text, _read_outcome(request_id, result, request.events))


def _read_outcome(request_id: int, result: Answer, events: RequestEvents | None) -> Outcome | None:
    """None: nothing was asked for, or nothing was said."""
    if events is None:
        return None
    finish, usage, asks = map(_unless_null, (result.finish, result.usage, result.asks))
    if finish is usage is asks is events.usage is None:
        return None
    if finish is not None and kind(finish) != "a string":
        raise wrong_shape(request_id, f"finish is {kind(finish)}, expected a string")
    try:
        return check_outcome(
            Outcome(
                None if finish is None else msgspec.json.decode(finish, type=str),
                events.usage if usage is None else usage,
                asks,
            )
        )
    except EventError as error:
        raise wrong_shape(request_id, str(error)) from None


def _unless_null(value: Raw) -> JSON | None:
    text = as_bytes(value)
    return None if text == b"null" else on_one_line(text)
