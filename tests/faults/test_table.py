"""Every fault that a request can trigger, in several forms of request, beside a neighbour.

Faults that need a scene of their own (at the start, after the answer, with others in flight) are in
the other files of this folder.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.agents.wire import FAULT, FAULT_AFTER_A_WORD
from tests.faults.scene import agent, ask, back_to, body, error_of, footprint, scene, served_by
from tests.harness import RunningGateway


@dataclass(frozen=True)
class Fault:
    """An agent of `tests/agents/` and the outcome that its fault must have."""

    script: str
    status: int
    type: str
    details: dict[str, Any]
    """What the error must contain, besides whether output had begun."""
    argument: str = ""
    says: str = ""
    """Part of the error's message."""
    fresh_worker: bool = True
    """Whether another worker must serve the next request; otherwise the same one must."""
    clocks: dict[str, float] = field(default_factory=dict)
    after_a_word: dict[str, Any] = field(default_factory=dict)
    """Details that differ once the answer has begun."""

    def __str__(self) -> str:
        return f"{self.script.removesuffix('.py')} {self.argument}".strip()


CRASH = (501, "worker_crashed")
INVALID = (502, "invalid_agent_response")

FAULTS = [
    Fault("exit_mid_frame.py", *CRASH, {"exit_status": 3}, says="exited with status 3"),
    Fault("segfault.py", *CRASH, {"signal": "SIGSEGV"}, says="SIGSEGV"),
    Fault("grandchild.py", *CRASH, {"exit_status": 3}),
    Fault("grandchild.py", *CRASH, {"exit_status": 3}, argument="flood"),
    Fault("close_stdout.py", *CRASH, {}, says="closed its stdout"),
    Fault(
        "stop_itself.py",
        504,
        "timeout",
        {"clock": "first"},
        # Within `first` come the words of workers that do not stop, also on a busy machine.
        clocks={"first": 1.5, "idle": 0.4, "cancel": 0.2},
        after_a_word={"clock": "idle"},
    ),
    Fault("garbage.py", *INVALID, {"violation": "not_json"}, argument="text"),
    Fault("garbage.py", *INVALID, {"violation": "not_utf8"}, argument="binary"),
    Fault("garbage.py", *INVALID, {"violation": "not_a_message"}, argument="array"),
    Fault("garbage.py", *INVALID, {"violation": "not_a_message"}, argument="null"),
    Fault("endless_line.py", *INVALID, {"violation": "line_too_long"}, says="8388608"),
    Fault("unknown_id.py", *INVALID, {"violation": "unknown_id"}),
    Fault("ready_twice.py", *INVALID, {"violation": "ready_twice"}),
    # These lines name their request: they cost that request, and no worker.
    Fault("half_character.py", *INVALID, {"violation": "not_utf8"}, fresh_worker=False),
    Fault("wrong_shape.py", *INVALID, {"violation": "wrong_shape"}, fresh_worker=False),
]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
async def test_a_fault_ends_its_request_with_its_own_error_and_touches_nothing_else(
    fault: Fault, level: str, tmp_path: Path
) -> None:
    arguments = [fault.argument] if fault.argument else []
    bad = agent(fault.script, *arguments, clocks={**fault.clocks, "stop": 1})
    async with scene(tmp_path, level=level, bad=bad) as gateway:
        worker = await served_by(gateway, "bad")
        neighbour = await served_by(gateway, "good")
        before = footprint(gateway)
        for kind, stream, after_a_word in (
            ("invoke", False, False),
            ("invoke", False, True),
            ("chat", True, False),
            ("chat", True, True),
        ):
            form = f"{kind}, stream {stream}, after a word {after_a_word}"
            error = await _fail(gateway, fault, kind, stream=stream, after_a_word=after_a_word)
            details = {**fault.details, **(fault.after_a_word if after_a_word else {})}
            assert details.items() <= error.items(), form
            assert error["output_begun"] is after_a_word, form
            assert fault.says in error["message"], form
            if "clock" in details:
                assert error["elapsed"] >= fault.clocks[details["clock"]], form
            next_worker = await served_by(gateway, "bad", {"after": form})
            assert (next_worker != worker) is fault.fresh_worker, form
            worker = next_worker
        assert await served_by(gateway, "good") == neighbour
        await back_to(gateway, before)


async def _fail(
    gateway: RunningGateway, fault: Fault, kind: str, *, stream: bool, after_a_word: bool
) -> dict[str, Any]:
    """The error that the fault causes; until it comes, the neighbour is served."""
    errors: list[dict[str, Any]] = []
    wish = FAULT_AFTER_A_WORD if after_a_word else FAULT
    # The gateway closes the connection, so that it is not among the descriptors afterwards.
    close = {"connection": "close"}
    async with httpx.AsyncClient(base_url=gateway.url, timeout=60, headers=close) as client:

        async def provoke() -> None:
            data = {**body(wish, kind), "stream": stream}
            answer = await client.post(f"/agent/bad/{kind}", json=data)
            if stream and after_a_word:
                errors.append(error_of_stream(answer))
            else:
                errors.append(error_of(answer, fault.status, fault.type))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(provoke)
            served = 0
            while not errors or not served:
                assert (await ask(gateway, "good", "hello")).status_code == 200
                served += 1
    [error] = errors
    assert error["type"] == fault.type
    return error


def error_of_stream(answer: httpx.Response) -> dict[str, Any]:
    """The error at the end of a stream of one word; nothing follows it: a cut stream never looks
    whole."""
    assert answer.status_code == 200
    word, event, nothing = answer.text.split("\n\n")
    assert (word, nothing) == ('data: {"chunk":"word"}', "")
    name, data = event.split("\n")
    assert name == "event: error"
    return json.loads(data.removeprefix("data: "))["error"]  # type: ignore[no-any-return]
