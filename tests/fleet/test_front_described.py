"""What a host says of an agent, as the settings and the declaration that a front goes by."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fleet.front import described as module
from gateway.fleet.front.described import BACKSTOP, read_description
from gateway.fleet.messages import AgentDescription

READY = (
    b'{"jsonrpc":"2.0","method":"ready","params":'
    b'{"protocol":1,"handlers":["chat"],"description":"d"}}\n'
)


def description(**members: Any) -> bytes:
    told: dict[str, Any] = {
        "ready": READY,
        "known": True,
        "description": None,
        "session": "exclusive",
        "session_by": "user",
        "continues": True,
        "most_workers": 3,
        "queue": 7,
        "total": 60.0,
        "write": 5.0,
    }
    return msgspec.msgpack.encode(AgentDescription(**(told | members)))


def test_the_settings_are_those_that_a_front_needs() -> None:
    described = read_description(description())
    assert described is not None
    settings = described.settings
    assert (settings.session, settings.session_by, settings.on_disconnect) == (
        "exclusive",
        "user",
        "continue",
    )
    assert (settings.workers.max, settings.workers.min, settings.queue) == (3, 0, 7)
    assert settings.clocks.seconds("total") == 60 + BACKSTOP
    assert settings.clocks.seconds("write") == 5
    assert {settings.clocks.seconds(each) for each in ("start", "queue", "first", "idle")} == {
        math.inf
    }
    assert described.ready is not None
    assert described.ready.handlers == ("chat",)


@pytest.mark.parametrize("total", [math.inf, math.nan, -1.0, 0.0, 1e300])
def test_a_clock_that_is_none_is_off(total: float) -> None:
    described = read_description(description(total=total))
    assert described is not None
    assert described.settings.clocks.seconds("total") == math.inf


@pytest.mark.parametrize(
    "members",
    [
        {"ready": b"nonsense\n"},
        {"ready": READY + READY},
        {"ready": b""},
        {"session": "nonsense"},
        {"session_by": ""},
    ],
)
def test_what_cannot_be_used_is_no_description(members: dict[str, Any]) -> None:
    assert read_description(description(**members)) is None


def test_numbers_and_texts_are_bounded() -> None:
    described = read_description(
        description(most_workers=-5, queue=2**60, description="x" * 500_000)
    )
    assert described is not None
    assert described.settings.workers.max == 1
    assert described.settings.queue == module.MOST_WORKERS
    assert len(described.settings.description or "") == module.MOST_DESCRIPTION


@given(st.binary(max_size=300))
def test_no_bytes_do_harm(body: bytes) -> None:
    read_description(body)
