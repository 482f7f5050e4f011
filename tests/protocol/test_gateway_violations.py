"""The gateway's end: every violation by its name, and what it costs."""

from __future__ import annotations

import pytest

from protocol import (
    Chunk,
    End,
    Malformed,
    Result,
    Violation,
)
from protocol.errors import MAX_MESSAGE
from protocol.gateway_side import GatewayConnection

from .helpers import gateway, said, said_however_split, send

V = Violation


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
