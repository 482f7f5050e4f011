"""Frames: in any split, and whatever a hostile peer makes of them."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fleet.messages import (
    MAX_FRAME_BYTES,
    Ask,
    Cancel,
    Down,
    Error,
    Failed,
    FrameError,
    Given,
    Lines,
    Reader,
    Refused,
    Submit,
    Told,
    Took,
    Up,
    encode,
)
from protocol.framing import MAX_LINE_BYTES

ids = st.integers(0, 2**53)
texts = st.text(max_size=8)
bodies = st.binary(max_size=40)
details = st.none() | texts | st.integers(-(2**63), 2**64 - 1) | st.booleans() | st.floats(0, 1)
errors = st.builds(
    Error, texts, texts, st.none() | st.floats(0, 9), st.dictionaries(texts, details, max_size=3)
)
downs: st.SearchStrategy[Down] = st.one_of(
    st.builds(Given, ids, st.none() | ids, st.none() | texts, st.floats(0, 9)),
    st.builds(Lines, bodies),
    st.builds(Refused, ids, errors, st.booleans()),
    st.builds(Failed, ids, errors, st.booleans()),
    st.builds(Told, ids, st.none() | bodies),
)

SUBMIT = Submit(
    id=1,
    agent="a",
    method="invoke",
    payload=b"{}",
    stream=True,
    context=b"{}",
    conversation=None,
    user=None,
    owner="",
    request_id="r",
    total=None,
    events=False,
    tools=None,
    resume=None,
    trace=("a", None),
    needs=["image"],
    continues=False,
)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(at)]


@given(st.lists(downs, max_size=5), st.lists(st.integers(0, 1000), max_size=8))
def test_messages_are_read_in_any_split(said: list[Down], cuts: list[int]) -> None:
    reader = Reader.down()
    data = b"".join(map(encode, said))
    found = [message for piece in pieces(data, cuts) for message in reader.feed(piece)]
    assert found == said


def test_what_a_front_says_is_read_byte_by_byte_as_it_is_whole() -> None:
    said: list[Up] = [SUBMIT, Cancel(1), Took(1, 2), Ask(3, "status", "a")]
    data = b"".join(map(encode, said))
    reader = Reader.up()
    assert [m for n in range(len(data)) for m in reader.feed(data[n : n + 1])] == said
    assert Reader.up().feed(memoryview(data)) == said


def test_the_largest_line_put_on_one_line_anew_fits_in_a_frame() -> None:
    line = b"x" * (2 * MAX_LINE_BYTES + 1024)
    assert Reader.down().feed(encode(Lines(line))) == [Lines(line)]


def test_a_frame_that_is_too_long_is_refused_before_it_has_come() -> None:
    with pytest.raises(FrameError, match="expected at most"):
        Reader.down().feed((MAX_FRAME_BYTES + 1).to_bytes(4, "big"))


def test_only_what_has_come_of_a_frame_is_held() -> None:
    reader = Reader.down()
    assert reader.feed(MAX_FRAME_BYTES.to_bytes(4, "big") + b"x") == []
    assert len(reader._held) == 5
    for _ in range(10):
        reader.feed(b"y" * 100)
    assert len(reader._held) == 1005


def frame(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x93\xa5lines",
        msgspec.msgpack.encode(["lines"]),
        msgspec.msgpack.encode(["lines", 1]),
        msgspec.msgpack.encode(["submit", 1]),
        msgspec.msgpack.encode(["no such", 1]),
        msgspec.msgpack.encode({"lines": 1}),
        msgspec.msgpack.encode(["told", 2**64 - 1, b""]) + b"x",
        msgspec.msgpack.encode(["told", "1", b""]),
        msgspec.msgpack.encode(["failed", 1, ["t", "m", None, {"a": [1]}], True]),
        b"\x94\xa4told\x01\xc4\x00" + b"\x91" * 100_000,
        b"\x93\xa5given\x01\xa2\xff\xff",
    ],
    ids=lambda body: repr(body[:20]),
)
def test_what_is_no_message_is_refused(body: bytes) -> None:
    with pytest.raises(FrameError):
        Reader.down().feed(frame(body))


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    reader = Reader.down()
    try:
        reader.feed(data)
    except FrameError:
        return
    assert len(reader._held) <= len(data)


def test_what_a_later_version_adds_at_the_end_is_ignored() -> None:
    later = msgspec.msgpack.encode(["cancel", 7, "because"])
    assert Reader.up().feed(frame(later)) == [Cancel(7)]
