"""Chunks that come together are one event, and mean what they mean one by one."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import Burst, Chunk, End, FromWorker, Malformed, gateway_side
from protocol.decoding import read_burst
from protocol.gateway_side import GatewayConnection

from .helpers import request_line, unhurried

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
    made = GatewayConnection(ids=count(1))
    made.receive_data(
        b'{"method":"ready","params":{"protocol":1,"handlers":["invoke"],"concurrency":2}}\n'
    )
    for number in (1, 2):
        request_line(made, "invoke", b"1", stream=True, request_id=f"r-{number}")
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
    assert connection().receive_batch(GOOD * 5 + other * 2) == [
        Burst(1, [b'"word"'] * 5),
        *[Chunk(2, b'"word"')] * 2,
    ]
    assert (
        connection().receive_data((GOOD + other) * 3)
        == [
            Chunk(1, b'"word"'),
            Chunk(2, b'"word"'),
        ]
        * 3
    )


def test_the_runs_of_several_streams_are_each_one_event() -> None:
    other = GOOD.replace(b'"id":1', b'"id":2')
    end = b'{"jsonrpc":"2.0","id":1,"result":{}}\n'
    said = GOOD + other * 4 + GOOD * 4 + end + other * 8 + b"\n" + other * 5
    assert connection().receive_batch(said) == [
        Burst(1, [b'"word"']),
        Burst(2, [b'"word"'] * 4),
        Burst(1, [b'"word"'] * 4),
        End(1),
        Burst(2, [b'"word"'] * 8),
        Burst(2, [b'"word"'] * 5),
    ]


def test_a_run_is_found_behind_many_lines_of_several_streams() -> None:
    other = GOOD.replace(b'"id":1', b'"id":2')
    *_, last = connection().receive_batch((GOOD + other) * 1000 + GOOD * 1000)
    assert isinstance(last, Burst)


def test_short_runs_among_many_lines_are_not_looked_for_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = []

    def look(text: bytes) -> tuple[int, list[bytes], bytes] | None:
        looks.append(text)
        return read_burst(text)

    monkeypatch.setattr(gateway_side, "read_burst", look)
    other = GOOD.replace(b'"id":1', b'"id":2')
    said = (GOOD + other) * 1000
    assert len(connection().receive_data(said)) == 2000
    assert len(looks) <= 2 * (len(said) // gateway_side._PIECE_BYTES + 1)


def test_nothing_is_made_of_what_follows_a_line_that_cannot_be_placed() -> None:
    end = b'{"jsonrpc":"2.0","id":1,"result":{}}\n'
    burst, violation = connection().receive_batch(GOOD * 4 + b"Traceback\n" + GOOD * 4 + end)
    assert burst == Burst(1, [b'"word"'] * 4)
    assert isinstance(violation, Malformed)


def test_a_burst_to_a_worker_that_never_said_ready_is_its_first_word() -> None:
    bare = GatewayConnection(ids=count(1))
    request_line(bare, "invoke", b"1", stream=True, request_id="r-1")
    assert bare.receive_batch(GOOD * 4) == [Burst(1, [b'"word"'] * 4)]
    assert bare.worker_state.value == "bare"


FRAMES = [
    b'{"jsonrpc":"2.0","method":"chunk","params":{"id":1,"chunk":%b}}\n',
    b'{"jsonrpc": "2.0", "method": "chunk", "params": {"id": 1, "chunk": %b}}\r\n',
    b'{"params":{"chunk":%b,"id":1},"method":"chunk"}\n',
    b'{"params":{"chunk":"a","chunk":%b,"id":1},"method":"chunk"}\n',
    b'{"params":{"chunk":%b,"chunk":"a","id":1},"method":"chunk"}\n',
    b'{"method":"chunk","params":{"id":2,"chunk":%b}}\n',
    b'{"params":{"chunk":%b,"id":1,"more":"\\u0000"},"method":"chunk"}\n',
    b'{"params":{"chunk":"\\u0000","id":1,"more":%b},"method":"chunk"}\n',
    b'{"params":{"chunk":"\\u0000","id":1,%b:1},"method":"chunk"}\n',
    b'{"params":{"chunk":%b,"id":1},"method":"chunk","error":5}\n',
    b'{"params":{"chunk":%b,"id":1},"method":"chunk","result":5}\n',
    b'{"method":"chunk","params":{"id":1,"chunk":%b,"more":' + b"[" * 600 + b"]" * 600 + b"}}\n",
]
TEXTS = [
    b'"a"', b'""', b'"\\u0000"', b'"id"', b'"2.0"', b'"chunk"',
    b'"\\""', b'"\\\\"', '"Zoë"'.encode(), b' "b" ', b'"c"\n',
    b'"', b'"a\\"', b'"b","c"', b'","c"', b'"a"}}', b'"\xff"', b'"\\ud800"', b"1", b"", b"\n",
    b"\r", b'"' + b"x" * 600 + b'"', b'"a","id":2,"chunk":"b"',
    b'"a"}},"params":{"id":1,"chunk":"b"',
]  # fmt: skip


RUN = st.tuples(st.sampled_from([GOOD, GOOD.replace(b'"id":1', b'"id":2')]), st.integers(1, 9))


@unhurried
@given(
    st.lists(RUN | st.tuples(st.sampled_from(ODD), st.just(1)), max_size=9),
    st.sampled_from([1, 100, 400, 2000]),
)
def test_runs_that_come_together_mean_what_they_mean_line_by_line(
    runs: list[tuple[bytes, int]], piece: int
) -> None:
    lines = [line for line, count in runs for _ in range(count)]
    one_by_one = connection()
    expected = [event for line in lines for event in one_by_one.receive_data(line)]
    together = connection()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gateway_side, "_PIECE_BYTES", piece)
        events = together.receive_data(b"".join(lines))
    assert comparable(events) == comparable(expected)
    assert repr(together) == repr(one_by_one)


@unhurried
@given(st.lists(st.tuples(st.sampled_from(FRAMES), st.sampled_from(TEXTS)), min_size=4), st.data())
def test_what_comes_together_means_what_it_means_line_by_line(
    framed: list[tuple[bytes, bytes]], data: st.DataObject
) -> None:
    # Mostly one frame, as a worker has one.
    frame = data.draw(st.sampled_from([None, *FRAMES]))
    said = b"".join([(frame or own) % text for own, text in framed])
    one_by_one = connection()
    expected = [
        event for line in said.split(b"\n") for event in one_by_one.receive_data(line + b"\n")
    ]
    together = connection()
    assert comparable(together.receive_data(said)) == comparable(expected)
    assert repr(together) == repr(one_by_one)


def test_a_line_that_is_long_is_not_searched_for_its_frame() -> None:
    # Found from behind, a text of one digit again and again would take a second here.
    ones = b"1" * 120_000
    line = GOOD.replace(b'"word"', ones + b',"x":' + ones[::2] + b"2" + ones[1:])
    assert read_burst(line * 4) is None
    assert read_burst(GOOD.replace(b"word", b"x" * 2048) + GOOD * 3) is None
