"""Answers as UI message streams: what `readUIMessageStream` accepts, and what it makes of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.call import Call
from gateway.config import Clocks
from gateway.errors import AgentFailed, AgentNotFound, Cancelled, GatewayError, RateLimited
from gateway.exchange import Exchange
from gateway.front.chats import calls
from gateway.front.chats.parts import MAX_EVENTS_AT_ONCE
from gateway.front.dialect import RequestHead, RunRequest
from gateway.front.runs.ring import error_event
from gateway.front.ui.dialect import ChatCodec, ResumeCodec, UIDialect
from gateway.front.ui.resumable import Resumable
from gateway.front.ui.stream import UIStream
from protocol import Outcome
from protocol.events import RequestEvents
from tests.unit.conftest import unhurried

HEAD = RequestHead(request_id="r-1")
USER = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": "hi"}]}
TOOLS = {"weather": {"inputSchema": {"type": "object"}}}
USAGE = b'{"input_tokens":7,"output_tokens":3,"reasoning_tokens":2}'
CITY = {"city": "Oslo"}


def words_of(*said: Any) -> list[bytes]:
    return [json.dumps(each, ensure_ascii=False).encode() for each in said]


def begun(*messages: Any, **body: Any) -> tuple[UIStream, Exchange]:
    codec = ChatCodec("bot", Resumable())
    sent = {"messages": messages or [USER], "tools": TOOLS, **body}
    call = codec.decode(HEAD, json.dumps(sent).encode())
    assert isinstance(call, Call)
    exchange = Exchange(call, Clocks(), 0.0)
    return codec.stream(exchange), exchange


def parts_in(data: bytes) -> list[dict[str, Any]]:
    """The parts of a stream, or of a piece of it, without `[DONE]`."""
    *events, nothing = data.decode().split("\n\n")
    assert nothing == ""
    found = []
    for event in events:
        assert "\n" not in event
        assert len(event.splitlines()) == 1
        if not event.startswith(":") and event != "data: [DONE]":
            found.append(json.loads(event.removeprefix("data: ")))
    return found


def told(
    *batches: Sequence[bytes],
    outcome: Outcome | None = None,
    result: bytes | None = None,
    messages: Sequence[Any] = (),
) -> list[dict[str, Any]]:
    """The parts between `start-step` and `finish-step` of a stream that ended well, and `finish`
    as the last."""
    stream, exchange = begun(*messages)
    data = b"".join([stream.chunks(list(batch)) for batch in batches])
    exchange.end(result, outcome)
    data += stream.end(result)
    assert data.endswith(b"data: [DONE]\n\n")
    start, step, *parts, finished, finish = parts_in(data)
    assert (start["type"], step["type"]) == ("start", "start-step")
    assert (finished["type"], finish["type"]) == ("finish-step", "finish")
    return [*parts, finish]


def event(kind: str, **members: Any) -> dict[str, Any]:
    return {"type": kind, **members}


def call(call_id: str = "s1", name: str = "search", **members: Any) -> dict[str, Any]:
    return event("tool_call", call=call_id, name=name, **(members or {"arguments": CITY}))


def result_of(call_id: str = "s1", content: Any = "3 pages", **members: Any) -> dict[str, Any]:
    return event("tool_result", call=call_id, content=content, **members)


def kinds(parts: list[dict[str, Any]]) -> list[str]:
    return [part["type"] for part in parts]


def test_text_and_reasoning_are_parts_that_end_each_other() -> None:
    thought = event("reasoning", text="Hm. ")
    parts = told(words_of("It ", "is"), words_of(thought, thought, "", "12\u2028°C"))
    assert [(part["type"], part.get("id"), part.get("delta")) for part in parts[:-1]] == [
        ("text-start", "1", None),
        ("text-delta", "1", "It "),
        ("text-delta", "1", "is"),
        ("text-end", "1", None),
        ("reasoning-start", "2", None),
        ("reasoning-delta", "2", "Hm. "),
        ("reasoning-delta", "2", "Hm. "),
        ("reasoning-end", "2", None),
        ("text-start", "3", None),
        ("text-delta", "3", "12\u2028°C"),
        ("text-end", "3", None),
    ]


def test_chunks_that_come_together_are_few_parts() -> None:
    parts = told(words_of(*["x"] * 1000))
    deltas = [part["delta"] for part in parts if part["type"] == "text-delta"]
    assert len(deltas) == MAX_EVENTS_AT_ONCE
    assert "".join(deltas) == "x" * 1000


@pytest.mark.parametrize(
    ("finish", "reason"),
    [("stop", "stop"), ("length", "length"), ("refused", "content-filter"), (None, "stop")],
)
def test_the_end_says_why_and_what_it_took(finish: str | None, reason: str) -> None:
    [*_, end] = told(words_of("Hi"), outcome=Outcome(finish, USAGE, None))
    usage = {"inputTokens": 7, "outputTokens": 3, "reasoningTokens": 2, "totalTokens": 10}
    assert end == event("finish", finishReason=reason, messageMetadata={"usage": usage})
    assert told(words_of("Hi"))[-1] == event("finish", finishReason="stop")


def test_one_message_is_a_stream_as_well() -> None:
    function = {"name": "weather", "arguments": '{"city":"Oslo"}'}
    message = {
        "role": "assistant",
        "content": "Hi",
        "reasoning_content": "hm",
        "tool_calls": [{"id": "c1", "type": "function", "function": function}],
    }
    parts = told(result=json.dumps(message).encode())
    assert [part.get("delta") for part in parts if "delta" in part] == ["hm", "Hi"]
    made = event("tool-input-available", toolCallId="c1", toolName="weather", input=CITY)
    assert parts[-2:] == [made, event("finish", finishReason="tool-calls")]
    stream, exchange = begun()
    message["tool_calls"] = 1
    exchange.end(json.dumps(message).encode(), None)
    assert kinds(parts_in(stream.end(json.dumps(message).encode()))) == [
        "start",
        "start-step",
        "error",
    ]
    assert stream.failure is not None


OWN = {"dynamic": True, "providerExecuted": True}


def test_a_call_of_the_agents_own_is_shown_and_run_by_nobody() -> None:
    parts = told(words_of("See: ", call(), result_of(), "Done."))
    assert parts[3:5] == [
        event("tool-input-available", toolCallId="s1", toolName="search", input=CITY, **OWN),
        event("tool-output-available", toolCallId="s1", output="3 pages", **OWN),
    ]
    assert kinds(parts)[:3] == ["text-start", "text-delta", "text-end"]
    failed = told(words_of(call(), result_of(content={"a": 1}, is_error=True)))
    assert failed[1] == event("tool-output-error", toolCallId="s1", errorText='{"a": 1}', **OWN)


def test_arguments_that_come_in_pieces_are_shown_as_they_come() -> None:
    pieces = [call(delta='{"city":'), call(delta='"Oslo"}')]
    parts = told(words_of(*pieces, result_of()))
    assert [part.get("inputTextDelta") for part in parts[:3]] == [None, '{"city":', '"Oslo"}']
    assert parts[3]["input"] == CITY
    broken = told(words_of(call(delta='{"city'), result_of()))
    assert broken[2]["input"] == '{"city'
    assert told(words_of(call(delta=""), result_of()))[2]["input"] == {}


def test_a_call_of_the_pages_is_told_at_the_end_only() -> None:
    stream, exchange = begun()
    first = stream.chunks(words_of(call("c1", "weather", delta='{"city":"Oslo"}'), call(), "x"))
    assert '"c1"' not in first.decode()
    exchange.end(None, Outcome("tool_calls", None, None))
    parts = parts_in(stream.end(None))
    assert parts[1] == event(
        "tool-input-available", toolCallId="c1", toolName="weather", input=CITY
    )
    assert parts[-1]["finishReason"] == "tool-calls"


def test_a_call_by_the_name_of_a_tool_of_the_pages_may_be_the_agents_own() -> None:
    answered = told(
        words_of(call("w1", "weather"), result_of("w1", "12 °C")),
        outcome=Outcome("tool_calls", None, None),
    )
    assert answered[0]["providerExecuted"] is True
    assert answered[-1]["finishReason"] == "stop"
    left = told(words_of(call("w1", "weather")), outcome=Outcome("stop", None, None))
    assert left[0]["providerExecuted"] is True


def test_what_is_said_of_a_call_after_its_end_is_dropped() -> None:
    parts = told(words_of(call(), call(delta="x"), result_of(), result_of(), result_of("nobody")))
    assert kinds(parts) == ["tool-input-available", "tool-output-available", "finish"]


def test_more_arguments_than_are_kept_end_the_answer() -> None:
    stream, exchange = begun()
    piece = "x" * (calls.MAX_HELD // 4)
    for number in range(3):
        stream.chunks(words_of(call(f"c{number}", "weather", delta=piece[1000:])))
    last = stream.chunks(words_of("so far", call("c9", delta=piece + "x" * 3001)))
    assert b"so far" in last
    assert stream.failure is not None
    assert exchange.error is stream.failure
    assert stream.chunks(words_of("more")) == b""
    assert kinds(parts_in(stream.end(None))) == ["error"]
    # What was told whole is not kept.
    told(*[words_of(call(f"c{n}", delta=piece), result_of(f"c{n}")) for n in range(8)])


@pytest.mark.parametrize("tool", ["weather", "own"])
def test_arguments_may_come_in_any_number_of_short_pieces(tool: str) -> None:
    """A model's pieces have a few characters each."""
    words = words_of(*[call("c1", tool, delta="x")] * 10_000)
    *_, last, _ = told(words, outcome=Outcome("tool_calls", None, None))
    assert last["input"] == "x" * 10_000


