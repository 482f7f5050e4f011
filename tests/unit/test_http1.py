"""The requests of a connection, byte by byte and all at once: the events that come of them."""

from __future__ import annotations

from collections.abc import Iterable

import h11
import pytest

from gateway.front import http1
from gateway.front.http1 import MAX_AHEAD_BYTES, MAX_FIELDS, MAX_HEAD_BYTES, HTTP1Requests
from gateway.front.http1_head import Request

GET = b"GET /live HTTP/1.1\r\nHost: t\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"POST /x HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
)


def whole(data: bytes) -> list[bytes]:
    return [data]


def byte_by_byte(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def in_pieces(data: bytes) -> list[bytes]:
    return [data[i : i + 97] for i in range(0, len(data), 97)]


split = pytest.mark.parametrize("split", [whole, byte_by_byte])


def events(requests: HTTP1Requests) -> list[Request | bytes | h11.Event]:
    """Everything until more is needed."""
    found: list[Request | bytes | h11.Event] = []
    while (event := requests.next_event()) is not h11.NEED_DATA or requests.pending:
        if event is h11.NEED_DATA:
            continue  # a pause
        assert not isinstance(event, type), "it never pauses"
        found.append(event)
        if isinstance(event, h11.ConnectionClosed):
            break
    return found


def receive(requests: HTTP1Requests, pieces: Iterable[bytes]) -> list[Request | bytes | h11.Event]:
    found = []
    for piece in pieces:
        requests.receive_data(piece)
        found += events(requests)
    return found


def respond(requests: HTTP1Requests) -> None:
    requests.begin_response(200, [(b"content-length", b"0")])
    requests.end_response()


def body(found: list[Request | bytes | h11.Event]) -> bytes:
    return b"".join(event for event in found if isinstance(event, bytes))


def head(*lines: str, request: str = "GET / HTTP/1.1") -> bytes:
    return "\r\n".join([request, "Host: t", *lines, "", ""]).encode()


@split
@pytest.mark.parametrize("request_", [GET, POST, CHUNKED])
def test_requests_follow_one_another(split, request_: bytes) -> None:
    requests = HTTP1Requests()
    for _ in range(3):
        found = receive(requests, split(request_))
        assert isinstance(found[0], Request)
        assert isinstance(found[-1], h11.EndOfMessage)
        assert body(found) == (b"" if request_ is GET else b"hello")
        assert requests.answering
        respond(requests)
        requests.start_next_cycle()
        assert not requests.pending


@split
@pytest.mark.parametrize("first", [GET, POST, CHUNKED])
def test_what_comes_early_is_kept_for_its_turn(split, first: bytes) -> None:
    requests = HTTP1Requests()
    found = receive(requests, split(first + b"\r\n\r\n" + POST + GET))
    assert isinstance(found[-1], h11.EndOfMessage)
    assert requests.read_ahead
    for method in (b"POST", b"GET"):
        respond(requests)
        requests.start_next_cycle()
        assert requests.pending
        (request, *_, end) = events(requests)
        assert isinstance(request, Request)
        assert request.method == method
        assert isinstance(end, h11.EndOfMessage)
    assert not requests.read_ahead


@split
@pytest.mark.parametrize("lines", [b"\r\n", b"\n", b"\r\n\r\n\n"])
def test_empty_lines_before_a_request_are_ignored(split, lines: bytes) -> None:
    requests = HTTP1Requests()
    found = receive(requests, split(lines + GET))
    assert isinstance(found[0], Request)


@split
@pytest.mark.parametrize("more", [b"\r\n", GET, b"\0"])
def test_everything_after_the_last_request_is_ignored(split, more: bytes) -> None:
    requests = HTTP1Requests()
    found = receive(requests, split(head("Connection: close") + more))
    assert isinstance(found[-1], h11.EndOfMessage)
    assert not requests.persistent
    assert not requests.read_ahead


def test_more_than_may_come_early_is_dropped_and_ends_the_connection_after_the_response() -> None:
    requests = HTTP1Requests()
    receive(requests, [GET])
    for _ in range(3):
        requests.receive_data(b"x" * MAX_AHEAD_BYTES)
        assert events(requests) == []
    assert not requests.read_ahead
    respond(requests)
    assert not requests.can_go_on


def test_a_client_that_shuts_down_its_side_is_served_in_full() -> None:
    requests = HTTP1Requests()
    receive(requests, [GET + GET])
    requests.receive_eof()
    assert events(requests) == []
    respond(requests)
    requests.start_next_cycle()
    assert requests.pending
    assert isinstance(events(requests)[-1], h11.EndOfMessage)
    respond(requests)
    requests.start_next_cycle()
    assert requests.pending
    assert [type(event) for event in events(requests)] == [h11.ConnectionClosed]


@pytest.mark.parametrize("part", [GET[:10], POST[:-1], CHUNKED[:-1], CHUNKED[:-4]])
def test_a_client_that_shuts_down_its_side_in_a_request_is_refused(part: bytes) -> None:
    requests = HTTP1Requests()
    receive(requests, [part])
    requests.receive_eof()
    with pytest.raises(h11.RemoteProtocolError):
        events(requests)
    assert requests.refusal is not None
    assert requests.refusal.status == 400


def refused(data: bytes, split=whole) -> tuple[int, str]:
    requests = HTTP1Requests()
    with pytest.raises(h11.RemoteProtocolError) as raised:
        receive(requests, split(data))
    assert requests.refusal is not None
    assert raised.value.error_status_hint == requests.refusal.status
    return requests.refusal.status, requests.refusal.type


TOO_LARGE = (431, "request_header_fields_too_large")


@pytest.mark.parametrize("split", [whole, in_pieces])
def test_a_head_has_a_limit_in_bytes(split) -> None:
    room = MAX_HEAD_BYTES - len(head("A: "))
    requests = HTTP1Requests()
    assert isinstance(receive(requests, split(head("A: " + "x" * room)))[0], Request)
    assert refused(head("A: " + "x" * (room + 1)), split) == TOO_LARGE
    assert refused(b"GET /" + b"x" * MAX_HEAD_BYTES, split) == TOO_LARGE
    assert refused(b"x" * MAX_HEAD_BYTES, split) == TOO_LARGE


@split
def test_a_head_has_a_limit_in_fields(split) -> None:
    requests = HTTP1Requests()
    most = [f"A{number}: x" for number in range(MAX_FIELDS - 1)]
    assert isinstance(receive(requests, split(head(*most)))[0], Request)
    assert refused(head(*most, "B: x"), split) == TOO_LARGE
    # Nobody needs the end of a head to refuse it.
    assert refused(head(*most, "B: x")[:-2], split) == TOO_LARGE


def test_a_head_that_is_too_large_is_refused_before_it_is_parsed(monkeypatch) -> None:
    def parse(*_: object) -> None:
        raise AssertionError("it was given something")

    monkeypatch.setattr(h11.Connection, "receive_data", parse)
    monkeypatch.setattr(http1, "read_plain_head", parse)
    assert refused(head(*["a: b"] * 20_000)) == TOO_LARGE
    assert refused(b"\r\n" + b"a:\n" * 20_000 + b"\r\n" + GET) == TOO_LARGE


def test_the_limits_hold_for_the_next_request_in_the_same_piece() -> None:
    requests = HTTP1Requests()
    receive(requests, [POST + head(*["a: b"] * 200)])
    respond(requests)
    requests.start_next_cycle()
    with pytest.raises(h11.RemoteProtocolError):
        events(requests)
    assert requests.refusal is not None
    assert requests.refusal.status == 431


def test_trailers_have_a_limit() -> None:
    start = CHUNKED[:-2]
    trailer = b"a: b\r\n"
    requests = HTTP1Requests()
    assert isinstance(receive(requests, [start + trailer + b"\r\n"])[-1], h11.EndOfMessage)
    assert refused(start + trailer * 20_000 + b"\r\n") == TOO_LARGE


def test_h11_never_parses_more_trailers_at_once_than_a_head_may_have_fields(monkeypatch) -> None:
    most = 0
    receive_data = h11.Connection.receive_data

    def count(self: h11.Connection, data: bytes) -> None:
        nonlocal most
        most = max(most, data.count(b"\n"))
        receive_data(self, data)

    monkeypatch.setattr(h11.Connection, "receive_data", count)
    assert refused(CHUNKED[:-2] + b"a:\n" * 5_000 + b"\r\n") == TOO_LARGE
    assert most == MAX_FIELDS
    lines = b"\n" * 100_000
    chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (len(lines), lines)
    found = receive(HTTP1Requests(), [head("Transfer-Encoding: chunked") + chunk])
    assert body(found) == lines
    assert most == MAX_FIELDS


@pytest.mark.parametrize("line", [b"\n", b"\r\n"])
def test_empty_lines_without_end_are_not_looked_through(line: bytes) -> None:
    assert refused(line * 100_000)[0] == 400


@split
@pytest.mark.parametrize(
    ("data", "status", "kind"),
    [
        (b"GARBAGE\r\n\r\n", 400, "invalid_request"),
        (b"\x16\x03\x01\x02\x00\x01", 400, "invalid_request"),
        (b"GET / HTTP/1.1\r\nbad header\r\n\r\n", 400, "invalid_request"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "invalid_request"),
        (head(request="PRI * HTTP/2.0"), 400, "invalid_request"),
        (head(request="GET / HTTP/2.0"), 505, "http_version_not_supported"),
        (head(request="GET / HTTP/0.9"), 505, "http_version_not_supported"),
        (head("Transfer-Encoding: gzip"), 501, "not_implemented"),
        (head("Content-Length: 1", "Content-Length: 2"), 400, "invalid_request"),
    ],
)
def test_what_is_refused(split, data: bytes, status: int, kind: str) -> None:
    assert refused(data, split) == (status, kind)


@pytest.mark.parametrize(
    "data",
    [
        head("Authorization : Bearer agw_secret"),
        head("X-API-Key agw_secret"),
        head("X-API-Key: agw_'secret\x00\""),
        head(request="GET /?key=agw_secret\x01 HTTP/1.1"),
        head("Content-Length: agw_secret"),
        head("Transfer-Encoding: agw_secret"),
        head("Transfer-Encoding: chunked") + b"agw_secret\r\n",
    ],
)
def test_a_refusal_quotes_nothing_of_the_request_which_may_hold_a_key(data: bytes) -> None:
    requests = HTTP1Requests()
    with pytest.raises(h11.RemoteProtocolError):
        receive(requests, [data])
    assert requests.refusal is not None
    assert requests.refusal.message.startswith("this is not HTTP/1.1: ")
    assert "agw" not in requests.refusal.message


@pytest.mark.parametrize(
    "data",
    [
        head("Connection: close"),
        head("Connection: x, Close"),
        head("Connection: x", "Connection: close"),
        head(request="GET / HTTP/1.0"),
        head("Content-Length: 1", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
        head("Connection: Upgrade", "Upgrade: WebSocket"),
    ],
)
def test_a_connection_that_cannot_go_on_is_known_from_the_head(data: bytes) -> None:
    requests = HTTP1Requests()
    assert isinstance(receive(requests, [data])[-1], h11.EndOfMessage)
    assert not requests.persistent


def test_an_offer_to_upgrade_is_ignored_and_the_next_request_waits() -> None:
    requests = HTTP1Requests()
    receive(requests, [head("Upgrade: h2c", "Connection: Upgrade") + GET])
    assert requests.answering
    respond(requests)
    requests.start_next_cycle()
    assert isinstance(events(requests)[0], Request)


def test_a_large_body_in_chunks_is_read_whole() -> None:
    data = bytes(range(256)) * 4096
    requests = HTTP1Requests()
    start = head("Transfer-Encoding: chunked", request="POST / HTTP/1.1")
    found = receive(requests, [start + b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) + GET])
    assert body(found) == data
    assert requests.read_ahead
    assert len(data) > http1.MAX_AHEAD_BYTES  # what is of this request is not ahead


def events_of_slices(requests: HTTP1Requests) -> list[int]:
    """How many events there are before each pause."""
    counts = [0]
    while (event := requests.next_event()) is not h11.NEED_DATA or requests.pending:
        if event is h11.NEED_DATA:
            counts.append(0)
        else:
            counts[-1] += 1
    return counts


def test_after_each_slice_of_a_chunked_body_there_is_a_pause() -> None:
    requests = HTTP1Requests()
    requests.receive_data(head("Transfer-Encoding: chunked") + b"1\r\nx\r\n" * 10_000)
    counts = events_of_slices(requests)
    assert sum(counts) == 1 + 10_000
    assert max(counts) <= MAX_FIELDS


def test_an_end_in_the_middle_of_a_body_counts_once_all_that_has_come_is_read() -> None:
    requests = HTTP1Requests()
    requests.receive_data(head("Transfer-Encoding: chunked") + b"1\r\nx\r\n" * 1_000)
    requests.receive_eof()
    assert isinstance(requests.next_event(), Request)
    while requests.next_event() is not h11.NEED_DATA:
        assert requests.refusal is None
    assert requests.pending
    with pytest.raises(h11.RemoteProtocolError):
        events_of_slices(requests)


def test_what_follows_a_request_and_cannot_be_read_is_not_taken_for_that_request() -> None:
    requests = HTTP1Requests()
    receive(requests, [head("X-Request-Id: first", request="HEAD / HTTP/1.1")])
    respond(requests)
    requests.start_next_cycle()
    with pytest.raises(h11.RemoteProtocolError):
        receive(requests, [b"GARBAGE\r\n\r\n"])
    assert requests.fields == []
    requests.begin_response(400, [(b"content-length", b"2")])
    assert requests.send_data(b"no") == b"no"


@pytest.mark.parametrize(
    ("version", "more", "waits"),
    [("1.1", b"", True), ("1.1", b"hel", False), ("1.0", b"", False)],
)
def test_a_client_waits_to_be_told_to_go_on_unless_it_has_gone_on(
    version: str, more: bytes, waits: bool
) -> None:
    start = ("Content-Length: 5", "Expect: 100-Continue")
    requests = HTTP1Requests()
    requests.receive_data(head(*start, request=f"POST / HTTP/{version}") + more)
    assert isinstance(requests.next_event(), Request)
    assert requests.is_waiting_for_100 is waits


def test_a_connection_that_is_to_end_says_so_when_its_next_response_begins() -> None:
    ends = False
    requests = HTTP1Requests(b"connection: keep-alive\r\n", lambda: ends)
    receive(requests, [GET])
    said = requests.begin_response(200, [(b"content-length", b"0")])
    ends = True
    assert b"keep-alive" in said
    requests.end_response()
    requests.start_next_cycle()
    receive(requests, [GET])
    assert b"connection: close" in requests.begin_response(200, [(b"content-length", b"0")])
    requests.end_response()
    assert not requests.can_go_on
