"""The events of A2A's streams, and the artifacts that they add up to."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import Call
from gateway.config import Clocks
from gateway.errors import AgentFailed
from gateway.exchange import Exchange
from gateway.front.a2a import task
from gateway.front.a2a.task import Artifacts, Record
from gateway.front.a2a.telling import TaskStream, Work, framed
from protocol import Outcome
from tests.unit.a2a import (
    VERSION,
    a2a,
    body_of,
    message,
    rpc,
    states,
    talk,
    text_of,
)
from tests.unit.memory import SPARE, most_memory

WORDS = st.one_of(
    st.text().map(msgspec.json.encode),
    st.text(max_size=40).map(lambda text: msgspec.json.encode({"type": "reasoning", "text": text})),
    st.text(max_size=40).map(lambda text: msgspec.json.encode({"type": "status", "text": text})),
    st.binary(max_size=40).map(
        lambda data: msgspec.json.encode(
            {"type": "file", "name": "f", "mime": "a/b", "data": base64.b64encode(data).decode()}
        )
    ),
    st.sampled_from(
        [
            b'{"type":"tool_call","call":"c","name":"weather","delta":"{"}',
            b'{"type":"tool_call","call":"d","name":"own","arguments":{}}',
            b'{"type":"tool_result","call":"d","content":[1,\t2]}',
            b'{"type":"state","value":{"a":"\xe2\x80\xa8"}}',
            b'{"type":"x-own","y":1}',
        ]
    ),
)


@given(st.lists(st.lists(WORDS, min_size=1, max_size=5), max_size=6), st.booleans())
def test_the_events_of_a_stream_add_up_to_the_task(batches: list[list[bytes]], fails: bool) -> None:
    call = Call(agent="a", method="chat", payload=b"[]", stream=True, request_id="r", events=True)
    exchange = Exchange(call, Clocks(), 0.0)
    work = Work("c", frozenset({"weather"}), None)
    work.id = "task_1"
    stream = TaskStream(work, exchange)
    sent = [stream.chunks(words) for words in batches]
    middle = len(sent) // 2
    if fails:
        sent.append(stream.error(AgentFailed("no")))
    else:
        exchange.outcome = Outcome("stop")
        sent.append(stream.end(None))
    kept = b"".join(b"id: 0\n" + each + b"\n\n" for each in b"".join(sent).split(b"\n\n") if each)
    lines = framed(kept, b'"x\\u2028"').split(b"\n")
    told = [json.loads(line.removeprefix(b"data: ")) for line in lines if line[:5] == b"data:"]
    assert len(told) == work.events
    assert all("\u2028" not in line.decode() for line in lines)
    assert middle <= len(told)
    assert states([each["result"] for each in told])[-1] == ("FAILED" if fails else "COMPLETED")
    record = Record.read(work.record("failed" if fails else "completed").write())
    shown = json.loads(record.show())
    updates = [
        each["result"]["artifactUpdate"] for each in told if "artifactUpdate" in each["result"]
    ]
    assert text_of(shown.get("artifacts", [])) == text_of([each["artifact"] for each in updates])
    files = [each["artifact"] for each in updates if each["artifact"]["name"] == "f"]
    assert [each for each in shown.get("artifacts", []) if each["name"] == "f"] == files


async def test_a_defect_in_mid_stream_is_told_as_an_error_to_each_reader(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: TaskStream, result: Any) -> bytes:
        raise ZeroDivisionError

    monkeypatch.setattr(TaskStream, "end", broken)
    async with a2a(talk) as it:
        body = body_of("SendStreamingMessage", {"message": message("hi")}, "one")
        first = it.begin("/a2a/a", body, headers=VERSION)
        await trio.sleep(0.5)
        asked = {"id": "task_" + first.run.removeprefix("run_")}
        second = await rpc(it, "SubscribeToTask", asked)
        await first.answered.wait()
        for client, id_ in ((first, "one"), (second, 7)):
            lines = [line for line in client.body.split(b"\n") if line.startswith(b"data: ")]
            told = [json.loads(line.removeprefix(b"data: ")) for line in lines]
            assert {each["id"] for each in told} == {id_}
            assert all("result" in each for each in told[:-1])
            assert (set(told[-1]), told[-1]["error"]["code"]) == (
                {"jsonrpc", "id", "error"},
                -32603,
            )
        failed = (await rpc(it, "GetTask", asked)).json["result"]
        assert failed["status"]["state"] == task.FAILED
    assert "ZeroDivisionError" in caplog.text


def test_more_than_a_task_keeps_ends_it() -> None:
    call = Call(agent="a", method="chat", payload=b"[]", stream=True, request_id="r", events=True)
    exchange = Exchange(call, Clocks(), 0.0)
    work = Work("c", frozenset(), None)
    stream = TaskStream(work, exchange)
    word = msgspec.json.encode("x" * (task.MAX_OUTPUT // 2))
    assert b"artifactUpdate" in stream.chunks([word])
    stream.chunks([word])
    assert exchange.error is not None
    assert stream.chunks([word]) == b""
    assert b"TASK_STATE_FAILED" in stream.end(None)
    assert work.record("failed").task.state == task.FAILED


def test_the_text_of_a_task_takes_no_more_memory_in_small_pieces() -> None:
    artifacts = Artifacts()
    pieces = 200_000
    with most_memory(3 * 2 * pieces + SPARE):  # the buffer grows by copies
        for index in range(pieces):
            artifacts.text(b"%02d" % (index % 100))
    assert len(artifacts.said) == 2 * pieces + 2


def test_chunks_that_say_nothing_are_no_events() -> None:
    work = Work("c", frozenset(), None)
    told = b"".join(work.text([text]) for text in (b'""', b'""', b'"a"', b'""', b'"b"'))
    assert (work.events, told.count(b"artifactUpdate")) == (3, 3)
    assert work.artifacts.said == b'"ab"'


def test_artifacts_keep_their_order() -> None:
    artifacts = Artifacts()
    artifacts.add("before", b'{"text":"1"}')
    assert artifacts.text(b"a") == ("artifact-2", True)
    artifacts.add("after", b'{"text":"2"}')
    assert artifacts.text(b"b") == ("artifact-2", False)
    told = json.loads(Artifacts(artifacts.render()).render())
    assert [(each["artifactId"], each["name"]) for each in told] == [
        ("artifact-1", "before"),
        ("artifact-2", "answer"),
        ("artifact-3", "after"),
    ]
    assert told[1]["parts"] == [{"text": "ab"}]
