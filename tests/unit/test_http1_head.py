"""A plain head is read as h11 reads it, and anything else is left to h11."""

from __future__ import annotations

from itertools import pairwise

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.front.http1_head import Request, read_plain_head
from tests.unit.conftest import unhurried

HEAD = (
    b"POST /agent/a%20b/invoke?x=1 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Length: 27\r\n"
    b"Content-Type:application/json\r\nX-Note: \t caf\xc3\xa9 au\tlait \t\r\nX-Empty:\r\n"
    b"Accept: a\r\nACCEPT: b\r\n\r\n"
)

NOT_PLAIN = (
    *(b"\r\nHost: b", b"\r\nX : a", b"\r\n folded", b"\r\n: x", b"\r\nnothing", b"\nX: a"),
    *(b"\r\nContent-Length: 27", b"\r\nTransfer-Encoding: chunked", b"\r\nX: \x01", b"\0"),
)
"""Each makes another head of `HEAD` when it is added to the last field."""

FRAGMENTS = (
    *NOT_PLAIN,
    *(b"GET", b"get", b"*", b"/", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b" ", b"\t", b":"),
    *(b"\r\n", b"\r", b"\x0b", b"\x7f", b"\xff", b"a", b"7", b",", b"\r\nX: \xb2"),
    *(b"\r\ncontent-length: 5, 5", b"\r\nContent-Length: +5", b"\r\nContent-Length: \xb2"),
    b"\r\nContent-Length: " + b"1" * 21,
)


def by_h11(head: bytes) -> Request | None:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(head)
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError:
        return None
    if not isinstance(event, h11.Request):
        return None
    assert connection.trailing_data[0] == b""
    return Request(event.method, event.target, event.http_version, list(event.headers))


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A good head, of which some pieces are replaced by fragments."""
    cuts = sorted(draw(st.lists(st.integers(0, len(HEAD) - 4), min_size=2, max_size=8)))
    kept = st.booleans()
    pieces = [HEAD[a:b] for a, b in pairwise([0, *cuts, len(HEAD) - 4]) if draw(kept)]
    fragments = draw(st.lists(st.sampled_from(FRAGMENTS), max_size=4))
    for fragment in fragments:
        pieces.insert(draw(st.integers(0, len(pieces))), fragment)
    return b"".join(pieces) + b"\r\n\r\n"


@unhurried
@given(mutated())
@example(HEAD)
@example(HEAD.replace(b"Content-Length: 27\r\n", b""))
@example(b"GET / HTTP/1.1\r\nHost:\r\n\r\n")
def test_what_is_read_here_h11_reads_in_the_same_way(head: bytes) -> None:
    request = read_plain_head(head)
    assert request is None or request == by_h11(head)


def test_the_heads_of_common_clients_are_plain() -> None:
    request = read_plain_head(HEAD)
    assert request is not None
    assert request == by_h11(HEAD)


@pytest.mark.parametrize("addition", NOT_PLAIN)
def test_a_head_that_is_not_plain_is_left_to_h11(addition: bytes) -> None:
    assert read_plain_head(HEAD[:-4] + addition + b"\r\n\r\n") is None
