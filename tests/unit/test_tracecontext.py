"""The headers of W3C Trace Context: what is passed on, and what begins a new trace."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.observe.tracecontext import MAX_STATE, TraceContext, read_trace_context, trace_context

PARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def read(parent: bytes, state: bytes | None = None) -> TraceContext | None:
    fields = {b"traceparent": parent}
    return read_trace_context(fields if state is None else {**fields, b"tracestate": state})


def test_a_valid_parent_is_taken_apart_and_passed_on_as_it_is() -> None:
    found = read(PARENT)
    assert found == (PARENT.decode(), None)
    assert found.trace_id == 0x4BF92F3577B34DA6A3CE929D0E0E4736
    assert found.span_id == 0x00F067AA0BA902B7
    assert found.sampled
    assert trace_context(found.trace_id, found.span_id, None, sampled=True) == found


@pytest.mark.parametrize(("flags", "sampled"), [(b"00", False), (b"01", True), (b"03", True)])
def test_the_flag_says_whether_the_caller_recorded_its_span(flags: bytes, sampled: bool) -> None:
    found = read(PARENT[:-2] + flags)
    assert found is not None
    assert found.sampled is sampled


@pytest.mark.parametrize(
    "parent",
    [
        b"",
        b"nonsense",
        PARENT.upper(),
        PARENT[:-1],
        PARENT + b"0",
        PARENT + b"-more",
        PARENT + b"-",
        b"ff" + PARENT[2:],
        b"0" + PARENT,
        b" " + PARENT,
        PARENT + b"\n" + PARENT,
        b"cc" + PARENT[2:] + b"-\n" + PARENT,
        b"00-" + b"0" * 32 + PARENT[35:],
        PARENT[:36] + b"0" * 16 + b"-01",
        PARENT.replace(b"-", b"_"),
        b"cc" + PARENT[2:] + b".what",
        b"00-" + b"g" * 32 + PARENT[35:],
    ],
)
def test_an_invalid_parent_is_dropped_with_its_state(parent: bytes) -> None:
    assert read(parent, b"vendor=1") is None


@pytest.mark.parametrize("more", [b"", b"-what-the-future-will-be-like"])
def test_a_later_version_is_read_as_far_as_it_is_known(more: bytes) -> None:
    assert read(b"cc" + PARENT[2:-2] + b"ff" + more) == (PARENT.decode(), None)


@pytest.mark.parametrize(
    ("sent", "passed_on"),
    [
        (b"vendor=1", "vendor=1"),
        (b"a=1,b=2", "a=1,b=2"),
        (b"a=1 ,\tb=2,,", "a=1,b=2"),
        (b"a=1\nb=2", "a=1,b=2"),  # two fields
        (b"t1@vendor=x y", "t1@vendor=x y"),
        (b"", None),
        (b"A=1", None),
        (b"a", None),
        (b"a=", None),
        (b"a=b=c", None),
        (b"a=1,a=2", None),
        (b"a=\xe9", None),
        (b"a=\x7f", None),
        (b"a=" + b"x" * 257, None),
        (b",".join(b"k%d=1" % n for n in range(33)), None),
    ],
)
def test_a_state_is_passed_on_or_dropped_alone(sent: bytes, passed_on: str | None) -> None:
    assert read(PARENT, sent) == (PARENT.decode(), passed_on)


def test_a_long_state_loses_its_oldest_members() -> None:
    members = [b"k%d=%b" % (number, b"x" * 200) for number in range(5)]
    assert read(PARENT, b",".join(members)) == (PARENT.decode(), b",".join(members[:2]).decode())


def test_a_state_without_a_parent_is_nothing() -> None:
    assert read_trace_context({b"tracestate": b"a=1"}) is None


@given(parent=st.binary(max_size=80) | st.just(PARENT), state=st.binary(max_size=600))
def test_whatever_was_sent_what_is_passed_on_is_valid_and_bounded(
    parent: bytes, state: bytes
) -> None:
    found = read(parent, state)
    if found is not None:
        assert len(found.parent) == 55
        assert found.state is None or len(found.state) <= MAX_STATE
        state_again = found.state and found.state.encode()
        assert read(found.parent.encode(), state_again) == found
