"""What the fleet writes into JetStream and reads there. All of it runs in asyncio's thread.

What has more than `PIECE` bytes is cut. The first piece says how many there are, and is written
last: what can be read is whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.exchange import MAX_COLLECTED_BYTES
from protocol.framing import MAX_RELAYED_LINE_BYTES

if TYPE_CHECKING:
    from nats.js import JetStreamContext

PIECE = 512 * 1024
"""Bytes of a message: its headers have room beside it, under NATS's 1 MB."""

MOST_PIECES = 2 + (MAX_COLLECTED_BYTES + MAX_RELAYED_LINE_BYTES) // PIECE
"""Pieces of one request or outcome: the longest is an answer as long as any may be. What has more
was not written by this program, and is not read."""


class TakenError(Exception):
    """Somebody else has written to a subject that is written once."""


class FullError(Exception):
    """There is no room in JetStream."""


class NonsenseError(Exception):
    """What JetStream keeps was not written by this program."""


async def make_stream(js: JetStreamContext, config: object) -> None:
    from nats.js.errors import BadRequestError, ServerError  # noqa: PLC0415

    try:
        await js.add_stream(config)  # type: ignore[arg-type]
    except BadRequestError as error:
        if error.err_code != _EXISTS:
            raise FullError(str(error)) from None
        await js.update_stream(config)  # type: ignore[arg-type]
    except ServerError as error:
        raise FullError(str(error)) from None


_EXISTS = 10058
"""JetStream's code for a stream that is there, with another configuration."""

_WRONG_LAST = 10071
"""JetStream's code for a message that was to be the first of its subject, and is not."""


async def publish_once(js: JetStreamContext, stream: str, subject: str, data: bytes) -> None:
    """Raises TakenError and FullError."""
    from nats.js.errors import APIError  # noqa: PLC0415

    headers = {"Nats-Expected-Last-Subject-Sequence": "0"}
    try:
        await js.publish(subject, data, stream=stream, headers=headers)
    except APIError as error:
        if error.err_code == _WRONG_LAST:
            raise TakenError from None
        raise FullError(str(error)) from None


async def put(
    js: JetStreamContext, stream: str, subject: str, data: bytes, *, once: bool = False
) -> None:
    """Write what may have several pieces. Raises FullError, and TakenError with `once`."""
    pieces = [data[at : at + PIECE] for at in range(0, len(data), PIECE)] or [b""]
    if len(pieces) > MOST_PIECES:
        raise FullError(f"{len(data)} bytes are too many")
    for number in range(len(pieces) - 1, 0, -1):
        await publish(js, stream, f"{subject}.{number}", pieces[number])
    first = len(pieces).to_bytes(4, "big") + pieces[0]
    if once:
        await publish_once(js, stream, f"{subject}.0", first)
    else:
        await publish(js, stream, f"{subject}.0", first)


async def publish(js: JetStreamContext, stream: str, subject: str, data: bytes) -> None:
    from nats.js.errors import APIError  # noqa: PLC0415

    try:
        await js.publish(subject, data, stream=stream)
    except APIError as error:
        raise FullError(str(error)) from None


async def get(js: JetStreamContext, stream: str, subject: str) -> bytes | None:
    """What `put` has written. Raises NonsenseError."""
    piece = await last(js, stream, f"{subject}.0")
    if piece is None:
        return None
    count, piece = int.from_bytes(piece[:4], "big"), piece[4:]
    if not 0 < count <= MOST_PIECES:
        raise NonsenseError(f"it has {count} pieces, expected 1 to {MOST_PIECES}")
    pieces: list[bytes] = []
    while piece is not None:
        if len(piece) > PIECE:
            raise NonsenseError(f"a piece has {len(piece)} bytes, expected at most {PIECE}")
        pieces.append(piece)
        if len(pieces) == count:
            return b"".join(pieces)
        piece = await last(js, stream, f"{subject}.{len(pieces)}")
    return None


async def last(js: JetStreamContext, stream: str, subject: str) -> bytes | None:
    from nats.js.errors import NotFoundError  # noqa: PLC0415

    try:
        message = await js.get_last_msg(stream, subject, direct=True)
    except NotFoundError:
        return None
    return message.data or b""
