"""Chunks that come together are one event, and mean what they mean one by one."""

from __future__ import annotations

import pytest

from protocol import Burst, Chunk, FromWorker, GatewayConnection

GOOD = b'{"jsonrpc":"2.0","method":"chunk","params":{"id":1,"chunk":"word"}}\n'

ODD = [
    b'{"jsonrpc":"2.0","method":"chunk","params":{"id":2,"chunk":"of another"}}\n',
    b'{"jsonrpc":"2.0","method":"chunk","params":{"id":9,"chunk":"of none"}}\n',
    b'{"jsonrpc":"2.0","method":"chunk","params":{"id":1,"chunk":7}}\n',
    b'{"jsonrpc":"2.0","method":"chunk","params":{"id":1}}\n',
    b'{"jsonrpc":"2.0","id":1,"method":"chunk","params":{"id":1,"chunk":"a request"}}\n',
    b'{"jsonrpc":"1.0","method":"chunk","params":{"id":1,"chunk":"old"}}\n',
    b'{"method":"chunk","params":{"id":1,"chunk":"without a version"}}\n',
    b'{"jsonrpc":"2.0","method":"chunk","params":{"id":1,"chunk":"\xff"}}\n',
    b'{"jsonrpc":"2.0","method":"chunk","params":{"id":1,"chunk":"' + b"x" * 600 + b'"}}\n',
    '{"jsonrpc":"2.0","method":"chunk","params":{"id":1,"chunk":"Zoë 🙂"}}\n'.encode(),
    b'{"jsonrpc":"2.0","id":1,"result":{}}\n',
    b"chunk? no\n",
    b" \n",
]


def connection() -> GatewayConnection:
    made = GatewayConnection()
    made.receive_data(
        b'{"method":"ready","params":{"protocol":1,"handlers":["invoke"],"concurrency":2}}\n'
    )
    for number in (1, 2):
        made.send_invoke(b"1", stream=True, request_id=f"r-{number}")
    return made


def comparable(events: list[FromWorker]) -> list[str]:
    return [repr(event) for event in events]


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("place", [0, 3, 6])
def test_an_odd_line_among_many_means_what_it_means_alone(odd: bytes, place: int) -> None:
    lines = [GOOD] * 6
    lines.insert(place, odd)
    together = connection().receive_data(b"".join(lines))
    one_by_one = connection()
    expected = [event for line in lines for event in one_by_one.receive_data(line)]
    assert comparable(together) == comparable(expected)


def test_chunks_of_one_stream_that_come_together_are_one_event() -> None:
    end = b'{"jsonrpc":"2.0","id":1,"result":{}}\n'
    burst, *rest = connection().receive_batch(GOOD * 5 + end)
    assert burst == Burst(1, [b'"word"'] * 5)
    assert [type(event).__name__ for event in rest] == ["End"]


def test_chunks_of_two_streams_that_come_together_stay_apart() -> None:
    other = GOOD.replace(b'"id":1', b'"id":2')
    events = connection().receive_batch((GOOD + other) * 3)
    assert events == [Chunk(1, b'"word"'), Chunk(2, b'"word"')] * 3


def test_a_burst_to_a_worker_that_never_said_ready_is_its_first_word() -> None:
    bare = GatewayConnection()
    bare.send_invoke(b"1", stream=True, request_id="r-1")
    assert bare.receive_batch(GOOD * 4) == [Burst(1, [b'"word"'] * 4)]
    assert bare.worker_state.value == "bare"
