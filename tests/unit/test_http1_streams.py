"""What a client sends is divided into the same requests as by h11, whatever it is.

A server that divides a stream otherwise than a proxy before it serves requests that the proxy never
saw (RFC 9112, 11.2). Compared is what is accepted: nothing may be read here that h11 would not
read, but for what `http1` says of empty lines.
"""

from __future__ import annotations

from typing import NamedTuple

import h11
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.front.http1 import HTTP1Requests
from gateway.front.http1_head import Request
from tests.unit.conftest import unhurried

GOOD = (
    *(b"POST /a HTTP/1.1\r\n", b"Host: t\r\n", b"Content-Length: 5\r\n", b"X: y\r\n", b"\r\n"),
    b"hello",
    *(b"POST /b HTTP/1.1\r\n", b"Host: t\r\n", b"Transfer-Encoding: chunked\r\n", b"\r\n"),
    *(b"5\r\nhello\r\n", b"0\r\n", b"\r\n"),
    *(b"GET /c HTTP/1.1\r\n", b"Host: t\r\n", b"\r\n"),
)
"""Three requests of one connection."""

FRAGMENTS = (
    *(b"\r\n", b"\r", b"\0", b" ", b"\t", b":", b";", b"0", b"5", b"+5", b"0x5", b"5_0", b"\xa0"),
    *(b"0\r\n\r\n", b"5;a=b\r\nhello\r\n", b"5 ;x\r\nhello\r\n", b"5\nhello\n", b"5;x\n\r\nhello"),
    *(b"-1\r\n", b"5\r\nhello!", b"fffffffffffffffffffff\r\n", b"Trailer: x\r\n"),
    *(b"Content-Length: 6\r\n", b"Content-Length: +5\r\n", b"Content-Length: 5_0\r\n"),
    *(b"Content-Length: 5, 5\r\n", b"Content-Length: 5, 6\r\n", b"Content-Length:\r\n"),
    *(b"Content-Length : 5\r\n", b" Content-Length: 5\r\n", b"Content_Length: 5\r\n"),
    *(b"Transfer-Encoding: Chunked\r\n", b"Transfer-Encoding: chunked, chunked\r\n"),
    *(b"Transfer-Encoding: identity\r\n", b"Transfer-Encoding : chunked\r\n"),
    *(b"Transfer-Encoding: \x0bchunked\r\n", b"Transfer-Encoding:\r\n chunked\r\n"),
    *(b"X: a\r\n Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n"),
    *(b"HTTP/1.0\r\n", b"HTTP/1.2\r\n", b"Connection: close\r\n", b"Expect: 100-continue\r\n"),
    *(b"Host: b\r\n", b"get", b"http://x/y", b"*", b"%00", b"#f", b"\xff", b"X: \x01\r\n"),
    b"GET /smuggled HTTP/1.1\r\nHost: t\r\n\r\n",
)


class Read(NamedTuple):
    """One request that came whole."""

    request: Request
    body: bytes


def read_here(data: bytes, size: int) -> list[Read]:
    """The requests in what comes in pieces of that size. Each is answered as it ends."""
    requests, found = HTTP1Requests(), list[Read]()
    body: list[bytes] = []
    for start in range(0, len(data), size):
        requests.receive_data(data[start : start + size])
        try:
            while (event := requests.next_event()) is not h11.NEED_DATA or requests.pending:
                if isinstance(event, bytes):
                    body.append(event)
                elif isinstance(event, h11.EndOfMessage):
                    assert requests.request is not None
                    found.append(Read(requests.request, b"".join(body)))
                    body.clear()
                    requests.begin_response(200, [(b"content-length", b"0")])
                    requests.end_response()
                    if not requests.can_go_on:
                        return found
                    requests.start_next_cycle()
        except h11.RemoteProtocolError:
            break
    return found


def read_by_h11(data: bytes) -> list[Read]:
    found = list[Read]()
    goes_on = True
    while goes_on and (data := data.lstrip(b"\r\n")):
        connection = h11.Connection(h11.SERVER)
        connection.receive_data(data)
        try:
            found += _one_by_h11(connection)
        except h11.RemoteProtocolError:
            break
        goes_on = connection.their_state is h11.DONE
        data = connection.trailing_data[0]
    return found


def _one_by_h11(connection: h11.Connection) -> list[Read]:
    """The next request, if it comes whole. Raises h11.RemoteProtocolError."""
    head, body = connection.next_event(), b""
    if not isinstance(head, h11.Request):
        return []
    while isinstance(event := connection.next_event(), h11.Data):
        body += bytes(event.data)
    request = Request(head.method, head.target, head.http_version, [*head.headers])
    return [Read(request, body)] if isinstance(event, h11.EndOfMessage) else []


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Good requests, with some of their pieces left out and some fragments put in."""
    pieces = [*GOOD]
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(pieces) - 1))
        fragment = draw(st.sampled_from([b"", *FRAGMENTS]))
        cut = draw(st.one_of(st.none(), st.integers(0, len(pieces[at]))))
        if cut is None:
            pieces[at] = fragment  # in its place
        else:
            pieces[at] = pieces[at][:cut] + fragment + pieces[at][cut:]
    return b"".join(pieces)


@unhurried
@given(mutated(), st.integers(1, 200))
@example(b"".join(GOOD), 1000)
def test_a_stream_is_divided_into_requests_as_h11_divides_it(data: bytes, size: int) -> None:
    found = read_here(data, size)
    assert found == read_here(data, len(data))
    # A connection may end sooner here: after a head that has two lengths, for one.
    assert found == read_by_h11(data)[: len(found)]


def test_the_good_requests_are_read_whole() -> None:
    found = read_here(b"".join(GOOD), 7)
    assert [each.body for each in found] == [b"hello", b"hello", b""]
    assert found == read_by_h11(b"".join(GOOD))
