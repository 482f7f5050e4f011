"""The longest lines that a worker may write pass a host, the wire and a front: none of them is too
long for what comes after it, which would end the requests of all others, too."""

from __future__ import annotations

from itertools import count

import pytest

from gateway.fleet.host import lines
from gateway.fleet.messages import Lines, Reader, encode
from protocol import Chunk, Event, Result
from protocol.framing import MAX_LINE_BYTES
from protocol.gateway_side import GatewayConnection

WIRE_ID = 2**53


def relayed(line: bytes) -> list[object]:
    """What a front makes of what a host makes of a worker's line."""
    host = GatewayConnection(ids=count(1))
    host.send_request("invoke", b"{}", stream=True, request_id="r", events=True)
    [said] = host.receive_data(line)
    if isinstance(said, Result):
        anew = lines.answer(WIRE_ID, "invoke", said.value, said.outcome)
    else:
        assert isinstance(said, Chunk | Event)
        anew = lines.words(WIRE_ID, [said.text if isinstance(said, Chunk) else said.event])
    front = GatewayConnection.of_host(ids=count(WIRE_ID))
    front.open_request("invoke", events=True)
    [message] = Reader.down().feed(encode(Lines(anew)))
    assert isinstance(message, Lines)
    return list(front.receive_data(message.data))


@pytest.mark.parametrize(
    ("before", "filling", "after", "expected"),
    [
        (b'{"id":1,"result":{"output":"', b"x", b'"}}\n', Result),
        (b'{"method":"chunk","params":{"id":1,"chunk":"', b"x", b'"}}\n', Chunk),
        (
            (
                b'{"method":"event","params":{"id":1,"event":{"type":"file","name":"f","mime":"a/b",'
                b'"path":"/f","x":"'
            ),
            "\u2028".encode(),
            b'"}}}\n',
            Event,
        ),
    ],
    ids=["a result", "a chunk", "an event whose characters have to be escaped"],
)
def test_the_longest_line_of_a_worker_passes(
    before: bytes, filling: bytes, after: bytes, expected: type
) -> None:
    room = MAX_LINE_BYTES - len(before) - len(after)
    line = before + filling * (room // len(filling)) + after
    assert MAX_LINE_BYTES - len(filling) < len(line) <= MAX_LINE_BYTES
    [said] = relayed(line)
    assert isinstance(said, expected)