def test_files_statuses_states_and_events_of_the_agents_own() -> None:
    parts = told(
        words_of(
            "Here: ",
            event("file", name="a.txt", mime="text/plain", data="SGk="),
            event("file", name="b.png", mime="image/png", path="https://example.com/b.png"),
            event("status", text="Reading", progress=1, total=2),
            event("status", text="Writing"),
            event("state", value={"a": 1}),
            event("state", patch=[{"op": "remove", "path": "/a"}]),
            event("x-map", at=[1, 2]),
            event("usage", input_tokens=1),
        )
    )
    assert parts[3:-1] == [
        event(
            "file",
            url="data:text/plain;base64,SGk=",
            mediaType="text/plain",
            providerMetadata={"agent": {"filename": "a.txt"}},
        ),
        event(
            "file",
            url="https://example.com/b.png",
            mediaType="image/png",
            providerMetadata={"agent": {"filename": "b.png"}},
        ),
        event("data-status", data={"text": "Reading", "progress": 1, "total": 2}, transient=True),
        event("data-status", data={"text": "Writing"}, transient=True),
        event("data-state", id="state", data={"a": 1}),
        event("data-state-patch", data=[{"op": "remove", "path": "/a"}], transient=True),
        event("data-x-map", data={"type": "x-map", "at": [1, 2]}, transient=True),
    ]


