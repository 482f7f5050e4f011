"""The gateway's end: each legal answer, as the tables in `gateway_side` have it."""

from __future__ import annotations

import pytest

from protocol import (
    Chunk,
    End,
    Failure,
    Result,
)

from .helpers import gateway, said, said_however_split

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
