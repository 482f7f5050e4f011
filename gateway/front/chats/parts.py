"""What dialects make of chunks that come together, and of events that they have no form for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.words import join_chunks
from protocol import on_one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from protocol.events import File, Status

MAX_EVENTS_AT_ONCE = 32
"""For chunks that came together. An event of these dialects is five times as long as one of the
native one, and clients make an object of each."""


def in_fewer_events(chunks: Sequence[bytes]) -> Sequence[bytes]:
    """Chunks that came together as the texts of `MAX_EVENTS_AT_ONCE` events at most.

    Where chunks begin and end has no meaning in these dialects. Tokens of a model come one by one,
    and pass as they are.
    """
    if len(chunks) <= MAX_EVENTS_AT_ONCE:
        return chunks
    size = -(-len(chunks) // MAX_EVENTS_AT_ONCE)
    return [join_chunks(chunks[at : at + size]) for at in range(0, len(chunks), size)]


def status_comment(status: Status) -> bytes:
    """A status as a comment: clients skip it, and people who look at the stream see it."""
    return b": %b\n\n" % on_one_line(msgspec.json.encode(status.text))


def link_to(file: File) -> str:
    """A file as Markdown, on lines of its own: an image that is shown, or a link."""
    name = file.name.replace("[", "(").replace("]", ")").replace("\n", " ")
    if isinstance(file.data, bytes):
        data = msgspec.json.encode(file.data)[1:-1].decode("ascii")
        url = f"data:{file.mime};base64,{data}"
    else:
        url = str(file.path)
    mark = "!" if file.mime.startswith("image/") else ""
    return f"\n{mark}[{name}]({url})\n"
