from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import MAX_LINE_BYTES, LineBuffer, Violation
from protocol.framing import on_one_line, split_pieces

from .helpers import splits, unhurried


def feed_all(buffer: LineBuffer, reads: list[bytes]) -> list[bytes]:
    return [line for read in reads for line in buffer.feed(read)]


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"a\n", [b"a"]),
        (b"a\nb\n", [b"a", b"b"]),
        (b"a\nb", [b"a"]),
        (b"a", []),
        (b"\n", []),
        (b"\n\na\n\n\nb\n\n", [b"a", b"b"]),
        (b"a\r\nb\r\n", [b"a\r", b"b\r"]),
        (b" \t\r\na\n", [b"a"]),
        (b" a \n", [b" a "]),
        (b"\xe2\x82\xac\n", [b"\xe2\x82\xac"]),
        (b"a\xe2\x80\xa8b\x85\x0bc\n", [b"a\xe2\x80\xa8b\x85\x0bc"]),
    ],
)
def test_lines_end_at_newlines_only_and_blank_ones_are_left_out(
    data: bytes, lines: list[bytes]
) -> None:
    for reads in splits(data):
        assert feed_all(LineBuffer(), reads) == lines


def test_what_follows_the_last_newline_is_kept_for_the_next_read() -> None:
    buffer = LineBuffer()
    assert buffer.feed(b"a\nbc") == [b"a"]
    assert buffer.partial_bytes == 2
    assert buffer.feed(b"d\ne") == [b"bcd"]
    assert buffer.partial_bytes == 1


def test_a_line_as_long_as_the_cap_newline_included_passes() -> None:
    for reads in splits(b"x" * 9 + b"\n" + b"y" * 9 + b"\n"):
        buffer = LineBuffer(10)
        assert feed_all(buffer, reads) == [b"x" * 9, b"y" * 9]
        assert not buffer.overflowed


@pytest.mark.parametrize("long", [b"x" * 10 + b"\n", b"x" * 10, b" " * 10 + b"\n", b"x" * 99])
def test_a_longer_line_overflows_after_the_lines_before_it(long: bytes) -> None:
    for reads in splits(b"a\nb\n" + long + b"\nc\n"):
        buffer = LineBuffer(10)
        assert feed_all(buffer, reads) == [b"a", b"b"]
        assert buffer.overflowed


def test_after_an_overflow_nothing_is_held_or_taken_in() -> None:
    for reads in ([b"x" * 10], [b"x" * 5, b"x" * 5], [b"x" * 10 + b"\ny"]):
        buffer = LineBuffer(10)
        assert feed_all(buffer, reads) == []
        assert buffer.partial_bytes == 0
        assert buffer.feed(b"\na\nb") == []
        assert buffer.partial_bytes == 0


def test_an_overflow_is_a_violation_that_names_the_cap() -> None:
    error = LineBuffer(10).too_long()
    assert error.violation is Violation.LINE_TOO_LONG
    assert error.request_id is None
    assert "10 bytes" in str(error)


def test_the_default_cap_is_8_mib() -> None:
    assert LineBuffer().max_line_bytes == MAX_LINE_BYTES == 8 * 1024 * 1024


def test_a_buffer_shows_what_it_holds() -> None:
    buffer = LineBuffer(10)
    buffer.feed(b"abc")
    assert repr(buffer) == "<LineBuffer 3 bytes held, at most 10>"
    buffer.feed(b"defghijk")
    assert repr(buffer) == "<LineBuffer overflowed, at most 10>"


def test_a_json_text_is_put_on_one_line() -> None:
    assert on_one_line(b'{\n "a": "\\n"\r\n}') == b'{  "a": "\\n"  }'
    assert on_one_line(b'"a"') == b'"a"'


@unhurried
@given(
    st.lists(st.sampled_from([b"a", b"bcd", b"\n", b"\r", b" ", b"x" * 7, b"y" * 12]), max_size=30),
    st.data(),
)
def test_no_split_makes_a_difference(pieces: list[bytes], data: st.DataObject) -> None:
    text = b"".join(pieces)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=10)))
    reads = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    one_by_one = [text[i : i + 1] for i in range(len(text))]
    buffers = [LineBuffer(10), LineBuffer(10)]
    assert feed_all(buffers[0], reads) == feed_all(buffers[1], one_by_one)
    assert repr(buffers[0]) == repr(buffers[1])


@given(st.lists(st.binary(max_size=9).filter(lambda line: b"\n" not in line)), st.integers(0, 30))
def test_pieces_are_whole_lines_and_all_of_the_text(lines: list[bytes], size: int) -> None:
    text = b"\n".join(lines)
    pieces = list(split_pieces(text, size))
    assert b"\n".join(pieces) == text
    assert all(len(piece) >= size for piece in pieces[:-1])
    assert all(len(piece.rpartition(b"\n")[0]) <= size for piece in pieces)
