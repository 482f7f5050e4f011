"""JSON at its edges, on its way to a worker and on its way back: the README's table."""

from __future__ import annotations

import tracemalloc
from itertools import count

import pytest

from protocol import (
    MAX_INPUT_NESTING,
    Invoke,
    Malformed,
    Result,
    Violation,
    is_utf8,
    nests_deeper,
    on_one_line,
)
from protocol.gateway_side import GatewayConnection
from protocol.worker_side import WorkerConnection

from .helpers import READY, gateway, request_line, said

PASSED_ON = {
    "duplicate keys": b'{"a":1,"a":2}',
    "5,000 digits": b"1" * 5000,
    "a number past the largest float": b"1e999",
    "minus zero": b"-0",
    "trailing zeros": b"1.5000",
    "DEL": b'"\x7f"',
    "an escaped NUL": b'"\\u0000"',
    "a surrogate pair": b'"\\ud83d\\ude00"',
    "an escaped newline": b'"\\n"',
    "a line separator": '"\u2028"'.encode(),
    "a byte-order mark in a string": '"\ufeff"'.encode(),
    "no value": b"null",
    "white space": b"[ 1 ,\t2 ]",
    "512 deep, envelope included": b"[" * 510 + b"]" * 510,
}

REFUSED = {
    "NaN": (b"NaN", Violation.NOT_JSON),
    "Infinity": (b"-Infinity", Violation.NOT_JSON),
    "a leading zero": (b"01", Violation.NOT_JSON),
    "a trailing comma": (b"[1,]", Violation.NOT_JSON),
    "single quotes": (b"'a'", Violation.NOT_JSON),
    "a comment": (b"1/**/", Violation.NOT_JSON),
    "a tab in a string": (b'"\t"', Violation.NOT_JSON),
    "NUL": (b'"\x00"', Violation.NOT_JSON),
    "nothing": (b"", Violation.NOT_JSON),
    "half a surrogate pair": (b'"\\ud83d"', Violation.NOT_UTF8),
    "the other half": (b'"\\ude00"', Violation.NOT_UTF8),
    "an escaped backslash before half a pair": (b'"\\\\ud83d \\ud83d"', Violation.NOT_UTF8),
    "half a character": (b'"\xe2\x82"', Violation.NOT_UTF8),
    "an encoded surrogate": (b'"\xed\xa0\xbd"', Violation.NOT_UTF8),
    "Latin-1 in a key": (b'{"\xe9":1}', Violation.NOT_UTF8),
    "513 deep": (b"[" * 511 + b"]" * 511, Violation.NESTED_TOO_DEEPLY),
    "5,000 deep": (b"[" * 5000 + b"]" * 5000, Violation.NESTED_TOO_DEEPLY),
    "a million deep, unclosed": (b'{"a":' * 1_000_000, Violation.NESTED_TOO_DEEPLY),
}

PLACEABLE = {Violation.NOT_UTF8}


@pytest.mark.parametrize("payload", PASSED_ON.values(), ids=PASSED_ON.keys())
def test_a_payload_is_passed_on_as_the_bytes_it_is_but_for_what_ends_a_line(payload: bytes) -> None:
    connection = gateway()
    _, line = request_line(connection, "invoke", payload, stream=False, request_id="r")
    [request] = WorkerConnection().receive_data(line)
    assert isinstance(request, Invoke)
    assert request.input == on_one_line(payload)
    answer = b'{"id":1,"result":{"output":' + payload + b"}}\n"
    assert said(connection, answer) == [Result(1, payload)]


@pytest.mark.parametrize(("output", "violation"), REFUSED.values(), ids=REFUSED.keys())
def test_an_output_that_is_not_fit_for_a_client_is_refused(
    output: bytes, violation: Violation
) -> None:
    connection = gateway("invoke", "invoke")
    [event] = connection.receive_data(b'{"id":1,"result":{"output":' + output + b"}}\n")
    assert isinstance(event, Malformed)
    assert event.error.violation is violation
    assert event.id == (1 if violation in PLACEABLE else None)
    assert connection.broken == (violation not in PLACEABLE)


@pytest.mark.parametrize(("payload", "violation"), REFUSED.values(), ids=REFUSED.keys())
def test_what_a_decoder_lets_pass_of_an_input_the_checks_find(
    payload: bytes, violation: Violation
) -> None:
    assert is_utf8(payload) == (violation is not Violation.NOT_UTF8 or b"\\u" in payload)
    assert nests_deeper(payload, MAX_INPUT_NESTING) == (violation is Violation.NESTED_TOO_DEEPLY)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"id":1,"result":{"output":1}}\r', [Result(1, b"1")]),
        (b"\r", []),
        (b"", []),
        (b" \t ", []),
        (b'  {"id":1,"result":{"output":1}}  ', [Result(1, b"1")]),
        (b'{"id":1,\n"result":{}}', [(None, Violation.NOT_JSON, None)]),
        (b'\xef\xbb\xbf{"id":1,"result":{}}', [(None, Violation.NOT_JSON, None)]),
        (b'{"id":9,"result":{"output":0},"id":1,"result":{"output":1}}', [Result(1, b"1")]),
        (b'{"id":1,"method":null,"result":{}}', [(None, Violation.WRONG_SHAPE, None)]),
    ],
    ids=[
        "a carriage return",
        "only a carriage return",
        "empty",
        "blank",
        "white space around it",
        "a newline within it",
        "a byte-order mark",
        "keys twice: the last one counts",
        "a null method is a method",
    ],
)
def test_lines_at_their_edges(line: bytes, expected: list[object]) -> None:
    assert said(gateway("invoke", "invoke"), line + b"\n") == expected


HUGE = 6_000_000
PEAK_COPIES = 4
"""Of a payload, at the most, while it is checked and passed on: what was read, the line, the
payload, and what is looked through for its depth."""


@pytest.mark.parametrize(
    "payload",
    [
        b"[" + b",".join([b"[]"] * (HUGE // 3)) + b"]",
        b"[" + b",".join([b'"["'] * (HUGE // 4)) + b"]",
        b'"' + b"x" * HUGE + b'"',
        '"{}"'.format("😀" * (HUGE // 4)).encode(),
        b"[" * (HUGE // 2) + b"]" * (HUGE // 2),
    ],
    ids=["two million arrays", "brackets in strings", "one string", "one string of emoji", "deep"],
)
def test_a_huge_payload_costs_no_objects_on_its_way(payload: bytes) -> None:
    line = b'{"id":1,"result":{"output":' + payload + b"}}\n"
    reads = [line[at : at + 65536] for at in range(0, len(line), 65536)]
    connection = GatewayConnection(ids=count(1))
    connection.receive_data(READY)
    tracemalloc.start()
    try:
        request_line(connection, "invoke", payload, stream=False, request_id="r")
        events = said(connection, *reads)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    deep = payload.startswith(b"[[[")
    assert events == [(None, Violation.NESTED_TOO_DEEPLY, None) if deep else Result(1, payload)]
    assert peak < PEAK_COPIES * len(payload)
