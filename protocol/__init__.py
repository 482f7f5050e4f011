"""The wire between the gateway and its workers: JSON-RPC 2.0, one JSON text per line.

The package owns message types, line framing and the legal order of messages for each side, and does
no I/O. The README beside this file is the specification; `gateway_side` and `worker_side` are the
two ends, and each program imports only its own.
"""

from .checks import MAX_INPUT_NESTING, MAX_NESTING, is_utf8, nests_deeper
from .errors import (
    ErrorCode,
    LocalProtocolError,
    ProtocolError,
    RemoteProtocolError,
    Violation,
)
from .framing import (
    MAX_LINE_BYTES,
    MAX_REQUEST_BYTES,
    LineBuffer,
    is_one_line,
    on_one_line,
)
from .messages import (
    JSON,
    METHODS,
    PROTOCOL_VERSION,
    ROLES,
    Burst,
    Cancel,
    Chat,
    Chunk,
    End,
    Event,
    Failure,
    FromGateway,
    FromWorker,
    Invoke,
    Malformed,
    Method,
    Outcome,
    Payload,
    Ready,
    Result,
    Role,
    Unsupported,
)
from .payloads import as_one_line, as_payload

__all__ = [
    "JSON",
    "MAX_INPUT_NESTING",
    "MAX_LINE_BYTES",
    "MAX_NESTING",
    "MAX_REQUEST_BYTES",
    "METHODS",
    "PROTOCOL_VERSION",
    "ROLES",
    "Burst",
    "Cancel",
    "Chat",
    "Chunk",
    "End",
    "ErrorCode",
    "Event",
    "Failure",
    "FromGateway",
    "FromWorker",
    "Invoke",
    "LineBuffer",
    "LocalProtocolError",
    "Malformed",
    "Method",
    "Outcome",
    "Payload",
    "ProtocolError",
    "Ready",
    "RemoteProtocolError",
    "Result",
    "Role",
    "Unsupported",
    "Violation",
    "as_one_line",
    "as_payload",
    "is_one_line",
    "is_utf8",
    "nests_deeper",
    "on_one_line",
]
