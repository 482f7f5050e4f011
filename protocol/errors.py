"""Error codes, and who is to blame for a violation of the protocol.

`LocalProtocolError` means that the program on this side asked for something illegal, which is a
defect of ours. `RemoteProtocolError` means that the peer did: it is data about the peer, and is
returned as such.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum

MAX_MESSAGE = 500
"""Characters of an error's message: the message may quote the peer, who may write any amount."""


class ErrorCode(IntEnum):
    """Codes of an error response. Any other code is the agent's own failure (JSON-RPC 2.0, 5.1)."""

    HANDLER_NOT_IMPLEMENTED = -32601
    """JSON-RPC's "method not found"."""
    INVALID_INPUT = -32602
    """JSON-RPC's "invalid params": the agent refused what the caller sent."""
    INTERNAL = -32603
    """JSON-RPC's "internal error": the handler failed."""
    CANCELLED = -32800
    """The Language Server Protocol's "request cancelled"."""


class Violation(StrEnum):
    """What is wrong with a line, or with its place among the others."""

    NOT_JSON = "not_json"
    NOT_UTF8 = "not_utf8"
    """Bytes that are not UTF-8, or half of a surrogate pair, which UTF-8 cannot express."""
    NESTED_TOO_DEEPLY = "nested_too_deeply"
    LINE_TOO_LONG = "line_too_long"
    NOT_A_MESSAGE = "not_a_message"
    """JSON, but not an object."""
    WRONG_SHAPE = "wrong_shape"
    """An object, but not one of the messages, or a payload of the wrong type."""
    UNKNOWN_ID = "unknown_id"
    """An answer to a request that was never sent."""
    DUPLICATE_ID = "duplicate_id"
    """A second request with the same id (a violation by the gateway)."""
    SECOND_RESULT = "second_result"
    """An answer to a request that has ended."""
    CHUNK_AFTER_END = "chunk_after_end"
    EVENT_AFTER_END = "event_after_end"
    RESULT_AFTER_CHUNKS = "result_after_chunks"
    """A result with a value for a request that was answered with chunks."""
    READY_NOT_FIRST = "ready_not_first"
    READY_TWICE = "ready_twice"
    UNSUPPORTED_VERSION = "unsupported_version"


class ProtocolError(Exception):
    """The protocol was broken."""


class LocalProtocolError(ProtocolError):
    """This side tried to send a message that is not legal now."""


class RemoteProtocolError(ProtocolError):
    """The peer sent a message that is not legal now, or a line that is not a message.

    `request_id` is the id of the request that the line belongs to, if the line tells one. With None
    the line cannot be attributed, and nothing that follows it can be trusted.
    """

    def __init__(
        self, violation: Violation, message: str, *, request_id: int | None = None
    ) -> None:
        if len(message) > MAX_MESSAGE:
            message = f"{message[:MAX_MESSAGE]}…"
        super().__init__(message)
        self.violation = violation
        self.message = message
        self.request_id = request_id

    def __repr__(self) -> str:
        place = "unplaceable" if self.request_id is None else f"request {self.request_id}"
        return f"<RemoteProtocolError {self.violation.value}, {place}: {self.message}>"


def wrong_shape(request_id: int | None, message: str) -> RemoteProtocolError:
    """The error for a line that is not a message, or not the message that it claims to be."""
    return RemoteProtocolError(Violation.WRONG_SHAPE, message, request_id=request_id)
