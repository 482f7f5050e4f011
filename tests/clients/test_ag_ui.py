"""What AG-UI's own client makes of runs, whatever their agents say: it verifies every event and its
place, and puts the client's messages together."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from ag_ui.core import ResumeEntry, RunAgentInput, Tool, UserMessage
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import Cancelled, WorkerCrashed
from protocol import Outcome
from tests.clients.clients import AUTHORIZATION, NODE, RUNNERS
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
Read = Callable[[dict[str, Any], bytes], dict[str, Any]]


CURRENT, BEFORE = "@ag-ui/client", "@ag-ui/client-0.0"
"""The client of today, and the one that CopilotKit's runtime has within it."""


@pytest.fixture(scope="module", params=[CURRENT, BEFORE])
def package(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def read(package: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Read]:
    """Gives the client a stream, and returns what it made of it."""
    need_package(package)
    folder = tmp_path_factory.mktemp("client")
    (folder / "node_modules").symlink_to(MODULES)
    shutil.copy(Path(RUNNERS, PROGRAM), folder)
    command = [need_runtime(NODE), str(folder / PROGRAM), package]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        given_to, told = client.stdin, client.stdout

        def ask(request: dict[str, Any], stream: bytes) -> dict[str, Any]:
            asked = {
                "messages": request["messages"],
                "resume": request["resume"],
                "stream": stream.decode(),
            }
            given_to.write(json.dumps(asked).encode() + b"\n")
            given_to.flush()
            answer: dict[str, Any] = json.loads(told.readline())
            return answer

        yield ask
        given_to.close()


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


def test_the_client_takes_whatever_an_agent_says(read: Read, package: str) -> None:
    version = "1.0" if package == CURRENT else None

    @given(
        REQUESTS,
        st.lists(WORDS, max_size=12),
        OUTCOMES,
        RESULTS,
        st.sampled_from(["well", "well", "well", "cancelled", "crashed"]),
    )
    @settings(unhurried, max_examples=300)
    def hold(
        request: dict[str, Any],
        said: list[Any],
        outcome: Outcome | None,
        result: bytes | None,
        end: str,
    ) -> None:
        request = {**request, "protocolVersion": version}
        stream = stream_of(request, said, outcome, result, end)
        told = read(request, stream)
        assert told["error"] is None
        # A patch need not fit the state that it is for: that is the agent's business.
        assert [w for w in told["warnings"] if "apply state patch" not in w] == []
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
            assert told["pending"] == last["outcome"]["pendingToolCallIds"]

    hold()


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
