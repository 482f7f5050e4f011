"""Lines of the worker protocol about words and answers that were read from a worker. Pure.

The words are JSON texts on one line each that `protocol.gateway_side` has checked: nothing is
decoded here, and one join makes the lines of any number of chunks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.fleet.messages import Lines
from gateway.words import text_runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from protocol import Method, Outcome, Payload

MAX_LINES_BYTES = 512 * 1024
"""Of lines that are put into one frame, but for one line that is longer."""


def words(request_id: int, texts: Sequence[bytes]) -> bytes:
    """The lines of chunks and events of one request, in order."""
    lines = []
    for chunks, event in text_runs(texts):
        kind, of_kind = (b"chunk", chunks) if event is None else (b"event", (event,))
        head = b'{"jsonrpc":"2.0","method":"%b","params":{"id":%d,"%b":' % (kind, request_id, kind)
        lines += [head, (b"}}\n" + head).join(of_kind), b"}}\n"]
    return b"".join(lines)


def answer(
    request_id: int, method: Method, result: Payload | None, outcome: Outcome | None
) -> bytes:
    """The line that ends a request well; without a result it ends its words."""
    members = []
    if result is not None:
        key = b"output" if method == "invoke" else b"message"
        members.append(b'"%b":%b' % (key, bytes(result)))
    if outcome is not None:
        if outcome.finish is not None:
            members.append(b'"finish":%b' % msgspec.json.encode(outcome.finish))
        for key, text in ((b"usage", outcome.usage), (b"asks", outcome.asks)):
            if text is not None:
                members.append(b'"%b":%b' % (key, text))
    return b'{"jsonrpc":"2.0","id":%d,"result":{%b}}\n' % (request_id, b",".join(members))


def frames(lines: Sequence[bytes]) -> list[Lines]:
    """Lines, each item whole lines of one request, in as few frames as their size allows."""
    frames: list[Lines] = []
    size = 0
    gathered: list[bytes] = []
    for item in lines:
        if gathered and size + len(item) > MAX_LINES_BYTES:
            frames.append(Lines(b"".join(gathered)))
            gathered, size = [], 0
        gathered.append(item)
        size += len(item)
    if gathered:
        frames.append(Lines(b"".join(gathered)))
    return frames
