"""The worker's end: what it makes of the gateway's lines, and what it lets its program say."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from protocol import (
    MAX_NESTING,
    PROTOCOL_VERSION,
    Cancel,
    Chat,
    ErrorCode,
    Invoke,
    LocalProtocolError,
    RemoteProtocolError,
    Unsupported,
    Violation,
)
from protocol.worker_side import WorkerConnection

from .helpers import gateway, request_line, splits, worker

if TYPE_CHECKING:
    from collections.abc import Callable

INVOKE = b'{"jsonrpc":"2.0","id":1,"method":"invoke","params":{"input":{"a": 1}}}\n'
CHAT = (
    b'{"id":2,"method":"chat","params":{"messages":[{"role":"user"}],"stream":true,'
    b'"context":{"user_id":"u"},"request_id":"abc"}}\n'
)
CANCEL = b'{"method":"cancel","params":{"id":1}}\n'
UNSUPPORTED = b'{"id":3,"method":"embed","params":[1,{}]}\n'


def answer(line: bytes) -> Any:
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    message = msgspec.json.decode(line)
    assert message.pop("jsonrpc") == "2.0"
    return message


# What the gateway asks for


def test_requests_arrive_however_they_are_split() -> None:
    data = INVOKE + CHAT + b"\n" + CANCEL + UNSUPPORTED + b'{"id":4'
    for reads in splits(data):
        connection = WorkerConnection()
        assert [event for read in reads for event in connection.receive_data(read)] == [
            Invoke(1, b'{"a": 1}', stream=False, context=b"{}", request_id=""),
            Chat(
                2, b'[{"role":"user"}]', stream=True, context=b'{"user_id":"u"}', request_id="abc"
            ),
            Cancel(1),
            Unsupported(3, "embed"),
        ]
        assert connection.open_requests == {1, 2, 3}


def test_the_gateways_own_lines_are_understood() -> None:
    peer = gateway()
    lines = (
        request_line(peer, "invoke", b"[]", stream=True, context=b'{"a":1}', request_id="é")[1]
        + request_line(peer, "chat", b"[1]", stream=False, request_id="r")[1]
        + peer.send_cancel(2)
    )
    assert WorkerConnection().receive_data(lines) == [
        Invoke(1, b"[]", stream=True, context=b'{"a":1}', request_id="é"),
        Chat(2, b"[1]", stream=False, context=b"{}", request_id="r"),
        Cancel(2),
    ]


def test_a_cancel_of_what_was_answered_is_still_told() -> None:
    connection = worker("invoke")
    connection.send_output(1, None)
    assert connection.receive_data(CANCEL) == [Cancel(1)]


def test_a_notification_that_this_version_does_not_know_is_passed_over() -> None:
    connection = WorkerConnection()
    assert connection.receive_data(b'{"method":"reload","params":7}\n' + INVOKE) == [
        Invoke(1, b'{"a": 1}', stream=False, context=b"{}", request_id="")
    ]


@pytest.mark.parametrize(
    ("line", "violation", "words"),
    [
        (b"garbage", Violation.NOT_A_MESSAGE, "the gateway sent b'garbage'"),
        (b"[]", Violation.NOT_A_MESSAGE, "Expected `object`"),
        (b'{"id":1,"result":{}}', Violation.NOT_A_MESSAGE, "missing required field `method`"),
        (b'{"method":"\xff"}', Violation.NOT_A_MESSAGE, "the gateway sent"),
        (b'{"id":1,"method":"invoke","params":[]}', Violation.NOT_A_MESSAGE, "got `array`"),
        (b"[" * 20_000, Violation.NOT_A_MESSAGE, "the gateway sent"),
        (b'{"id":1,"method":"invoke"}', Violation.WRONG_SHAPE, "invoke without params.input"),
        (b'{"id":1,"method":"chat"}', Violation.WRONG_SHAPE, "chat without params.messages"),
        (b'{"method":"invoke","params":{"input":1}}', Violation.WRONG_SHAPE, "without an id"),
        (b'{"method":"cancel"}', Violation.WRONG_SHAPE, "cancel without params.id"),
        (INVOKE + INVOKE, Violation.DUPLICATE_ID, "request 1 came twice"),
        (b"x" * 30_000, Violation.LINE_TOO_LONG, "longer than 30000 bytes"),
    ],
)
def test_a_gateway_that_breaks_the_protocol_is_not_listened_to_any_more(
    line: bytes, violation: Violation, words: str
) -> None:
    connection = WorkerConnection(max_line_bytes=30_000)
    for data in (line + b"\n", INVOKE, b""):
        with pytest.raises(RemoteProtocolError) as caught:
            connection.receive_data(data)
        assert caught.value.violation is violation
        assert words in str(caught.value)


# What the worker may say


def test_ready_declares_what_the_worker_can_do() -> None:
    line = WorkerConnection().send_ready(
        handlers=["invoke"], concurrency=4, description="d", metadata=b'{"a":\n1}'
    )
    assert answer(line) == {
        "method": "ready",
        "params": {
            "protocol": PROTOCOL_VERSION,
            "handlers": ["invoke"],
            "concurrency": 4,
            "description": "d",
            "metadata": {"a": 1},
        },
    }


def test_ready_leaves_out_a_description_that_was_not_given() -> None:
    params = answer(WorkerConnection().send_ready(handlers=[]))["params"]
    assert params == {"protocol": 1, "handlers": [], "concurrency": 1, "metadata": {}}


@pytest.mark.parametrize(
    "speak",
    [
        lambda connection: connection.send_ready(handlers=[]),
        lambda connection: connection.send_chunk(1, ""),
        lambda connection: connection.send_error(1, 1, ""),
    ],
)
def test_ready_may_only_be_the_first_line(speak: Callable[[WorkerConnection], bytes]) -> None:
    connection = worker("invoke")
    speak(connection)
    with pytest.raises(LocalProtocolError, match="first line"):
        connection.send_ready(handlers=[])


def test_what_was_refused_was_not_the_first_line() -> None:
    connection = worker("invoke")
    with pytest.raises(TypeError):
        connection.send_output(1, object())
    connection.send_ready(handlers=[])


def test_an_output_ends_its_request() -> None:
    connection = worker("invoke", "invoke")
    assert answer(connection.send_output(1, {"a": ["é"]})) == {
        "id": 1,
        "result": {"output": {"a": ["é"]}},
    }
    assert connection.open_requests == {2}


def test_a_message_ends_its_request() -> None:
    message = {"role": "assistant", "content": [{"type": "text"}], "name": "n"}
    assert answer(worker("chat").send_message(1, message)) == {
        "id": 1,
        "result": {"message": message},
    }


def test_chunks_and_an_end() -> None:
    connection = worker("chat")
    assert answer(connection.send_chunk(1, 'a"\n')) == {
        "method": "chunk",
        "params": {"id": 1, "chunk": 'a"\n'},
    }
    assert connection.open_requests == {1}
    assert answer(connection.send_end(1)) == {"id": 1, "result": {}}
    assert not connection.open_requests


def test_a_sender_of_chunks_sends_for_its_request_until_that_has_ended() -> None:
    connection = worker("chat", "chat")
    send = connection.chunk_sender(2)
    assert [answer(send(text))["params"] for text in "ab"] == [
        {"id": 2, "chunk": "a"},
        {"id": 2, "chunk": "b"},
    ]
    with pytest.raises(LocalProtocolError, match="request 2 after chunks"):
        connection.send_message(2, MESSAGE)
    connection.send_end(2)
    with pytest.raises(LocalProtocolError, match="request 2, which is not open"):
        send("c")
    with pytest.raises(LocalProtocolError, match="request 2, which is not open"):
        connection.chunk_sender(2)


def test_a_request_of_the_same_id_is_another_senders() -> None:
    connection = worker("invoke")
    send = connection.chunk_sender(1)
    connection.send_end(1)
    connection.receive_data(b'{"id":1,"method":"invoke","params":{"input":1}}\n')
    with pytest.raises(LocalProtocolError):
        send("a piece of the first")


@pytest.mark.parametrize("chunks", [0, 1])
def test_an_error_ends_a_request_whether_or_not_chunks_were_sent(chunks: int) -> None:
    connection = worker("invoke")
    for _ in range(chunks):
        connection.send_chunk(1, "x")
    assert answer(connection.send_error(1, ErrorCode.INTERNAL, "no")) == {
        "id": 1,
        "error": {"code": -32603, "message": "no"},
    }
    assert not connection.open_requests


def test_an_unsupported_request_can_only_be_refused() -> None:
    connection = WorkerConnection()
    connection.receive_data(UNSUPPORTED)
    for send in (connection.send_chunk, connection.send_output, connection.send_message):
        with pytest.raises(LocalProtocolError, match="'embed' is not supported"):
            send(3, "")
    with pytest.raises(LocalProtocolError, match="'embed' is not supported"):
        connection.send_end(3)
    connection.send_error(3, ErrorCode.HANDLER_NOT_IMPLEMENTED, "no")
    assert not connection.open_requests


MESSAGE = {"role": "assistant", "content": ""}


@pytest.mark.parametrize(
    "send",
    [
        lambda connection, i: connection.send_chunk(i, ""),
        lambda connection, i: connection.send_output(i, 1),
        lambda connection, i: connection.send_message(i, MESSAGE),
        lambda connection, i: connection.send_end(i),
        lambda connection, i: connection.send_error(i, 1, ""),
    ],
)
@pytest.mark.parametrize("request_id", [1, 2])
def test_nothing_can_be_said_for_a_request_that_is_not_owed(
    send: Callable[[WorkerConnection, int], bytes], request_id: int
) -> None:
    connection = worker("invoke")
    connection.send_end(1)
    with pytest.raises(LocalProtocolError, match=f"request {request_id}, which is not open"):
        send(connection, request_id)


def test_a_result_must_be_of_its_methods_kind() -> None:
    connection = worker("invoke", "chat")
    with pytest.raises(LocalProtocolError, match="whose method is 'invoke'"):
        connection.send_message(1, MESSAGE)
    with pytest.raises(LocalProtocolError, match="whose method is 'chat'"):
        connection.send_output(2, 1)
    assert connection.open_requests == {1, 2}


def test_a_result_after_chunks_is_refused() -> None:
    connection = worker("invoke", "chat")
    connection.send_chunk(1, "")
    connection.send_chunk(2, "")
    with pytest.raises(LocalProtocolError, match="after chunks"):
        connection.send_output(1, 1)
    with pytest.raises(LocalProtocolError, match="after chunks"):
        connection.send_message(2, MESSAGE)
    assert connection.open_requests == {1, 2}


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("hi", "Expected `object`, got `str`"),
        ({"role": "assistant"}, "missing required field `content`"),
        ({"role": "bot", "content": ""}, "the role is 'bot'"),
        ({"role": "user", "content": 1}, "the content is a number"),
    ],
)
def test_a_message_that_the_gateway_would_refuse_is_not_sent(message: Any, words: str) -> None:
    connection = worker("chat")
    with pytest.raises(LocalProtocolError, match=words):
        connection.send_message(1, message)
    assert connection.open_requests == {1}


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (object(), TypeError),
        ("\ud800", UnicodeEncodeError),
        (10**5000, ValueError),
    ],
    ids=["no JSON form", "a lone surrogate", "5,000 digits"],
)
def test_what_has_no_json_form_is_refused_and_an_error_can_be_sent_instead(
    value: object, error: type[Exception]
) -> None:
    connection = worker("invoke")
    with pytest.raises(error):
        connection.send_output(1, value)
    connection.send_error(1, ErrorCode.INTERNAL, "no JSON form")


def test_a_chunk_is_a_string() -> None:
    not_a_string: Any = 5
    with pytest.raises(LocalProtocolError, match="a chunk is int, expected str"):
        worker("invoke").send_chunk(1, not_a_string)


def test_nan_and_infinity_are_written_as_null() -> None:
    line = worker("invoke").send_output(1, [math.nan, math.inf])
    assert answer(line)["result"] == {"output": [None, None]}


def test_an_encoded_value_is_written_as_it_is_on_one_line() -> None:
    line = worker("invoke").send_output(1, msgspec.Raw(b'{"a":\n1.50}'))
    assert b'{"a": 1.50}' in line
    assert line.count(b"\n") == 1


def test_a_line_as_long_as_the_cap_is_sent_and_a_longer_one_is_not() -> None:
    overhead = len(worker("invoke").send_output(1, ""))
    connection = worker("invoke", max_line_bytes=300)
    with pytest.raises(LocalProtocolError, match="a line of 300 bytes, and the most is 300"):
        connection.send_output(1, "x" * (301 - overhead))
    assert connection.open_requests == {1}
    assert len(connection.send_output(1, "x" * (300 - overhead))) == 300


def test_a_line_that_the_gateway_would_find_too_deep_is_not_sent() -> None:
    value: list[Any] = []
    for _ in range(MAX_NESTING - 3):
        value = [value]
    connection = worker("invoke", "invoke")
    with pytest.raises(LocalProtocolError, match="deeper than 512"):
        connection.send_output(1, [value])
    connection.send_output(1, value)
    assert connection.open_requests == {2}


def test_a_connection_shows_its_state_for_a_log() -> None:
    connection = worker("invoke", "chat")
    assert repr(connection) == "<WorkerConnection silent, owes 2>"
    connection.send_end(1)
    assert repr(connection) == "<WorkerConnection open, owes 1>"
