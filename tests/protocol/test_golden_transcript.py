"""The README's transcripts, replayed byte by byte against both ends, and its workers, run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import UNSET, Raw, Struct, UnsetType

import protocol
from protocol import (
    Cancel,
    Chat,
    Chunk,
    End,
    Event,
    Failure,
    Invoke,
    Outcome,
    Ready,
    Result,
    events,
)
from protocol.gateway_side import GatewayConnection
from protocol.worker_side import WorkerConnection

from .helpers import request_line

README = Path(protocol.__file__).with_name("README.md").read_text(encoding="utf-8")
TRANSCRIPTS = re.findall(r"^```transcript\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
WITH_READY, WITHOUT_READY, WITH_EVENTS = TRANSCRIPTS
NAMES = ["with ready", "without ready", "with events"]


class Message(Struct):
    """Any line of a transcript, with what both ends take as bytes left as it is."""

    method: str = ""
    id: int = 0
    params: dict[str, Raw] = {}
    result: dict[str, Raw] | UnsetType = UNSET
    error: dict[str, Any] | UnsetType = UNSET


def read(transcript: str) -> list[tuple[str, bytes, Message]]:
    lines = []
    for line in transcript.splitlines():
        arrow, text = line[0], line[2:].encode() + b"\n"
        assert arrow in "→←"
        lines.append((arrow, text, msgspec.json.decode(text, type=Message)))
    return lines


def value(raw: Raw) -> Any:
    return msgspec.json.decode(raw)


def optional(params: dict[str, Raw]) -> dict[str, Any]:
    """What a request says only where there is something to say."""
    return {
        name: read(params[name])
        for name, read in (
            ("events", value),
            ("tools", bytes),
            ("resume", bytes),
            ("traceparent", value),
            ("tracestate", value),
        )
        if name in params
    }


def declared(params: dict[str, Raw]) -> dict[str, Any]:
    """What `ready` says only where there is something to say."""
    return {
        name: read(params[name])
        for name, read in (
            ("input", bytes),
            ("modes", lambda raw: tuple(value(raw))),
            ("tools", value),
            ("asks", value),
        )
        if name in params
    }


def outcome(result: dict[str, Raw]) -> dict[str, Any]:
    """How an answer ended, as an argument, if it says so."""
    if not result.keys() & {"finish", "usage", "asks"}:
        return {}
    usage, asks = result.get("usage"), result.get("asks")
    return {
        "outcome": Outcome(
            value(result["finish"]),
            None if usage is None else bytes(usage),
            None if asks is None else bytes(asks),
        )
    }


def gateway_says(connection: GatewayConnection, message: Message) -> bytes:
    params = message.params
    if message.method == "cancel":
        return connection.send_cancel(value(params["id"]))
    request_id, line = request_line(
        connection,
        message.method,
        bytes(params["input" if message.method == "invoke" else "messages"]),
        stream=value(params["stream"]),
        context=bytes(params["context"]),
        request_id=value(params["request_id"]),
        **optional(params),
    )
    assert request_id == message.id
    return line


def worker_says(connection: WorkerConnection, message: Message) -> bytes:
    params = message.params
    if message.method == "ready":
        return connection.send_ready(
            handlers=value(params["handlers"]),
            concurrency=value(params["concurrency"]),
            description=value(params["description"]),
            metadata=bytes(params["metadata"]),
            **declared(params),
        )
    if message.method == "chunk":
        return connection.send_chunk(value(params["id"]), value(params["chunk"]))
    if message.method == "event":
        return connection.send_event(value(params["id"]), params["event"])
    if message.error is not UNSET:
        return connection.send_error(message.id, **message.error)
    assert message.result is not UNSET
    ended = outcome(message.result)
    if "output" in message.result:
        return connection.send_output(message.id, message.result["output"], **ended)
    if "message" in message.result:
        return connection.send_message(message.id, message.result["message"], **ended)
    return connection.send_end(message.id, **ended)


def as_heard_by_the_gateway(message: Message) -> Any:
    params = message.params
    if message.method == "ready":
        return Ready(
            protocol=value(params["protocol"]),
            handlers=tuple(value(params["handlers"])),
            concurrency=value(params["concurrency"]),
            description=value(params["description"]),
            metadata=bytes(params["metadata"]),
            **declared(params),
        )
    if message.method == "chunk":
        return Chunk(value(params["id"]), bytes(params["chunk"]))
    if message.method == "event":
        return Event(value(params["id"]), bytes(params["event"]))
    if message.error is not UNSET:
        return Failure(message.id, **message.error)
    assert message.result is not UNSET
    ended = outcome(message.result)
    values = [bytes(raw) for key, raw in message.result.items() if key in {"output", "message"}]
    return Result(message.id, *values, **ended) if values else End(message.id, **ended)


def as_heard_by_the_worker(message: Message) -> Any:
    params = message.params
    if message.method == "cancel":
        return Cancel(value(params["id"]))
    kind = Invoke if message.method == "invoke" else Chat
    return kind(
        message.id,
        bytes(params["input" if message.method == "invoke" else "messages"]),
        stream=value(params["stream"]),
        context=bytes(params["context"]),
        request_id=value(params["request_id"]),
        **optional(params),
    )


def byte_by_byte(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=NAMES)
def test_the_gateways_end_says_and_hears_exactly_the_transcript(transcript: str) -> None:
    lines = read(transcript)
    asked = [message.id for arrow, _, message in lines if arrow == "→" and message.id]
    connection = GatewayConnection(ids=iter(asked))
    for arrow, text, message in lines:
        if arrow == "→":
            assert gateway_says(connection, message) == text
        else:
            events = [e for byte in byte_by_byte(text) for e in connection.receive_data(byte)]
            assert events == [as_heard_by_the_gateway(message)]
    assert not connection.in_flight
    assert not connection.broken


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=NAMES)
def test_the_workers_end_hears_exactly_the_transcript_and_says_the_same(transcript: str) -> None:
    connection = WorkerConnection()
    for arrow, text, message in read(transcript):
        if arrow == "→":
            events = [e for byte in byte_by_byte(text) for e in connection.receive_data(byte)]
            assert events == [as_heard_by_the_worker(message)]
        else:
            said = worker_says(connection, message)
            if transcript is WITHOUT_READY:  # this worker leaves out "jsonrpc", ours does not
                said = said.replace(b'"jsonrpc":"2.0",', b"")
            assert said == text
    assert not connection.open_requests


def test_the_transcripts_show_every_message() -> None:
    shown = {(arrow, message.method) for arrow, _, message in read(WITH_READY)}
    assert shown == {
        ("→", "invoke"), ("→", "chat"), ("→", "cancel"),
        ("←", "ready"), ("←", "chunk"), ("←", ""),
    }  # fmt: skip
    answers = [m for arrow, _, m in read(WITH_READY) if arrow == "←" and m.id]
    assert any(m.error is not UNSET for m in answers)
    assert {tuple(m.result) for m in answers if m.result is not UNSET} == {
        ("output",), ("message",), (),
    }  # fmt: skip


def test_the_transcript_with_events_shows_every_way_in_which_a_turn_may_end() -> None:
    results = [m.result for _, _, m in read(WITH_EVENTS) if m.result is not UNSET]
    assert {value(result["finish"]) for result in results} == {
        "stop", "tool_calls", "input_required",
    }  # fmt: skip


def test_the_readme_tells_every_type_of_event_and_every_finish() -> None:
    section = README.partition("## Events\n")[2].partition("\n## ")[0]
    types = re.findall(r"^\| `([a-z_]+)` \|", section, re.MULTILINE)
    assert set(types) == {"type", *events.EVENT_TYPES, "finish", "asks"}
    assert all(f'`"{finish}"`' in section for finish in events.FINISHES)
    for most in (
        events.MAX_EVENT_BYTES,
        events.MAX_CALLS,
        events.MAX_STATUS_TEXT,
        events.MAX_PATH,
        events.MAX_ASK_MESSAGE,
        events.MAX_SCHEMA_BYTES,
    ):
        assert f"{most:,}" in section
    for most in (
        events.MAX_ID,
        events.MAX_TOOL_NAME,
        events.MAX_FILE_NAME,
        events.MAX_TYPE,
        events.MAX_USAGE_MEMBERS,
        events.MAX_ASKS,
    ):
        assert f" {most} " in section.replace(",", " ")


def test_the_readme_names_every_violation_of_a_worker() -> None:
    table = README.partition("## Violations")[2].partition("## ")[0]
    named = set(re.findall(r"`([a-z_0-9]+)`", table))
    of_the_gateway = {protocol.Violation.DUPLICATE_ID}
    assert {v.value for v in protocol.Violation if v not in of_the_gateway} <= named


def test_the_limits_in_the_readme_are_those_of_the_code() -> None:
    assert f"({protocol.MAX_LINE_BYTES:,} bytes)" in README
    assert f"**{protocol.MAX_NESTING}** deep" in README
    assert f"**{protocol.MAX_INPUT_NESTING}** deep" in README


REQUEST_ID = 23_410_077_851_204
"""As large as the gateway's own: a worker in any language has to return it exactly."""

PATIENCE = 30
"""Seconds for a worker of a few lines to start, answer and exit, on a machine that is busy."""


def answers_of(argv: list[str]) -> list[Any]:
    """What the gateway hears from a real process that is given one request and the end of stdin."""
    connection = GatewayConnection(ids=iter([REQUEST_ID]))
    _, line = request_line(connection, "invoke", b'"h\xc3\xa9llo"', stream=False, request_id="r")
    done = subprocess.run(argv, input=line, capture_output=True, timeout=PATIENCE, check=True)
    return list(connection.receive_data(done.stdout))


def example(language: str) -> str:
    [code] = re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return code


def test_the_python_worker_in_the_readme_works() -> None:
    [answer] = answers_of([sys.executable, "-c", example("python")])
    assert isinstance(answer, Result)
    assert value(Raw(answer.value)) == "H\u00c9LLO"


def test_the_jq_worker_in_the_readme_works() -> None:
    if shutil.which("jq") is None and not os.environ.get("CI"):
        pytest.skip("jq is not installed")
    assert answers_of(["sh", "-c", example("sh")]) == [Result(REQUEST_ID, '"H\u00e9LLO"'.encode())]
