"""The events that a run keeps: numbered once, read from anywhere, and never quietly lost."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.front.native.sse import KEEP_ALIVE, EventStream
from gateway.front.runs.ring import DROPPED_AT_ONCE, EVENT_COST, Ring, split_events
from tests.unit.conftest import unhurried

ROOMY = 1 << 30

EVENTS = st.lists(st.binary(max_size=40).map(lambda text: b"data: " + text.hex().encode()))


def filled(events: list[bytes], most: int = ROOMY) -> Ring:
    ring = Ring(most)
    for event in events:
        ring.add(event)
    return ring


def whole(events: list[bytes]) -> bytes:
    return b"".join(b"id: %d\n%b\n\n" % each for each in enumerate(events))


@unhurried
@given(EVENTS, st.lists(st.tuples(st.integers(1, 400), st.integers(0, 200))))
def test_a_client_that_is_cut_anywhere_reads_the_bytes_of_one_that_is_not(
    events: list[bytes], cuts: list[tuple[int, int]]
) -> None:
    """As clients do: what they keep are whole events, and they come back with the last one's id."""
    ring = filled(events)
    got, position = b"", 0
    for most, length in [*cuts, *[(ROOMY, ROOMY)] * 2]:
        portion = ring.read(position, most)
        assert portion is not None
        received = portion.data[:length]
        received = received[: received.rfind(b"\n\n") + 2] if b"\n\n" in received else b""
        got += received
        if ids := re.findall(rb"^id: (\d+)$", received, re.MULTILINE):
            position = int(ids[-1]) + 1
    assert got == whole(events)


@unhurried
@given(EVENTS, st.integers(1, 3000), st.data())
def test_what_is_kept_is_bounded_in_bytes_and_in_events_and_is_the_newest(
    events: list[bytes], most: int, data: st.DataObject
) -> None:
    ring = Ring(most)
    for count, event in enumerate(events, 1):
        ring.add(event)
        assert ring.next == count
        kept = ring.next - ring.first
        assert kept >= 1
        assert kept == 1 or ring.cost <= most
        assert kept * EVENT_COST <= max(most, ring.cost)
        position = data.draw(st.integers(0, count))
        portion = ring.read(position, ROOMY)
        if position < ring.first:
            assert portion is None
        else:
            assert portion is not None
            assert portion.position == count
            assert whole(events[:count]).endswith(portion.data)
            assert portion.data.count(b"\n\n") == count - position


@unhurried
@given(EVENTS, st.integers(0, 3000), st.integers(1, 500))
def test_a_lag_is_what_is_left_to_read(events: list[bytes], dropped: int, most: int) -> None:
    ring = filled(events)
    ring.drop(dropped)
    position = ring.first
    lags = [ring.lag(position)]
    assert lags[0] == ring.cost
    assert ring.lag(0) == ring.cost, "what is gone cannot be read"
    while (portion := ring.read(position, most)) and portion.data:
        assert len(portion.data) <= most or portion.position == position + 1
        position = portion.position
        lags.append(ring.lag(position))
    assert lags == sorted(lags, reverse=True)
    assert lags[-1] == 0
    assert position == ring.next


def test_dropping_frees_an_eighth_at_once_so_that_it_is_rare() -> None:
    cost = len(b"id: 10\ndata: x\n\n") + EVENT_COST
    ring = Ring(80 * cost)
    firsts = []
    for _ in range(1000):
        ring.add(b"data: x")
        firsts.append(ring.first)
    assert len(set(firsts)) <= 1000 / (80 / DROPPED_AT_ONCE)


def test_as_much_is_dropped_as_is_asked_for() -> None:
    ring = filled([b"data: x"] * 10)
    each = ring.cost // 10
    ring.drop(1)
    assert ring.first == 1
    ring.drop(3 * each)
    assert ring.first == 4
    ring.drop(ROOMY, keep=1)
    assert (ring.first, ring.next) == (9, 10)
    ring.drop(ROOMY)
    assert (ring.first, ring.next, ring.cost) == (10, 10, 0)
    ring.add(b"data: y")
    assert ring.read(10, ROOMY) == (b"id: 10\ndata: y\n\n", 11)


def test_an_event_that_is_larger_than_all_that_may_be_kept_is_kept_alone() -> None:
    ring = filled([b"data: 1", b"data: " + b"x" * 1000, b"data: 2"], most=500)
    assert (ring.first, ring.next) == (2, 3)


def test_nothing_of_a_cleared_ring_can_be_read_but_its_end() -> None:
    ring = filled([b"data: 1", b"data: 2"])
    ring.clear()
    assert ring.cost == 0
    assert ring.read(1, ROOMY) is None
    end = ring.read(2, ROOMY)
    assert end is not None
    assert end.data == b""


@pytest.mark.parametrize(
    ("data", "events"),
    [
        (b"", []),
        (KEEP_ALIVE, []),
        (b": one\n: two\n\n", []),
        (b": what follows\ndata: 1\n\n", [b": what follows\ndata: 1"]),
        (b"data: 1\n\n" + KEEP_ALIVE + b"data: 2\n\n", [b"data: 1", b"data: 2"]),
        (
            EventStream.chunks([b'"a"', b'"b"']) + b"data: [DONE]\n\n",
            [b'data: {"chunk":"a"}', b'data: {"chunk":"b"}', b"data: [DONE]"],
        ),
    ],
)
def test_events_are_blocks_with_a_field(data: bytes, events: list[bytes]) -> None:
    assert split_events(data) == events