def test_a_question_is_a_part_for_the_user() -> None:
    ask = {"id": "a1", "reason": "input_required", "message": "Which day?", "schema": {"a": 1}}
    parts = told(
        words_of("One thing. "),
        outcome=Outcome("input_required", None, json.dumps([ask]).encode()),
    )
    assert parts[-2:] == [
        event("data-ask", id="a1", data=ask),
        event("finish", finishReason="other"),
    ]


def asks(**members: Any) -> Outcome:
    ask = {"id": "a1", "reason": "approval", "message": "Delete it?", **members}
    return Outcome("input_required", None, json.dumps([ask]).encode())


def test_a_question_about_a_call_of_the_agents_own_is_a_request_for_approval() -> None:
    parts = told(words_of(call("d1", "delete")), outcome=asks(call="d1"))
    assert parts[-2:] == [
        event("tool-approval-request", approvalId="a1", toolCallId="d1", reason="Delete it?"),
        event("finish", finishReason="tool-calls"),
    ]
    for outcome in (asks(call="d2"), asks(call="d1", schema={"type": "object"}), asks()):
        parts = told(words_of(call("d1", "delete")), outcome=outcome)
        assert parts[-2]["type"] == "data-ask"
    answered = told(words_of(call("d1"), result_of("d1")), outcome=asks(call="d1"))
    assert answered[-2]["type"] == "data-ask"


def assistant(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"id": "m7", "role": "assistant", "parts": list(parts)}


