"""What a front makes of outcomes that hosts have written, which may be anything."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config import Clocks
from gateway.errors import InvalidAgentResponse
from gateway.exchange import Exchange
from gateway.fleet.background import Store
from gateway.fleet.front.jobs import SOMEBODY, read_outcome
from gateway.fleet.front.request import RemoteRequest
from gateway.fleet.lookup import Lookup
from tests.fleet.front_scene import a_call

pytest.importorskip("nats", reason="nats-py is of an extra")


class Written:
    """A JetStream in which every message is the same."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def run(self, function: Any) -> Any:
        del function
        return self._data


@pytest.mark.parametrize(
    "data", [b"", b"nonsense", b"\x93\xc4\x00\xc0\xc3", b"\x91" * 100_000, b"\x90"]
)
async def test_an_outcome_that_is_none_ends_its_run_with_one_honest_error(data: bytes) -> None:
    outcome = await Store(Written(data), "gw", ttl=60).outcome("echo", "0")
    assert outcome is not None
    exchange = Exchange(a_call(), Clocks(), 0.0)
    read_outcome(outcome, RemoteRequest(exchange, Lookup()), SOMEBODY)
    assert isinstance(exchange.error, InvalidAgentResponse)
