"""What AG-UI's own client makes of runs, whatever their agents say: it verifies every event and its
place, and puts the client's messages together."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from ag_ui.core import ResumeEntry, RunAgentInput, Tool, UserMessage
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from gateway.errors import Cancelled, WorkerCrashed
from protocol import Outcome
from tests.clients.clients import AUTHORIZATION, NODE, RUN_SECONDS, RUNNERS
from tests.clients.runners import TOOL
from tests.harness import GatewayInThread
from tests.javascript import MODULES, need_package, need_runtime
from tests.unit.ag_ui import (
    OUTCOMES,
    REQUESTS,
    RESULTS,
    WORDS,
    Order,
    allowed,
    begin,
    events_of,
)
from tests.unit.conftest import unhurried

TASKS = (
    "hello", "think", "search", "weather", "weather-in-pieces", "weather-whole", "own-weather",
    "fail-in-search", "draw", "work", "change", "ask-when", "ask-leave", "stop-early",
    "fail-later",
)  # fmt: skip

PROGRAM = "read_ag_ui.mjs"


CURRENT, BEFORE = "@ag-ui/client", "@ag-ui/client-0.0"
"""The client of today, and the one that CopilotKit's runtime has within it."""


@pytest.fixture(scope="module", params=[CURRENT, BEFORE])
def package(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def stream_of(
    request: dict[str, Any],
    said: Sequence[Any],
    outcome: Outcome | None,
    result: bytes | None,
    end: str,
) -> bytes:
    codec, exchange = begin(**request)
    stream = codec.stream(exchange)
    words = list(allowed(said))
    told = stream.chunks(words) if words else b""
    if end == "cancelled":
        return told + stream.error(Cancelled())
    if end == "crashed":
        return told + stream.error(WorkerCrashed("it died"))
    exchange.end(result, outcome)
    return told + stream.end(result)


def runs_of(version: str | None) -> list[tuple[dict[str, Any], bytes, str]]:
    """Requests, each with its response and how that ended, made at random."""
    runs = []

    @given(
        REQUESTS,
        st.lists(WORDS, max_size=12),
        OUTCOMES,
        RESULTS,
        st.sampled_from(["well", "well", "well", "cancelled", "crashed"]),
    )
    @settings(unhurried, max_examples=200, phases=[Phase.generate], database=None)
    def make(
        request: dict[str, Any],
        said: list[Any],
        outcome: Outcome | None,
        result: bytes | None,
        end: str,
    ) -> None:
        request = {**request, "protocolVersion": version}
        runs.append((request, stream_of(request, said, outcome, result, end), end))

    make()
    return runs


@pytest.mark.timeout(RUN_SECONDS + 60)
def test_the_client_takes_whatever_an_agent_says(package: str, tmp_path: Path) -> None:
    need_package(package)
    runs = runs_of("1.0" if package == CURRENT else None)
    (tmp_path / "node_modules").symlink_to(MODULES)
    shutil.copy(Path(RUNNERS, PROGRAM), tmp_path)
    asked = [
        {"messages": request["messages"], "resume": request["resume"], "stream": stream.decode()}
        for request, stream, _ in runs
    ]
    # All at once: two processes that wait for one another for each run take long under load.
    client = subprocess.run(
        [need_runtime(NODE), str(tmp_path / PROGRAM), package],
        input="".join(f"{json.dumps(each)}\n" for each in asked),
        stdout=subprocess.PIPE,
        text=True,
        timeout=RUN_SECONDS,
        check=True,
    )
    answers = [json.loads(line) for line in client.stdout.split("\n")[:-1]]
    for run_, told in zip(runs, answers, strict=True):
        check(*run_, told, package)


def check(
    request: dict[str, Any], stream: bytes, end: str, told: dict[str, Any], package: str
) -> None:
    """What the client made of one response."""
    assert told["error"] is None, stream
    # A patch need not fit the state that it is for: that is the agent's business.
    assert [w for w in told["warnings"] if "apply state patch" not in w] == [], stream
    if end == "well":
        assert (told["failed"], told["outcome"] in {"success", "interrupt"}) == (None, True)
        look_at_history(request, told)
    elif end == "cancelled" and package == CURRENT:
        assert (told["failed"], told["outcome"]) == (None, "cancelled")
    else:
        code = "cancelled" if end == "cancelled" else "worker_crashed"
        assert (told["failed"], told["outcome"]) == (code, None)
    if told["outcome"] == "success" and package == CURRENT:
        last = json.loads(stream.decode().split("\n\n")[-2].removeprefix("data: "))
        # It takes any call without a result for its own, if none is named.
        assert told["pending"] == last["outcome"]["pendingToolCallIds"], stream


def look_at_history(request: dict[str, Any], told: dict[str, Any]) -> None:
    """The client's messages are such that they can be sent again: each id is there once, each call
    has one result at most, and one that has none is old, or the client's to make."""
    messages = told["messages"]
    ids = [message["id"] for message in messages]
    calls = [call["id"] for each in messages for call in each.get("toolCalls", [])]
    results = [each["toolCallId"] for each in messages if each["role"] == "tool"]
    assert len(set(ids)) == len(ids)
    assert len(set(calls)) == len(calls)
    assert len(set(results)) == len(results)
    assert set(results) <= set(calls)
    old = {call["id"] for each in request["messages"] for call in each.get("toolCalls", [])}
    if told["outcome"] == "success":
        names = {
            call["id"]: call["function"]["name"]
            for each in messages
            for call in each.get("toolCalls", [])
        }
        left = {names[call] for call in set(calls) - set(results) - old}
        assert left <= {tool["name"] for tool in request["tools"]}


def run(gateway: GatewayInThread, task: str, **members: Any) -> list[dict[str, Any]]:
    """The events of a run, each of which the Python package's types accept; they make the request
    as well."""
    message = UserMessage(id="m1", content=task)
    tool = Tool(**TOOL)
    asked = RunAgentInput(
        thread_id="t", run_id="r", protocol_version="1.0", messages=[message], tools=[tool],
        **members,
    )  # fmt: skip
    answer = httpx.post(
        f"{gateway.url}/ag-ui/told",
        content=asked.model_dump_json(by_alias=True),
        headers={"content-type": "application/json", **AUTHORIZATION},
        timeout=30,
        verify=False,
    )
    assert answer.status_code == 200, answer.text
    return events_of(answer.content)


@pytest.mark.parametrize("task", TASKS)
def test_every_event_is_one_of_the_python_packages_types(
    gateway: GatewayInThread, task: str
) -> None:
    Order().check(run(gateway, task))


def test_a_call_waits_for_the_answer_to_a_question(gateway: GatewayInThread) -> None:
    asked = run(gateway, "ask-leave")
    [call] = [event for event in asked if event["type"] == "TOOL_CALL_START"]
    [interrupt] = asked[-1]["outcome"]["interrupts"]
    assert interrupt["toolCallId"] == call["toolCallId"]
    assert "TOOL_CALL_RESULT" not in [event["type"] for event in asked]
    resume = [ResumeEntry(interrupt_id=interrupt["id"], status="cancelled")]
    answered = run(gateway, "ask-leave", resume=resume)
    assert "Then not." in [event.get("delta") for event in answered]
    assert answered[-1]["outcome"] == {"type": "success", "pendingToolCallIds": []}
