"""What needs no process to be checked, and what does. The rest is tested through a real gateway."""

from __future__ import annotations

import math

import pytest
import trio

from gateway.errors import ClockRanOut, GatewayError, Overloaded
from gateway.workers.input_checker import InputChecker
from worker.schemas import encode_schema


@pytest.mark.parametrize(
    ("type_", "payload"),
    [(dict, b'{"a":1}'), (dict, memoryview(b"{}")), (list, b"[1]"), (str, b'"text"')],
)
async def test_a_schema_that_only_says_the_kind_is_checked_without_a_process(
    type_: type, payload: bytes | memoryview
) -> None:
    inputs = InputChecker("a", encode_schema("input", type_))
    await inputs.check(payload)  # `run` is not running: what needs a process would wait for ever
    assert inputs.pid is None


@pytest.mark.parametrize(
    ("schema", "payload"),
    [
        (b'{"type":"object"}', b"[]"),
        (b'{"type":"object"}', b'"{"'),
        (b'{"type":"string"}', b"1"),
        (b'{"type":"object","required":["a"]}', b"{}"),
        (b'{"type":"integer"}', b"1"),
    ],
)
async def test_anything_else_is_for_the_process_to_judge(
    schema: bytes, payload: bytes, autojump_clock
) -> None:
    inputs = InputChecker("a", schema)
    with trio.move_on_after(1) as waiting:
        await inputs.check(payload)
    assert waiting.cancelled_caught


@pytest.mark.parametrize(
    ("within", "error", "seconds"), [(0.5, ClockRanOut, 0.5), (math.inf, Overloaded, 30)]
)
async def test_who_waits_for_a_check_does_not_wait_longer_than_it_wants_or_may(
    within: float, error: type[GatewayError], seconds: float, autojump_clock
) -> None:
    inputs = InputChecker("a", b'{"type":"integer"}')  # and nothing runs it
    with pytest.raises(error):
        await inputs.check(b"1", within)
    assert trio.current_time() == pytest.approx(seconds)