def shown_call(state: str, name: str = "delete", **members: Any) -> dict[str, Any]:
    return {"type": f"tool-{name}", "toolCallId": "d1", "state": state, "input": {}, **members}


@pytest.mark.parametrize("again", [True, False])
def test_what_an_approved_call_returns_stands_where_it_was_approved(again: bool) -> None:
    approval = {"id": "a1", "approved": True}
    last = assistant(shown_call("approval-responded", approval=approval, providerExecuted=True))
    said = [call("d1", "delete")] * again + [result_of("d1", "deleted")]
    parts = told(words_of(*said), messages=[USER, last])
    assert parts[:-1] == [event("tool-output-available", toolCallId="d1", output="deleted", **OWN)]


def test_a_denied_call_is_told_to_be_denied() -> None:
    approval = {"id": "a1", "approved": False}
    last = assistant(shown_call("approval-responded", approval=approval, providerExecuted=True))
    parts = told(words_of("Then not."), messages=[USER, last])
    assert parts[0] == event("tool-output-denied", toolCallId="d1")


def test_an_answer_that_goes_on_is_added_to_the_last_message() -> None:
    last = assistant(shown_call("output-available", "weather", output=1))
    stream, exchange = begun(USER, last)
    data = stream.chunks(words_of(call("d1", "weather"), call("d2", "weather")))
    exchange.end(None, Outcome("tool_calls", None, None))
    parts = parts_in(data + stream.end(None))
    assert parts[0] == event("start", messageId="m7")
    ids = [part["toolCallId"] for part in parts if part["type"] == "tool-input-available"]
    assert ids[0].startswith("call_")  # the message has a `d1` already
    assert ids[1:] == ["d2"]


def test_a_new_answer_has_an_id_of_its_own() -> None:
    first, second = (parts_in(begun()[0].keep_alive())[0]["messageId"] for _ in range(2))
    assert first.startswith("msg_")
    assert first != second


def test_a_silence_is_a_comment_after_the_opening() -> None:
    stream, _ = begun()
    assert stream.keep_alive().endswith(b"\n\n: keep-alive\n\n")
    assert stream.keep_alive() == b": keep-alive\n\n"
    assert (b"x-vercel-ai-ui-message-stream", b"v1") in stream.headers


def test_an_error_is_told_in_the_stream_and_nothing_ends() -> None:
    stream, _ = begun()
    data = stream.chunks(words_of("so far")) + stream.error(AgentFailed("no luck"))
    parts = parts_in(data)
    assert parts[-1] == event("error", errorText="no luck")
    assert not {"text-end", "finish-step", "finish"} & {*kinds(parts)}
    assert b"[DONE]" not in data
    aborted = parts_in(stream.error(Cancelled()))
    assert aborted == [event("abort", reason=Cancelled().message)]


@pytest.mark.parametrize(
    ("error", "headers"),
    [
        (AgentNotFound("there is no agent 'x'"), {b"x-error-type": b"agent_not_found"}),
        (RateLimited("later", setting="a", retry_after=2), {b"retry-after": b"2"}),
    ],
)
def test_an_error_before_the_stream_is_a_text_that_people_read(
    error: GatewayError, headers: dict[bytes, bytes]
) -> None:
    codec = UIDialect().match("/ui/x")
    assert codec is not None
    response = codec.encode_error(error, "r-1")
    assert (response.status, response.body) == (error.status, error.message.encode())
    assert headers.items() <= dict(response.headers).items()
    # In the stream of a run that is cut, it is a part that the reader raises.
    name, data = error_event(response).split(b"\n")
    assert name == b"event: error"
    told_part = json.loads(data.removeprefix(b"data: "))
    assert told_part == event("error", errorText=error.message)


@pytest.mark.parametrize(
    ("path", "kind", "agent"),
    [
        ("/ui/bot", ChatCodec, "bot"),
        ("/ui/bot/c1/stream", ResumeCodec, "bot"),
        ("/ui/bot/a/b/stream", type(None), None),
        ("/ui/bot/stream", type(None), None),
        ("/ui/bot//stream", type(None), None),
        ("/ui/bot/c1", type(None), None),
        ("/ui/bot/", type(None), None),
        ("/ui/", type(None), None),
        ("/ui", type(None), None),
        ("/uix/bot", type(None), None),
    ],
)
def test_paths(path: str, kind: type, agent: str | None) -> None:
    found = UIDialect().match(path)
    assert type(found) is kind
    assert found is None or found.agent == agent


