"""Decoding of a single line from a worker, regardless of its place in the conversation.

This module owns the shapes of a worker's messages, and the explanation of a line that has none of
them: what is wrong, and which request the line belongs to. It does not know what is in flight.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from .checks import MAX_NESTING, is_utf8, nests_deeper
from .errors import RemoteProtocolError, Violation, wrong_shape
from .framing import on_one_line
from .messages import JSON, PROTOCOL_VERSION, Ready
from .payloads import MAX_EXCERPT, MAX_REASON, as_bytes, kind
from .wording import read_mismatch

_MAX_FRAMED_BYTES = 2048
"""A longer line is decoded by itself: one read holds few such lines, and the time for finding a
text in a line that was crafted for it grows with the square of the length."""


_NULL = Raw(b"null")


class Params(Struct, gc=False):
    """The params of `chunk` and of `event`. A connection has one `ready`, whose params are decoded
    separately."""

    id: int | UnsetType = UNSET
    chunk: Raw | UnsetType = UNSET
    event: Raw | UnsetType = UNSET


class ReadyParams(Struct, gc=False):
    """The params of `ready`."""

    protocol: int
    handlers: tuple[str, ...]
    concurrency: Annotated[int, Meta(ge=1)] = 1
    description: str | None = None
    metadata: Raw = Raw(b"{}")
    input: Raw | UnsetType = UNSET
    output: Raw | UnsetType = UNSET
    modes: tuple[str, ...] = ()
    tools: bool = False
    asks: bool = False


class Answer(Struct, gc=False, forbid_unknown_fields=True):
    """A result. Unknown keys are refused: with a misspelt one, the result would mean the end of a
    stream. The outcome is looked at only where it was asked for."""

    output: Raw | UnsetType = UNSET
    message: Raw | UnsetType = UNSET
    finish: Raw = _NULL
    usage: Raw = _NULL
    asks: Raw = _NULL


class Error(Struct, gc=False):
    """An error response's `error`."""

    code: int
    message: str = ""


class Line(Struct, gc=False):
    """Every message of a worker has this shape."""

    jsonrpc: Literal["2.0"] = "2.0"
    id: int | UnsetType | None = UNSET
    method: Literal["chunk", "event", "ready"] | UnsetType = UNSET
    params: Params | UnsetType = UNSET
    result: Answer | UnsetType = UNSET
    error: Error | UnsetType = UNSET


class _ChunkParams(Struct, gc=False):
    id: int
    chunk: Raw


class _ChunkLine(Struct, gc=False, tag_field="method", tag="chunk"):
    """A chunk and nothing else: this refuses what `Line` leaves for its caller to check."""

    params: _ChunkParams
    jsonrpc: Literal["2.0"] = "2.0"
    id: UnsetType = UNSET
    result: UnsetType = UNSET
    error: UnsetType = UNSET


class _ReadyLine(Struct, gc=False):
    params: ReadyParams


class _Declared(Struct, gc=False):
    """The part of a `ready` that tells its version, whatever that is."""

    protocol: int


class _DeclaredLine(Struct, gc=False):
    params: _Declared


class _LooseParams(Struct, gc=False):
    id: Raw = _NULL


class _LooseLine(Struct, gc=False):
    """The parts of an invalid line that tell which request it belongs to."""

    id: Raw | UnsetType = UNSET
    method: Raw | UnsetType = UNSET
    params: Raw = _NULL


_decode_line = msgspec.json.Decoder(Line).decode
_decode_chunk_line = msgspec.json.Decoder(_ChunkLine).decode
_decode_strings = msgspec.json.Decoder(list[str]).decode
_decode_ready = msgspec.json.Decoder(_ReadyLine).decode
_decode_declared = msgspec.json.Decoder(_DeclaredLine).decode
_decode_loose_line = msgspec.json.Decoder(_LooseLine).decode
_decode_loose_params = msgspec.json.Decoder(_LooseParams).decode
_decode_id = msgspec.json.Decoder(int).decode

_EXPECTED = {
    ".jsonrpc": '"2.0"',
    ".method": "'ready', 'chunk' or 'event'",
    ".result": "'output', 'message' or nothing, and 'finish', 'usage', 'asks'",
}
"""What was expected at a place where msgspec's own words do not say it well."""

QUOTE = 0x22
_ANY_STRING = b'"\\u0000"'
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")


def read_line(line: bytes) -> Line:
    """Decode a line of a worker. Raises RemoteProtocolError."""
    try:
        if len(line) > MAX_NESTING and nests_deeper(line, MAX_NESTING):
            raise _nested_too_deeply(line)
        if not (line.isascii() or is_utf8(line)):
            raise RemoteProtocolError(
                Violation.NOT_UTF8,
                f"a line is not UTF-8: {_excerpt(line)}",
                request_id=_whose(line),
            )
        return _decode_line(line)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise _explain(line, error) from None


def read_burst(text: bytes) -> tuple[int, list[JSON], bytes] | None:
    """The leading chunks of a text of several lines, if they share one request and one framing.

    Returns the request's id, the chunks' texts, and the lines that follow. This takes less than
    half the time of decoding each line. None does not mean that anything is wrong, only that each
    line has to be decoded by itself.
    """
    line = text[: text.find(b"\n")]
    # Several answers in one read are common, and not worth the exception.
    frame = _read_frame(line) if b'"chunk"' in line else None
    if frame is None:
        return None
    request_id, head, tail = frame
    separator = tail + b"\n" + head
    texts = text[len(head) :].split(separator)
    # A line with another framing, and all that follow it, end up in the text before it: usually in
    # the last one, as the end of the stream.
    last = len(texts) - 1
    if text.count(b"\n") > last + texts[last].count(b"\n"):
        last = next(number for number, each in enumerate(texts) if b"\n" in each)
    end, _, rest = separator.join(texts[last:]).partition(b"\n")
    texts[last:] = [end.removesuffix(tail)]
    if not (end.endswith(tail) and _are_strings(texts)):
        return None
    return request_id, texts, rest


