"""What is held while one read, or one line, is decoded."""

from __future__ import annotations

import tracemalloc

import pytest

from protocol.framing import MAX_LINE_BYTES
from protocol.gateway_side import GatewayConnection

from .helpers import gateway

MiB = 1024 * 1024
READ = 256 * 1024


def peak(connection: GatewayConnection, data: bytes) -> int:
    """Bytes that were allocated at once for what is received, the messages included."""
    tracemalloc.start()
    try:
        messages = connection.receive_batch(data)
        assert messages or not data.strip()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b" \n",
        b'{"method":"chunk","params":{"id":1,"chunk":""}}\n',
        b'{"params":{"chunk":"","id":1},"method":"chunk"}\n{"id":2,"result":{}}\n',
        b'{"id":2,"result":{}}\n',
        b'{"id":2,"result":{"%b":1}}\n' % (b"x" * 30),
        b"[]\n",
    ],
)
def test_a_read_of_the_smallest_lines_takes_bounded_memory(line: bytes) -> None:
    connection = gateway("invoke", "invoke")
    connection.receive_data(b'{"id":2,"result":{}}\n')
    assert peak(connection, line * (READ // len(line))) < 8 * MiB


@pytest.mark.parametrize(
    "line",
    [
        b'{"id":1,"result":{"output":"%b"}}\n',
        b'{"id":1,"error":{"code":1,"message":"%b"}}\n',
        b'{"method":"chunk","params":{"id":1,"chunk":"%b"}}\n',
        b'{"id":1,"result":{"%b":1}}\n',
        b'{"id":1,"result":"%b"}\n',
    ],
)
def test_the_longest_line_takes_bounded_memory(line: bytes) -> None:
    """A character outside the Basic Multilingual Plane makes each of a `str` take four bytes."""
    fill = "\U0001f600".encode()
    text = line % (fill + b"x" * (MAX_LINE_BYTES - len(line) - len(fill) - 8))
    connection = gateway("invoke")
    assert peak(connection, text) < 128 * MiB
