"""The gateway's end: each row of the tables in `gateway_side`, and every violation by its name."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from protocol import (
    Chunk,
    End,
    ErrorCode,
    Failure,
    LocalProtocolError,
    Malformed,
    Ready,
    Result,
    Violation,
)
from protocol.errors import MAX_MESSAGE
from protocol.gateway_side import GatewayConnection, WorkerState
from protocol.messages import MAX_DESCRIPTION, MAX_HANDLER_NAME, MAX_HANDLERS, MAX_METADATA_BYTES
from protocol.worker_side import WorkerConnection

from .helpers import READY, gateway, request_line, said, said_however_split, send

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


# The handshake


def test_ready_says_what_the_worker_can_do() -> None:
    line = (
        b'{"jsonrpc":"2.0","method":"ready","params":{"protocol":1,"handlers":["chat","invoke"],'
        b'"concurrency":3,"description":"an agent","metadata":{"v": 1}}}\n'
    )
    assert said_however_split(lambda: gateway(ready=False), line + READY[:30]) == [
        Ready(
            protocol=1,
            handlers=("chat", "invoke"),
            concurrency=3,
            description="an agent",
            metadata=b'{"v": 1}',
        )
    ]


def test_all_but_the_version_and_the_handlers_of_ready_has_a_default() -> None:
    line = b'{"method":"ready","params":{"protocol":1,"handlers":[],"description":null}}\n'
    assert said(gateway(ready=False), line) == [Ready(protocol=1, handlers=())]
    assert Ready(protocol=1, handlers=()).concurrency == 1


def test_a_first_line_other_than_ready_makes_the_worker_a_bare_one() -> None:
    connection = gateway("invoke", ready=False)
    assert connection.worker_state is WorkerState.SILENT
    connection.receive_data(b'{"id":1,"result":{"output":1}}\n')
    assert connection.worker_state is WorkerState.BARE


def test_a_malformed_first_line_makes_it_a_bare_one_too() -> None:
    connection = gateway("invoke", ready=False)
    connection.receive_data(b'{"id":1,"result":7}\n')
    assert connection.worker_state is WorkerState.BARE
    assert said(connection, READY) == [(None, V.READY_NOT_FIRST, None)]


READY_PARAMS = b'"protocol":1,"handlers":["chat"]'
LARGE_METADATA = b'{"a":"%b"}' % (b"x" * (MAX_METADATA_BYTES - len('{"a":""}')))
"""As large as it may be."""


def test_a_ready_as_large_as_it_may_be_is_passed_on_by_both_ends() -> None:
    largest: dict[str, Any] = {
        "handlers": ["h" * MAX_HANDLER_NAME] * MAX_HANDLERS,
        "description": "é" * MAX_DESCRIPTION,
        "metadata": LARGE_METADATA,
    }
    [ready] = said(gateway(ready=False), WorkerConnection().send_ready(**largest))
    assert isinstance(ready, Ready)
    assert (ready.description, ready.metadata) == (largest["description"], LARGE_METADATA)


@pytest.mark.parametrize(
    "larger",
    [
        {"handlers": ["h"] * (MAX_HANDLERS + 1)},
        {"handlers": ["h" * (MAX_HANDLER_NAME + 1)]},
        {"handlers": [], "description": "d" * (MAX_DESCRIPTION + 1)},
        {"handlers": [], "metadata": LARGE_METADATA + b" "},
    ],
)
def test_a_worker_is_not_let_send_a_ready_that_would_be_refused(larger: dict[str, Any]) -> None:
    connection = WorkerConnection()
    with pytest.raises(LocalProtocolError, match=r"ready's .*, expected at most"):
        connection.send_ready(**larger)
    connection.send_ready(handlers=[])


@pytest.mark.parametrize(
    ("params", "violation", "words"),
    [
        (None, V.WRONG_SHAPE, "missing required field `params`"),
        (b"", V.WRONG_SHAPE, "missing required field `protocol`"),
        (b'"protocol":"1"', V.WRONG_SHAPE, "Expected `int`, got `str`"),
        (b'"protocol":2', V.UNSUPPORTED_VERSION, "protocol 2, expected 1"),
        (b'"protocol":0,"handlers":7', V.UNSUPPORTED_VERSION, "protocol 0, expected 1"),
        (b'"protocol":1', V.WRONG_SHAPE, "missing required field `handlers`"),
        (b'"protocol":1,"handlers":"chat"', V.WRONG_SHAPE, "Expected `array`, got `str`"),
        (b'"protocol":1,"handlers":[1]', V.WRONG_SHAPE, "Expected `str`, got `int`"),
        (READY_PARAMS + b',"concurrency":0', V.WRONG_SHAPE, "Expected `int` >= 1"),
        (READY_PARAMS + b',"concurrency":1.5', V.WRONG_SHAPE, "Expected `int`, got `float`"),
        (READY_PARAMS + b',"metadata":[]', V.WRONG_SHAPE, "metadata is an array, expected an obj"),
        (READY_PARAMS + b',"description":1', V.WRONG_SHAPE, "Expected `str | null`, got `int`"),
        (
            READY_PARAMS + b',"description":"%b"' % (b"d" * (MAX_DESCRIPTION + 1)),
            V.WRONG_SHAPE,
            f"{MAX_DESCRIPTION + 1} characters in ready's description, expected at most 4096",
        ),
        (
            READY_PARAMS + b',"metadata":%b' % LARGE_METADATA.replace(b"x", b"xx", 1),
            V.WRONG_SHAPE,
            f"{MAX_METADATA_BYTES + 1} bytes in ready's metadata, expected at most 65536",
        ),
        (
            b'"protocol":1,"handlers":[%b"chat"]' % (b'"h",' * MAX_HANDLERS),
            V.WRONG_SHAPE,
            "17 names in ready's handlers, expected at most 16",
        ),
        (
            b'"protocol":1,"handlers":["%b"]' % (b"h" * (MAX_HANDLER_NAME + 1)),
            V.WRONG_SHAPE,
            "65 characters in a name of ready's handlers, expected at most 64",
        ),
    ],
)
def test_a_ready_of_the_wrong_shape_is_refused(
    params: bytes | None, violation: Violation, words: str
) -> None:
    connection = gateway(ready=False)
    line = b'{"method":"ready"}\n' if params is None else b'{"method":"ready","params":{%s}}\n'
    [event] = connection.receive_data(line % params if params is not None else line)
    assert isinstance(event, Malformed)
    assert (event.id, event.error.violation) == (None, violation)
    assert words in event.error.message
    assert connection.broken


def test_ready_twice_is_a_violation() -> None:
    assert said_however_split(lambda: gateway(ready=False), READY + READY) == [
        Ready(protocol=1, handlers=("invoke", "chat"), concurrency=8),
        (None, V.READY_TWICE, None),
    ]


def test_ready_after_another_line_is_a_violation() -> None:
    data = b'{"id":1,"result":{}}\n' + READY
    assert said_however_split(lambda: gateway("invoke", ready=False), data) == [
        End(1),
        (None, V.READY_NOT_FIRST, None),
    ]


# Answers

MESSAGE = b'{"role":"assistant","content":"hi"}'

LEGAL = [
    ("invoke", b'{"id":1,"result":{"output":[1, 2]}}', [Result(1, b"[1, 2]")]),
    ("invoke", b'{"id":1,"result":{"output":null}}', [Result(1, b"null")]),
    ("invoke", b'{"id":1,"result":{"output": "x" }}', [Result(1, b'"x"')]),
    ("invoke", b'{"id":1,"result":{}}', [End(1)]),
    ("chat", b'{"id":1,"result":{"message":' + MESSAGE + b"}}", [Result(1, MESSAGE)]),
    ("chat", b'{"id":1,"result":{}}', [End(1)]),
    ("chat", b'{"id":1,"error":{"code":-32602,"message":"no"}}', [Failure(1, -32602, "no")]),
    ("invoke", b'{"id":1,"error":{"code":5,"data":[1]}}', [Failure(1, 5, "")]),
    (
        "invoke",
        b'{"method":"chunk","params":{"id":1,"chunk":"a\\u00e9\\n"}}\n{"id":1,"result":{}}',
        [Chunk(1, b'"a\\u00e9\\n"'), End(1)],
    ),
    (
        "chat",
        b'{"method":"chunk","params":{"id":1,"chunk":""}}\n{"id":1,"error":{"code":1}}',
        [Chunk(1, b'""'), Failure(1, 1, "")],
    ),
    (
        "invoke",
        b'{"params":{"chunk":"x","id":1},"method":"chunk","jsonrpc":"2.0","more":[]}\n'
        b'{"result":{"output":1},"more":{},"jsonrpc":"2.0","id":1}'.replace(b'{"output":1}', b"{}"),
        [Chunk(1, b'"x"'), End(1)],
    ),
]


@pytest.mark.parametrize("ready", [True, False])
@pytest.mark.parametrize(("method", "lines", "events"), LEGAL)
def test_legal_answers(method: str, lines: bytes, events: list[object], ready: bool) -> None:
    trailing = b'\n{"id":'
    assert said_however_split(lambda: gateway(method, ready=ready), lines + trailing) == events


@pytest.mark.parametrize(("method", "lines", "events"), LEGAL)
def test_an_answered_request_is_no_longer_in_flight(
    method: str, lines: bytes, events: list[object]
) -> None:
    connection = gateway(method, "invoke")
    assert said(connection, lines + b"\n") == events
    assert connection.in_flight == {2}


def test_answers_may_come_in_any_order() -> None:
    connection = gateway("invoke", "chat", "invoke")
    lines = (
        b'{"id":3,"result":{"output":3}}\n{"method":"chunk","params":{"id":2,"chunk":"a"}}\n'
        b'{"id":1,"result":{"output":1}}\n{"id":2,"result":{}}\n'
    )
    assert said(connection, lines) == [
        Result(3, b"3"), Chunk(2, b'"a"'), Result(1, b"1"), End(2),
    ]  # fmt: skip


def test_an_answer_after_a_cancel_is_fine() -> None:
    connection = gateway("invoke")
    connection.send_cancel(1)
    assert said(connection, b'{"id":1,"result":{"output":1}}\n') == [Result(1, b"1")]
    assert not connection.broken


# Violations that cost one request


def chunk(params: bytes) -> bytes:
    return b'{"method":"chunk","params":{%s}}' % params


PLACED = [
    ("invoke", chunk(b'"id":1'), V.WRONG_SHAPE, "without params.chunk"),
    ("invoke", chunk(b'"id":1,"chunk":5'), V.WRONG_SHAPE, "is a number, expected a string"),
    ("invoke", chunk(b'"id":1,"chunk":null'), V.WRONG_SHAPE, "is null, expected a string"),
    ("invoke", chunk(b'"id":1,"chunk":{}'), V.WRONG_SHAPE, "is an object, expected a string"),
    ("invoke", b'{"id":1}', V.WRONG_SHAPE, "neither result nor error"),
    ("invoke", b'{"id":1,"result":{},"error":{"code":1}}', V.WRONG_SHAPE, "both result and error"),
    ("invoke", b'{"id":1,"result":null}', V.WRONG_SHAPE, "got `null` - at `$.result`, expected"),
    ("invoke", b'{"id":1,"result":"x"}', V.WRONG_SHAPE, "got `str` - at `$.result`"),
    ("invoke", b'{"id":1,"result":{"outptu":1}}', V.WRONG_SHAPE, "unknown field `outptu`"),
    ("invoke", b'{"id":1,"result":{"message":1}}', V.WRONG_SHAPE, "'message', expected 'output'"),
    ("chat", b'{"id":1,"result":{"output":1}}', V.WRONG_SHAPE, "'output', expected 'message'"),
    ("invoke", b'{"id":1,"result":{"output":1,"message":1}}', V.WRONG_SHAPE, "has 'message'"),
    ("chat", b'{"id":1,"result":{"message":"hi"}}', V.WRONG_SHAPE, "Expected `object`, got `str`"),
    ("chat", b'{"id":1,"result":{"message":{"role":"user"}}}', V.WRONG_SHAPE, "field `content`"),
    ("chat", b'{"id":1,"result":{"message":{"content":""}}}', V.WRONG_SHAPE, "field `role`"),
    (
        "chat",
        b'{"id":1,"result":{"message":{"role":"bot","content":""}}}',
        V.WRONG_SHAPE,
        "the role is 'bot', expected one of system, user, assistant, tool",
    ),
    (
        "chat",
        b'{"id":1,"result":{"message":{"role":"user","content":true}}}',
        V.WRONG_SHAPE,
        "the content is true, expected a string, a list, an object or null",
    ),
    ("invoke", b'{"id":1,"error":null}', V.WRONG_SHAPE, "Expected `object`, got `null`"),
    ("invoke", b'{"id":1,"error":{}}', V.WRONG_SHAPE, "missing required field `code`"),
    ("invoke", b'{"id":1,"error":{"code":"x"}}', V.WRONG_SHAPE, "Expected `int`, got `str`"),
    ("invoke", b'{"id":1,"error":{"code":1,"message":2}}', V.WRONG_SHAPE, "Expected `str`"),
    ("invoke", b'{"jsonrpc":"1.0","id":1,"result":{}}', V.WRONG_SHAPE, 'expected "2.0"'),
    (
        "invoke",
        b'{"method":"progress","params":{"id":1}}',
        V.WRONG_SHAPE,
        "'progress' - at `$.method`, expected 'ready', 'chunk' or 'event'",
    ),
    ("invoke", b'{"id":1,"result":{"output":"\xff"}}', V.NOT_UTF8, "not UTF-8"),
    ("invoke", b'{"id":1,"result":{"output":"\\ud83d"}}', V.NOT_UTF8, "surrogate pair"),
]


@pytest.mark.parametrize("ready", [True, False])
@pytest.mark.parametrize(("method", "line", "violation", "words"), PLACED)
def test_a_malformed_line_that_names_its_request_costs_only_that_one(
    method: str, line: bytes, violation: Violation, words: str, ready: bool
) -> None:
    def make() -> GatewayConnection:
        return gateway(method, ready=ready)

    assert said_however_split(make, line + b"\n{") == [(1, violation, 1)]
    connection = make()
    [event] = connection.receive_data(line + b"\n")
    assert isinstance(event, Malformed)
    assert words in event.error.message
    assert not connection.broken
    assert not connection.in_flight
    assert said(connection, b'{"id":%d,"result":{}}\n' % send(connection)) == [End(2)]


def test_a_result_with_a_value_after_chunks_costs_its_request() -> None:
    data = chunk(b'"id":1,"chunk":"a"') + b'\n{"id":1,"result":{"output":"b"}}\n'
    assert said_however_split(lambda: gateway("invoke"), data) == [
        Chunk(1, b'"a"'),
        (1, V.RESULT_AFTER_CHUNKS, 1),
    ]


@pytest.mark.parametrize(
    ("late", "violation"),
    [
        (b'{"id":1,"result":{"output":2}}', V.SECOND_RESULT),
        (b'{"id":1,"result":{}}', V.SECOND_RESULT),
        (b'{"id":1,"error":{"code":1}}', V.SECOND_RESULT),
        (chunk(b'"id":1,"chunk":"late"'), V.CHUNK_AFTER_END),
        (b'{"id":1,"result":7}', V.WRONG_SHAPE),
    ],
)
def test_what_comes_after_the_end_is_reported_and_harms_nobody(
    late: bytes, violation: Violation
) -> None:
    data = b'{"id":1,"result":{"output":1}}\n' + late + b'\n{"id":2,"result":{"output":2}}\n'
    assert said_however_split(lambda: gateway("invoke", "invoke"), data) == [
        Result(1, b"1"),
        (None, violation, 1),
        Result(2, b"2"),
    ]


# Violations that cost the connection

FATAL = [
    (b"garbage", V.NOT_JSON, "not JSON"),
    (b'{"id":1,"result":{"output":NaN}}', V.NOT_JSON, "invalid character (byte 27)"),
    (b'{"id":1,"result":{"output":1}', V.NOT_JSON, "truncated"),
    (b'{"id":1,"result":{}} {"id":2,"result":{}}', V.NOT_JSON, "trailing characters"),
    (b'\xef\xbb\xbf{"id":1,"result":{}}', V.NOT_JSON, "byte-order mark"),
    (b"\xff\xfe", V.NOT_UTF8, "not UTF-8: \\xff\\xfe"),
    (b"[]", V.NOT_A_MESSAGE, "not an object: []"),
    (b' [{"id":1,"result":{}}]', V.NOT_A_MESSAGE, "not an object"),
    (b"null", V.NOT_A_MESSAGE, "not an object"),
    (b"{}", V.WRONG_SHAPE, "neither method nor id"),
    (b'{"result":{"output":1}}', V.WRONG_SHAPE, "neither method nor id"),
    (b'{"id":null,"error":{"code":1,"message":"boom"}}', V.WRONG_SHAPE, "id is null: boom"),
    (b'{"id":null,"result":{}}', V.WRONG_SHAPE, "id is null"),
    (b'{"id":"1","result":{}}', V.WRONG_SHAPE, "got `str` - at `$.id`"),
    (b'{"id":1.0,"result":{}}', V.WRONG_SHAPE, "got `float` - at `$.id`"),
    (b'{"id":true,"result":{}}', V.WRONG_SHAPE, "got `bool` - at `$.id`"),
    (b'{"id":%s,"result":{}}' % (b"1" * 5000), V.WRONG_SHAPE, "out of range"),
    (b'{"id":%s,"result":{}}' % (b"1" * 4000), V.UNKNOWN_ID, "an answer for request 1111"),
    (b'{"id":3,"result":{}}', V.UNKNOWN_ID, "an answer for request 3, which was never sent"),
    (b'{"id":0,"result":{}}', V.UNKNOWN_ID, "an answer for request 0, which was never sent"),
    (b'{"id":-1,"result":7}', V.WRONG_SHAPE, "got `int` - at `$.result`"),
    (chunk(b'"id":3,"chunk":"x"'), V.UNKNOWN_ID, "a chunk for request 3, which was never sent"),
    (chunk(b'"chunk":"x"'), V.WRONG_SHAPE, "a chunk without params.id"),
    (b'{"method":"chunk"}', V.WRONG_SHAPE, "a chunk without params.id"),
    (b'{"method":"chunk","params":[1,"x"]}', V.WRONG_SHAPE, "got `array` - at `$.params`"),
    (b'{"method":"log","params":{}}', V.WRONG_SHAPE, "'log'"),
    (b'{"id":1,"method":"ask","params":{}}', V.WRONG_SHAPE, "'ask'"),
    (b'{"id":7,"method":"ask","params":{"id":1}}', V.WRONG_SHAPE, "'ask'"),
    (b'{"id":1,"method":"chunk","params":{"id":1,"chunk":""}}', V.WRONG_SHAPE, "may send none"),
    (b'{"id":1,"method":"ready"}', V.WRONG_SHAPE, "may send none"),
    (b'{"method":"\xff"}', V.NOT_UTF8, "not UTF-8"),
    (b'{"id":1,"result":{"output":' + b"[" * 511 + b"]" * 511 + b"}}", V.NESTED_TOO_DEEPLY, "512"),
    (b"[" * 5000, V.NESTED_TOO_DEEPLY, "deeper than 512"),
    (b"x" * 20_000, V.LINE_TOO_LONG, "longer than 10000 bytes"),
]


@pytest.mark.parametrize("ready", [True, False])
@pytest.mark.parametrize(("line", "violation", "words"), FATAL)
def test_a_line_that_cannot_be_placed_costs_the_connection(
    line: bytes, violation: Violation, words: str, ready: bool
) -> None:
    def make() -> GatewayConnection:
        connection = gateway(ready=ready, max_line_bytes=10_000)
        for _ in range(2 if ready else 1):
            send(connection)
        return connection

    connection = make()
    [event] = connection.receive_data(line + b'\n{"id":1,"result":{}}\n')
    assert isinstance(event, Malformed)
    assert (event.id, event.error.violation, event.error.request_id) in {
        (None, violation, None),
        (None, violation, -1),
    }
    assert words in event.error.message
    assert connection.broken
    assert not connection.in_flight
    assert connection.receive_data(b'{"id":2,"result":{}}\n') == []
    if len(line) < 1000:
        said_however_split(make, line + b'\n{"id":1,"result":{}}\n')


def test_what_came_before_a_fatal_line_counts() -> None:
    data = b'{"id":1,"result":{"output":1}}\ngarbage\n'
    assert said_however_split(lambda: gateway("invoke", "invoke"), data) == [
        Result(1, b"1"),
        (None, V.NOT_JSON, None),
    ]


def test_the_words_of_a_violation_are_short_however_long_the_line_is() -> None:
    long = b"x" * 100_000
    for line in (
        b'{"%s' % long,
        b'{"id":1,"result":{"%s":1}}' % long,
        b'{"method":"%s"}' % long,
        b'{"id":null,"error":{"code":1,"message":"%s"}}' % long,
        b'{"id":1,"result":{"message":{"role":"%s","content":""}}}' % long,
    ):
        [event] = gateway("chat").receive_data(line + b"\n")
        assert isinstance(event, Malformed)
        assert len(event.error.message) <= MAX_MESSAGE + 1


def test_the_start_of_the_line_is_shown_however_long_the_reason_is() -> None:
    [event] = gateway("invoke").receive_data(b'{"id":1,"result":{"%s":1}}\n' % (b"x" * 1000))
    assert isinstance(event, Malformed)
    assert ': {"id":1,"result":{"xxx' in event.error.message


def test_a_caller_deep_in_its_own_stack_gets_an_event_and_no_exception() -> None:
    line = b'{"id":1,"result":{"output":' + b"[" * 500 + b"]" * 500 + b"}}\n"

    def descend(depth: int) -> list[object]:
        return descend(depth - 1) if depth else list(gateway("invoke").receive_data(line))

    [event] = descend(700)
    # Versions of Python with a stack of its own for C code have room for it.
    assert isinstance(event, Result) or event.error.violation is V.NESTED_TOO_DEEPLY


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