def _read_frame(line: bytes) -> tuple[int, bytes, bytes] | None:
    """The id of a chunk, and the bytes before and after its text.

    Since one JSON string between the two is a chunk of that id, any JSON string is.
    """
    if len(line) > _MAX_FRAMED_BYTES or _ANY_STRING in line or not is_utf8(line):
        return None
    try:
        params = _decode_chunk_line(line).params
        chunk = as_bytes(params.chunk)
        if chunk[0] != QUOTE:
            return None
        head, _, tail = line.rpartition(chunk)
        other = _decode_chunk_line(head + _ANY_STRING + tail).params
    except (msgspec.MsgspecError, RecursionError):
        return None
    # Too short to nest too deeply.
    if len(head) + len(tail) > MAX_NESTING:
        return None
    if other.id != params.id or as_bytes(other.chunk) != _ANY_STRING:
        return None
    return params.id, head, tail


def _are_strings(texts: list[bytes]) -> bool:
    """Whether each text is one JSON string and nothing else. The texts hold no newline."""
    # A string cannot continue across a newline, so each text holds at least one value.
    joined = b",\n".join(texts)
    if joined[:1] + joined[-1:] != b'""' or joined.count(b'",\n"') != len(texts) - 1:
        return False
    try:
        return len(_decode_strings(b"[%b]" % joined)) == len(texts)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False


def read_ready(line: bytes) -> Ready:
    """Decode a `ready`. Raises RemoteProtocolError."""
    try:
        version = _decode_declared(line).params.protocol
        if version != PROTOCOL_VERSION:
            raise RemoteProtocolError(
                Violation.UNSUPPORTED_VERSION,
                f"ready declares protocol {version}, expected {PROTOCOL_VERSION}",
            )
        params = _decode_ready(line).params
    except msgspec.ValidationError as error:
        raise wrong_shape(None, f"ready: {_reason(error)}: {_excerpt(line)}") from None
    for what in ("metadata", "input", "output"):
        value = getattr(params, what)
        if value is not UNSET and (found := kind(as_bytes(value))) != "an object":
            raise wrong_shape(None, f"ready's {what} is {found}, expected an object")
    ready = Ready(
        protocol=params.protocol,
        handlers=params.handlers,
        concurrency=params.concurrency,
        description=params.description,
        metadata=as_bytes(params.metadata),
        input=None if params.input is UNSET else on_one_line(as_bytes(params.input)),
        output=None if params.output is UNSET else on_one_line(as_bytes(params.output)),
        modes=params.modes,
        tools=params.tools,
        asks=params.asks,
    )
    if excess := ready.excess():
        raise wrong_shape(None, excess)
    return ready


def _explain(line: bytes, error: Exception) -> RemoteProtocolError:
    """Why a line could not be decoded, and which request it belongs to."""
    if isinstance(error, RecursionError):
        # The caller's stack counts too, so this can happen below MAX_NESTING.
        return _nested_too_deeply(line)
    excerpt = _excerpt(line)
    if isinstance(error, msgspec.ValidationError):
        if line.lstrip()[:1] != b"{":
            return RemoteProtocolError(
                Violation.NOT_A_MESSAGE, f"a line is not an object: {excerpt}"
            )
        return wrong_shape(_whose(line), f"{_reason(error)}: {excerpt}")
    if line.startswith(_BYTE_ORDER_MARK):
        return RemoteProtocolError(
            Violation.NOT_JSON, f"a line starts with a byte-order mark: {excerpt}"
        )
    # JSON's grammar allows half of a surrogate pair, which has no meaning. Such a line is
    # otherwise whole, and names its request.
    mended = _SURROGATE_ESCAPE.sub(rb"\\u0020", line)
    if mended != line and _read_loosely(mended) is not None:
        return RemoteProtocolError(
            Violation.NOT_UTF8,
            f"a line has half of a surrogate pair, which UTF-8 cannot express: {excerpt}",
            request_id=_whose(mended),
        )
    return RemoteProtocolError(Violation.NOT_JSON, f"a line is not JSON ({error}): {excerpt}")


def _reason(error: msgspec.ValidationError) -> str:
    reason = str(error)[:MAX_REASON]
    expected = _EXPECTED.get(read_mismatch(error).path)
    return reason if expected is None else f"{reason}, expected {expected}"


def _nested_too_deeply(line: bytes) -> RemoteProtocolError:
    return RemoteProtocolError(
        Violation.NESTED_TOO_DEEPLY,
        f"a line nests deeper than {MAX_NESTING}: {_excerpt(line)}",
    )


def _read_loosely(line: bytes) -> _LooseLine | None:
    try:
        return _decode_loose_line(line)
    except (msgspec.MsgspecError, RecursionError):
        return None


def _whose(line: bytes) -> int | None:
    """The id of the request that an invalid line belongs to, if the line tells it."""
    loose = _read_loosely(line)
    if loose is None:
        return None
    try:
        if loose.method is UNSET:
            return None if loose.id is UNSET else _decode_id(as_bytes(loose.id))
        if loose.id is UNSET:
            return _decode_id(as_bytes(_decode_loose_params(as_bytes(loose.params)).id))
    except msgspec.MsgspecError:
        pass
    return None  # a request from the worker: its id is the worker's own


def _excerpt(line: bytes) -> str:
    start = line[:MAX_EXCERPT].decode("utf-8", "backslashreplace")
    return f"{start}…" if len(line) > MAX_EXCERPT else start
