"""The gateway's end: the first line of a worker."""

from __future__ import annotations

from typing import Any

import pytest

from protocol import (
    End,
    LocalProtocolError,
    Malformed,
    Ready,
    Violation,
)
from protocol.gateway_side import WorkerState
from protocol.messages import MAX_DESCRIPTION, MAX_HANDLER_NAME, MAX_HANDLERS, MAX_METADATA_BYTES
from protocol.worker_side import WorkerConnection

from .helpers import READY, gateway, said, said_however_split

V = Violation


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
