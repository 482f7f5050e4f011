"""JSON-RPC 2.0 as A2A binds to it (A2A 1.0, 9): from a body to a method, its id and its parameters.

Members that are not known are ignored (A2A 1.0, 5.7).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, structs

from gateway.errors import InvalidRequest
from gateway.front.a2a.errors import (
    INVALID_PARAMS,
    INVALID_RPC,
    PARSE_ERROR,
    VERSION_NOT_SUPPORTED,
    refuse,
)
from gateway.front.a2a.lists import length_check
from gateway.front.bodies import check_nesting, check_utf8, readable
from gateway.front.dialect import shown
from protocol import on_one_line

if TYPE_CHECKING:
    from gateway.front.dialect import RequestHead

VERSION = "1.0"

MAX_PARTS = 1024
"""Of one message."""

MOST_ID_BYTES = 256
"""Of an id as JSON text: it stands in every event of a stream."""

_VERSION = re.compile(rb"[ \t]*1\.0(?:\.[0-9]+)?[ \t]*\Z")
"""Patch numbers do not count (A2A 1.0, 3.6)."""

_IN_QUERY = re.compile(rb"(?:\A|&)a2a-version=([^&]*)", re.IGNORECASE)

_NOTHING = Raw(b"")

_NAMES = {
    "accepted_output_modes": "acceptedOutputModes",
    "context_id": "contextId",
    "history_length": "historyLength",
    "include_artifacts": "includeArtifacts",
    "media_type": "mediaType",
    "message_id": "messageId",
    "page_size": "pageSize",
    "page_token": "pageToken",
    "reference_task_ids": "referenceTaskIds",
    "return_immediately": "returnImmediately",
    "status_timestamp_after": "statusTimestampAfter",
    "task_id": "taskId",
    "task_push_notification_config": "taskPushNotificationConfig",
}
"""Members by their names in the definition (specification/a2a.proto) and in JSON."""

_UNCHANGED = (
    "configuration",
    "data",
    "filename",
    "id",
    "message",
    "metadata",
    "parts",
    "raw",
    "role",
    "status",
    "tenant",
    "text",
    "url",
)
"""The members that are read here and have one name only."""

_SNAKE_CASE = re.compile(rb'"(?:%b)"' % "|".join(_NAMES).encode())


check_parts = length_check(MAX_PARTS)
"""Raises InvalidRequest for too many parts of a message."""


class _Request(Struct, gc=False):
    jsonrpc: Raw = _NOTHING
    id: Raw = _NOTHING
    method: Raw = _NOTHING
    params: Raw = _NOTHING


# No dictionary, which would hold any number of members that nobody knows.
_Members = msgspec.defstruct(
    "_Members",
    [(name, Raw | UnsetType, UNSET) for name in (*_UNCHANGED, *_NAMES, *_NAMES.values())],
)
_decode_members = msgspec.json.Decoder(_Members).decode
_decode_list = msgspec.json.Decoder(list[Raw]).decode
_encode = msgspec.json.encode
_decode_request = msgspec.json.Decoder(_Request).decode


class RpcRequest(Struct, frozen=True, gc=False):
    """A request that has the form of one."""

    id: bytes
    """A JSON text."""
    method: str
    params: bytes
    """The JSON text of an object."""


def check_version(head: RequestHead) -> None:
    """Raises InvalidRequest for a version that is not spoken here. None at all is 0.3."""
    version = head.fields.get(b"a2a-version")
    if version is None and (asked := _IN_QUERY.search(head.query)) is not None:
        version = asked[1]
    if version is None or not version.strip():
        raise refuse(
            VERSION_NOT_SUPPORTED,
            f"no A2A-Version, which stands for 0.3; this is A2A {VERSION} and nothing else",
        )
    if _VERSION.match(version) is None:
        raise refuse(
            VERSION_NOT_SUPPORTED,
            f"A2A-Version is {shown(version)}; this is A2A {VERSION} and nothing else",
        )


def read_id(body: bytes) -> bytes | None:
    """The id of a request whose other members may be wrong; None: it has none that can be used.
    Raises InvalidRequest."""
    try:
        check_utf8(body)
    except InvalidRequest as error:
        raise refuse(PARSE_ERROR, error.message) from None
    try:
        request = _decode_request(body)
    except msgspec.ValidationError as error:
        raise refuse(INVALID_RPC, f"{readable(error)}; batches are not supported") from None
    except msgspec.DecodeError:
        raise refuse(PARSE_ERROR, "the body is not JSON") from None
    except RecursionError:
        raise refuse(INVALID_PARAMS, "the body nests too deeply") from None
    text = bytes(request.id)
    if len(text) > MOST_ID_BYTES or text[:1] not in b'"-0123456789n':
        return None
    return on_one_line(text) or None


def read_request(body: bytes, rpc_id: bytes | None) -> RpcRequest:
    """Check the rest of a request whose id was read. Raises InvalidRequest."""
    request = _decode_request(body)
    if bytes(request.jsonrpc) != b'"2.0"':
        raise refuse(INVALID_RPC, "'jsonrpc' is not \"2.0\"")
    if rpc_id is None:
        raise refuse(
            INVALID_RPC,
            f"'id' is missing, or no string or number of at most {MOST_ID_BYTES} bytes",
        )
    method = bytes(request.method)
    if method[:1] != b'"':
        raise refuse(INVALID_RPC, "'method' is not a string")
    params = bytes(request.params) or b"{}"
    if params == b"null":
        params = b"{}"
    if params[:1] != b"{":
        raise refuse(INVALID_PARAMS, "'params' is not an object")
    try:
        check_nesting(params)
    except InvalidRequest as error:
        raise refuse(INVALID_PARAMS, error.message) from None
    return RpcRequest(rpc_id, msgspec.json.decode(method, type=str), _in_camel_case(params))


def _in_camel_case(params: bytes) -> bytes:
    """The parameters with the members that are read here named as JSON has them: a parser of
    ProtoJSON takes the names of the definition as well. Raises InvalidRequest for too many parts.
    """
    return params if _SNAKE_CASE.search(params) is None else _renamed(Raw(params))


def _renamed(value: Raw) -> bytes:
    try:
        members = _decode_members(value)
    except (msgspec.MsgspecError, RecursionError):
        return bytes(value)  # what it should be is said where it is read
    renamed = {
        _NAMES.get(name, name): member
        for name, member in structs.asdict(members).items()
        if member is not UNSET
    }
    for name in ("message", "configuration"):
        if name in renamed:
            renamed[name] = Raw(_renamed(renamed[name]))
    if "parts" in renamed:
        check_parts(renamed["parts"], "message.parts")
        try:
            parts = [Raw(_renamed(part)) for part in _decode_list(renamed["parts"])]
        except (msgspec.MsgspecError, RecursionError):
            parts = []
        if parts:
            renamed["parts"] = Raw(_encode(parts))
    return _encode(renamed)


def decode_params(decode: Any, params: bytes, field: str = "") -> Any:
    """Decode parameters by a decoder of msgspec's. Raises InvalidRequest, naming the member."""
    try:
        return decode(params)
    except (msgspec.MsgspecError, RecursionError) as error:
        problem = readable(error, field)
        place = problem.partition(":")[0]
        raise refuse(INVALID_PARAMS, problem, "params" if place == "the body" else place) from None


def result(rpc_id: bytes, value: bytes) -> bytes:
    """The body of a response; `value` is a JSON text."""
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (rpc_id, value)
