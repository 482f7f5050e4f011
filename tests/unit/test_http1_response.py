"""The bytes of a response, read back by h11's client: an implementation that is not ours."""

from __future__ import annotations

import h11
import pytest

from gateway.front.http1_response import HTTP1Response

KEEP_ALIVE = b"connection: keep-alive\r\nkeep-alive: timeout=75\r\n"
LENGTH_5 = (b"content-length", b"5")


def begun(
    *fields: tuple[bytes, bytes],
    status: int = 200,
    method: bytes = b"GET",
    version: bytes = b"1.1",
    last: bool = False,
) -> tuple[HTTP1Response, bytes]:
    response = HTTP1Response(method, version)
    return response, response.begin(status, fields, last=last, keep_alive=KEEP_ALIVE)


def read_back(
    data: bytes, *, method: str = "GET", ends: bool = False
) -> tuple[h11.Response, bytes, bool]:
    """The head, the body, and whether h11 sees the end of the response."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("host", "t")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    if ends:
        client.receive_data(b"")
    head = client.next_event()
    assert isinstance(head, h11.Response)
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += event.data
    return head, body, isinstance(event, h11.EndOfMessage)


@pytest.mark.parametrize("fields", [(), (LENGTH_5,)])
@pytest.mark.parametrize("parts", [[b"hello"], [b"he", b"", b"llo"]])
def test_a_body_is_read_as_it_was_written(
    fields: tuple[tuple[bytes, bytes], ...], parts: list[bytes]
) -> None:
    response, head = begun(*fields, (b"x-other", b"value"))
    data = head + b"".join(response.data(part) for part in parts) + response.end()
    found, body, ended = read_back(data)
    assert (found.status_code, body, ended) == (200, b"hello", True)
    assert (b"x-other", b"value") in list(found.headers)
    assert response.state is h11.DONE


def test_the_end_of_the_connection_ends_a_body_for_a_client_without_chunks() -> None:
    response, head = begun(version=b"1.0")
    assert response.last
    data = head + response.data(b"hello") + response.end()
    assert b"chunked" not in data
    assert read_back(data, ends=True)[1:] == (b"hello", True)


@pytest.mark.parametrize(
    ("method", "status"), [(b"HEAD", 200), (b"HEAD", 404), (b"GET", 204), (b"GET", 304)]
)
def test_a_response_that_has_no_body_sends_none(method: bytes, status: int) -> None:
    response, head = begun(*([LENGTH_5] if method == b"HEAD" else []), status=status, method=method)
    data = head + response.data(b"hello") + response.end()
    assert read_back(data, method=method.decode())[1:] == (b"", True)


@pytest.mark.parametrize(
    ("fields", "last", "ends"),
    [
        ([LENGTH_5], False, False),
        ([LENGTH_5], True, True),
        ([LENGTH_5, (b"connection", b"close")], False, True),
        ([(b"connection", b"close"), LENGTH_5, (b"connection", b"close")], True, True),
    ],
)
def test_every_head_says_once_whether_the_connection_goes_on(
    fields: list[tuple[bytes, bytes]], last: bool, ends: bool
) -> None:
    response, head = begun(*fields, last=last)
    assert response.last is ends
    said = [line for line in head.split(b"\r\n") if line.startswith(b"connection:")]
    assert said == [b"connection: close" if ends else b"connection: keep-alive"]
    assert head.endswith(b"\r\n\r\n")
    assert head.count(b"\r\ndate: ") == 1


def test_the_framing_is_not_the_applications_to_choose() -> None:
    response, head = begun((b"transfer-encoding", b"gzip"), (b"date", b"never"))
    assert read_back(head + response.data(b"hello") + response.end())[1:] == (b"hello", True)
    assert b"gzip" not in head
    assert b"never" not in head


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: x", b"a\nb: c", b"a\rb", b"a\0b"])
def test_a_head_that_would_be_read_in_another_way_is_not_sent(value: bytes) -> None:
    with pytest.raises(h11.LocalProtocolError):
        begun((b"x-agent-session", value))


def test_a_body_of_another_length_than_was_said_is_never_ended() -> None:
    response, _ = begun(LENGTH_5)
    response.data(b"hell")
    with pytest.raises(h11.LocalProtocolError):
        response.end()
    response, _ = begun(LENGTH_5)
    with pytest.raises(h11.LocalProtocolError):
        response.data(b"hello!")
    with pytest.raises(h11.LocalProtocolError):
        response.data(b"")


def test_nothing_is_written_out_of_order() -> None:
    response = HTTP1Response(b"GET")
    with pytest.raises(h11.LocalProtocolError):
        response.data(b"x")
    response, _ = begun(LENGTH_5)
    with pytest.raises(h11.LocalProtocolError):
        response.begin(200, [], last=False, keep_alive=b"")
    response, _ = begun()
    response.end()
    with pytest.raises(h11.LocalProtocolError):
        response.data(b"x")