def test_a_chat_that_is_a_run_is_found_again() -> None:
    dialect = UIDialect()
    codec = dialect.match("/ui/bot")
    assert isinstance(codec, ChatCodec)
    codec.decode(HEAD, json.dumps({"id": "a b", "messages": [USER]}).encode())
    codec.kept_as("token")
    for path, token in (("/ui/bot/a b/stream", "token"), ("/ui/bot/a/stream", "")):
        found = dialect.match(path)
        assert isinstance(found, ResumeCodec)
        assert found.decode(HEAD, b"") == RunRequest("rejoin", token)


CALLS = st.sampled_from(["s1", "d1", "c1"])
EVENTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
    st.builds(lambda text: event("reasoning", text=text), st.text("ab", max_size=2)),
    st.builds(lambda c: call(c, "search" if c == "s1" else "weather"), CALLS),
    st.builds(lambda c, d: call(c, "search" if c == "s1" else "weather", delta=d), CALLS,
              st.sampled_from(['{"a"', ":1}", ""])),
    st.builds(lambda c, e: result_of(c, is_error=e), CALLS, st.booleans()),
    st.just(event("status", text="x")),
    st.just(event("state", value=1)),
    st.just(event("file", name="a", mime="a/b", path="p")),
)  # fmt: skip
FINISHES = st.sampled_from(["stop", "tool_calls", "input_required", None])


def test_every_stream_is_one_that_the_reader_accepts() -> None:
    seen: set[str] = set()

    @unhurried
    @example(batches=[[call()]], finish="input_required", goes_on=False)
    @given(st.lists(st.lists(EVENTS, min_size=1, max_size=5), max_size=5), FINISHES, st.booleans())
    def check(batches: list[list[Any]], finish: str | None, goes_on: bool) -> None:
        outcome = asks(call="s1") if finish == "input_required" else Outcome(finish, None, None)
        approval = {"id": "a1", "approved": True}
        last = assistant(shown_call("approval-responded", approval=approval, providerExecuted=True))
        kept = as_the_wire_has_it(batches)
        parts = told(*kept, outcome=outcome, messages=[USER, last] if goes_on else ())
        check_as_a_reader({"d1"} if goes_on else set(), parts)
        seen.update(kinds(parts))

    check()
    assert {
        "text-delta", "reasoning-delta", "tool-input-start", "tool-input-delta",
        "tool-input-available", "tool-output-available", "tool-output-error", "data-ask",
        "tool-approval-request", "data-status", "data-state", "file", "finish",
    } <= seen  # fmt: skip


def as_the_wire_has_it(batches: list[list[Any]]) -> list[list[bytes]]:
    """The words, without those that the wire refuses."""
    known, kept = RequestEvents(), []
    for batch in batches:
        words = []
        for word in words_of(*batch):
            try:
                if word[:1] == b"{":
                    known.add(word)
            except ValueError:
                continue
            words.append(word)
        if words:
            kept.append(words)
    return kept


def check_as_a_reader(shown: set[str], parts: list[dict[str, Any]]) -> None:
    """What `processUIMessageStream` throws for, and what a page would show wrongly."""
    opened: dict[str, str] = {}
    inputs, whole, outputs = set(shown), set(shown), set()
    for part in parts:
        kind, _, step = part["type"].partition("-")
        if kind in {"text", "reasoning"}:
            if step == "start":
                assert not opened
                opened[part["id"]] = kind
            else:
                assert opened[part["id"]] == kind
            if step == "end":
                del opened[part["id"]]
        elif part["type"] in {"tool-input-start", "tool-input-available"}:
            assert not opened
            assert part["toolCallId"] not in whole
            inputs.add(part["toolCallId"])
            if part["type"] == "tool-input-available":
                whole.add(part["toolCallId"])
        elif part["type"] == "tool-input-delta":
            assert part["toolCallId"] in inputs - whole
        elif kind == "tool":
            assert part["toolCallId"] in whole - outputs
            if step.startswith("output"):
                outputs.add(part["toolCallId"])
    assert not opened
    assert inputs == whole
