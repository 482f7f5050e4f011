"""The gateway's end: what it sends, and what it shows of itself."""

from __future__ import annotations

import msgspec
import pytest

from protocol import (
    ErrorCode,
    LocalProtocolError,
    Malformed,
    Violation,
)

from .helpers import READY, gateway, request_line, said, send

V = Violation


# What is sent


def test_an_invoke_is_one_line_with_the_payload_as_it_is() -> None:
    request_id, line = request_line(
        gateway(),
        "invoke",
        b'{"n": 1.50, "a":[ ]}',
        stream=True,
        context=b'{"user_id":"u"}',
        request_id='a"b',
    )
    assert request_id == 1
    assert line == (
        b'{"jsonrpc":"2.0","id":1,"method":"invoke","params":{"input":{"n": 1.50, "a":[ ]},'
        b'"stream":true,"context":{"user_id":"u"},"request_id":"a\\"b"}}\n'
    )


def test_a_chat_is_one_line_with_the_messages_as_they_are() -> None:
    _, line = request_line(gateway(), "chat", b'[{"role":"user"}]', stream=False, request_id="r")
    assert line == (
        b'{"jsonrpc":"2.0","id":1,"method":"chat","params":{"messages":[{"role":"user"}],'
        b'"stream":false,"context":{},"request_id":"r"}}\n'
    )


def test_newlines_between_the_tokens_of_a_payload_become_spaces() -> None:
    _, line = request_line(
        gateway(), "invoke", b'{\n"a": "\\n"\r\n}', stream=False, context=b"{\n}", request_id="r"
    )
    assert line.count(b"\n") == 1
    params = msgspec.json.decode(line)["params"]
    assert (params["input"], params["context"]) == ({"a": "\n"}, {})


def test_ids_count_up_from_one() -> None:
    connection = gateway()
    assert [send(connection) for _ in range(3)] == [1, 2, 3]
    assert connection.in_flight == {1, 2, 3}


def test_a_cancel_names_its_request_which_stays_in_flight() -> None:
    connection = gateway("invoke")
    assert connection.send_cancel(1) == (b'{"jsonrpc":"2.0","method":"cancel","params":{"id":1}}\n')
    assert connection.in_flight == {1}


def test_a_request_too_long_for_a_line_is_refused_and_changes_nothing() -> None:
    connection = gateway(max_line_bytes=200)
    overhead = len(request_line(gateway(), "invoke", b"", stream=False, request_id="r")[1])
    before = repr(connection)
    with pytest.raises(LocalProtocolError, match="201 bytes, and the most is 200"):
        request_line(connection, "invoke", b"1" * (201 - overhead), stream=False, request_id="r")
    assert repr(connection) == before
    request_line(connection, "invoke", b"1" * (200 - overhead), stream=False, request_id="r")
    assert connection.in_flight == {1}


def test_an_id_that_was_refused_was_never_given_out() -> None:
    connection = gateway(max_line_bytes=150)
    with pytest.raises(LocalProtocolError):
        request_line(connection, "invoke", b"1" * 150, stream=False, request_id="r")
    assert said(connection, b'{"id":1,"result":{}}\n') == [(None, V.UNKNOWN_ID, None)]


@pytest.mark.parametrize("first", [b"", b'{"id":1,"result":{}}\n'])
def test_a_worker_that_did_not_say_ready_gets_one_request_at_a_time(first: bytes) -> None:
    connection = gateway("invoke", ready=False)
    if first:
        connection.receive_data(first)
        send(connection)
    with pytest.raises(LocalProtocolError, match="1 in flight to a worker that is"):
        send(connection)
    assert len(connection.in_flight) == 1


def test_no_more_requests_are_sent_than_the_worker_takes_at_a_time() -> None:
    connection = gateway(*["invoke"] * 8)
    with pytest.raises(LocalProtocolError, match="takes 8 at a time"):
        send(connection)
    connection.receive_data(b'{"id":3,"result":{}}\n')
    assert send(connection) == 9


def test_a_request_may_be_sent_before_the_worker_has_said_ready() -> None:
    connection = gateway("invoke", ready=False)
    connection.receive_data(READY)
    assert send(connection) == 2


@pytest.mark.parametrize("first", [b"", b'{"id":1,"error":{"code":1}}\n'])
def test_only_a_worker_that_said_ready_is_sent_a_cancel(first: bytes) -> None:
    connection = gateway("invoke", ready=False)
    if first:
        connection.receive_data(first)
        send(connection)
    with pytest.raises(LocalProtocolError, match="only to a worker that sent ready"):
        connection.send_cancel(1)


@pytest.mark.parametrize("request_id", [0, 1, 2])
def test_what_is_not_in_flight_cannot_be_cancelled(request_id: int) -> None:
    connection = gateway("invoke")
    connection.receive_data(b'{"id":1,"result":{}}\n')
    with pytest.raises(LocalProtocolError, match=f"request {request_id}, which is not in flight"):
        connection.send_cancel(request_id)


def test_nothing_is_sent_to_a_worker_that_broke_the_protocol() -> None:
    connection = gateway("invoke")
    connection.receive_data(b"garbage\n")
    with pytest.raises(LocalProtocolError, match="broke the protocol"):
        send(connection)
    with pytest.raises(LocalProtocolError, match="broken"):
        connection.send_cancel(1)


# What it shows


def test_a_connection_shows_its_state_for_a_log() -> None:
    connection = gateway("invoke", "invoke")
    assert repr(connection) == "<GatewayConnection ready, 2 in flight, last id 2>"
    connection.receive_data(b'{"id":1,')
    assert connection.partial_bytes == 8


def test_a_violation_shows_what_and_whose_it_is() -> None:
    [event] = gateway("invoke").receive_data(b'{"id":1}\n')
    assert isinstance(event, Malformed)
    assert repr(event.error) == (
        "<RemoteProtocolError wrong_shape, request 1: an answer with neither result nor error>"
    )
    assert str(event.error) == "an answer with neither result nor error"
    [event] = gateway().receive_data(b"{}\n")
    assert isinstance(event, Malformed)
    assert "wrong_shape, unplaceable:" in repr(event.error)


def test_the_codes_are_those_of_the_specifications_they_come_from() -> None:
    assert [code.value for code in ErrorCode] == [-32601, -32602, -32603, -32800]
