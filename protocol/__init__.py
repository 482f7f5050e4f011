"""The wire between the gateway and its workers: JSON-RPC 2.0, one JSON text per line.

Message types, line framing and the legal order of messages for each side, without I/O. The README
beside this file is the specification; `gateway_side` and `worker_side` are the two ends.
"""

from .checks import MAX_INPUT_NESTING, MAX_NESTING, is_utf8, nests_deeper
from .decoding import as_payload
from .errors import (
    ErrorCode,
    LocalProtocolError,
    ProtocolError,
    RemoteProtocolError,
    Violation,
)
from .framing import MAX_LINE_BYTES, LineBuffer
from .gateway_side import GatewayConnection, WorkerState
from .messages import (
    JSON,
    PROTOCOL_VERSION,
    ROLES,
    Burst,
    Cancel,
    Chat,
    Chunk,
    End,
    Failure,
    FromGateway,
    FromWorker,
    Invoke,
    Malformed,
    Payload,
    Ready,
    Result,
    Unsupported,
)
from .worker_side import WorkerConnection

__all__ = [
    "JSON",
    "MAX_INPUT_NESTING",
    "MAX_LINE_BYTES",
    "MAX_NESTING",
    "PROTOCOL_VERSION",
    "ROLES",
    "Burst",
    "Cancel",
    "Chat",
    "Chunk",
    "End",
    "ErrorCode",
    "Failure",
    "FromGateway",
    "FromWorker",
    "GatewayConnection",
    "Invoke",
    "LineBuffer",
    "LocalProtocolError",
    "Malformed",
    "Payload",
    "ProtocolError",
    "Ready",
    "RemoteProtocolError",
    "Result",
    "Unsupported",
    "Violation",
    "WorkerConnection",
    "WorkerState",
    "as_payload",
    "is_utf8",
    "nests_deeper",
]
