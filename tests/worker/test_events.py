"""What a handler says beside text: the lines of the wire that events and messages become."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import msgspec
import pydantic
import pytest

from protocol.worker_side import WorkerConnection
from worker import (
    Agent,
    Ask,
    Context,
    File,
    Finish,
    Reasoning,
    Resume,
    Status,
    Tool,
    ToolCall,
    ToolResult,
    Usage,
)
from worker.answer import chunk_encoder, encode_answer, encode_end
from worker.turn import Turn

from .conftest import Serve

USER = [{"role": "user", "content": "hi"}]
TOOLS = b'[{"name":"weather"}]'


def turn(*, events: bool = True, tools: bytes = TOOLS, method: Any = "chat") -> Turn:
    connection = WorkerConnection()
    params = {"input": 1, "messages": [], "events": events}
    line = msgspec.json.encode({"id": 1, "method": method, "params": params})
    connection.receive_data(line + b"\n")
    return Turn(connection, 1, method, events=events, tools=tools)


def read(lines: bytes) -> list[Any]:
    """Chunks as strings, events as dicts, and a result or an end as what it says."""
    found: list[Any] = []
    for line in map(msgspec.json.decode, lines.splitlines()):
        params = line.get("params", {})
        found.append(params.get("chunk") or params.get("event") or line["result"])
    return found


def said(*pieces: object, **settings: Any) -> list[Any]:
    """What the gateway is told when a handler yields these."""
    the_turn = turn(**settings)
    encode = chunk_encoder(the_turn)
    return read(b"".join([*map(encode, pieces), encode_end(the_turn)]))


def test_events_keep_their_place_among_chunks_and_the_rest_comes_with_the_end() -> None:
    assert said(
        Reasoning("Hm. "),
        "It ",
        ToolCall("c1", "own", {"n": math.nan}),
        ToolResult("c1", None),
        ToolResult("c1", [1], is_error=True),
        Status("Half", 1, 2.5),
        File("a.txt", "text/plain", b"abc"),
        File("b.txt", "text/plain", "YWJj"),
        File("c.txt", "text/plain", path="out/c.txt"),
        {"type": "x-plan", "steps": [1]},
        {"type": "state", "value": 1},
        {"type": "reasoning", "text": "So."},
        "is.",
        Usage(3, 4),
        Usage(1, 1, cached_input_tokens=1),
        {"type": "usage", "audio_tokens": 2},
        Finish("length"),
    ) == [
        {"type": "reasoning", "text": "Hm. "},
        "It ",
        # As everywhere, what is no number in JSON is null.
        {"type": "tool_call", "call": "c1", "name": "own", "arguments": {"n": None}},
        {"type": "tool_result", "call": "c1", "content": None},
        {"type": "tool_result", "call": "c1", "content": [1], "is_error": True},
        {"type": "status", "text": "Half", "progress": 1, "total": 2.5},
        {"type": "file", "name": "a.txt", "mime": "text/plain", "data": "YWJj"},
        {"type": "file", "name": "b.txt", "mime": "text/plain", "data": "YWJj"},
        {"type": "file", "name": "c.txt", "mime": "text/plain", "path": "out/c.txt"},
        {"type": "x-plan", "steps": [1]},
        {"type": "state", "value": 1},
        {"type": "reasoning", "text": "So."},
        "is.",
        {
            "finish": "length",
            "usage": {"input_tokens": 4, "output_tokens": 5, "cached_input_tokens": 1,
                      "audio_tokens": 2},
        },
    ]  # fmt: skip


def test_a_caller_who_wants_text_gets_the_text_alone() -> None:
    pieces = ("It ", Reasoning("Hm. "), ToolCall("c", "weather", {}), Usage(1, 2), "is.",
              Finish("length"), {"type": "x-plan"}, {"type": "usage", "input_tokens": 1,
              "output_tokens": 2})  # fmt: skip
    assert said(*pieces, events=False) == ["It ", "is.", {}]


def test_a_call_of_the_clients_without_a_result_ends_the_turn() -> None:
    call = {"type": "tool_call", "call": "c1", "name": "weather"}
    whole = ToolCall("c1", "weather", {})
    assert said(whole) == [{**call, "arguments": {}}, {"finish": "tool_calls"}]
    pieces = [{**call, "delta": "{"}, {**call, "delta": "}"}]
    assert said(*pieces) == [*pieces, {"finish": "tool_calls"}]
    result = {"type": "tool_result", "call": "c1", "content": 1}
    assert said(whole, result)[-1] == {}
    assert said(whole, tools=b"[]")[-1] == {}
    assert said(whole, Finish("stop"))[-1] == {"finish": "tool_calls"}
    begun, rest = ({**call, "delta": piece} for piece in ("{", "}"))
    assert said(begun, ToolResult("c1", 1), rest)[-1] == {}, "it has a result, whatever follows"
    others = [ToolResult(f"invented {number}", 1) for number in range(1025)]
    assert said(*others, begun, ToolResult("c1", 1), rest)[-1] == {}, "whatever came before"


def test_questions_end_the_turn() -> None:
    first = Ask("a1", "Delete it?", schema={"type": "boolean"}, call="c1")
    second = Ask("a2", "And the other?", reason="approval")
    asks = [
        {"id": "a1", "message": "Delete it?", "reason": "question", "schema": {"type": "boolean"},
         "call": "c1"},
        {"id": "a2", "message": "And the other?", "reason": "approval"},
    ]  # fmt: skip
    assert said(first, second) == [{"finish": "input_required", "asks": asks}]
    returned = read(encode_answer(turn(), second))
    assert returned == [{"finish": "input_required", "asks": asks[1:]}]
    # For a caller who wants text, they are text.
    assert said("Hm. ", first, events=False) == ["Hm. ", "Delete it?", {}]


LARGE = "x" * (1024 * 1024)


@pytest.mark.parametrize("events", [True, False], ids=["asked for", "dropped"])
@pytest.mark.parametrize(
    ("event", "why"),
    [
        (Reasoning(7), "Reasoning.text: expected str, got int"),  # type: ignore[arg-type]
        (Reasoning(LARGE), "an event of 1048606 bytes, expected at most 1048576"),
        (Reasoning("\ud800"), "Reasoning has no JSON form: .*surrogates not allowed"),
        (ToolCall("", "n", {}), "ToolCall.call: expected str of length >= 1"),
        (ToolCall("c", "n" * 129, {}), "ToolCall.name: expected str of length <= 128"),
        (ToolCall("c", "n", [1]), "ToolCall.arguments: expected object | null, got array"),  # type: ignore[arg-type]
        (ToolCall("c", "n"), "a tool_call has either 'arguments' or 'delta'"),
        (ToolCall("c", "n", {}, "{}"), "a tool_call has either 'arguments' or 'delta'"),
        (ToolResult("c", object()), "ToolResult has no JSON form: object has no JSON form"),
        (Status("x", math.nan), "Status.progress is nan, expected a finite number"),
        (Status("x", total=math.inf), "Status.total is inf, expected a finite number"),
        (Status("x", -1), "Status.progress: expected float >= 0"),
        (Status("x" * 4097), "Status.text: expected str of length <= 4096"),
        (File("n", "image/png", "not base64!"), "File.data: invalid base64 encoded string"),
        (File("n", "image", b""), "File.mime: expected str matching regex"),
        (File("n", "image/png"), "a file has either 'data' or 'path'"),
        (Usage("1", 1), "Usage.input_tokens: expected int, got str"),  # type: ignore[arg-type]
        (Usage(1, -1), "Usage.output_tokens: expected int >= 0"),
        (Usage(1, math.nan), "Usage.output_tokens is nan, expected a finite number"),  # type: ignore[arg-type]
        (Finish("over"), "Finish.reason: invalid enum value 'over'"),  # type: ignore[arg-type]
        (Ask("", "?"), "Ask.id: expected str of length >= 1"),
        (Ask("a", "?" * 20_000), "Ask.message: expected str of length <= 16384"),
        (Ask("a", "?", schema=1), "Ask.schema: expected object | null, got int"),  # type: ignore[arg-type]
        ({"type": "tool_call", "call": "c", "name": 7}, "ToolCall.name: expected str, got int"),
        ({"type": "reasoning"}, "Reasoning: object missing required field text"),
        ({"type": "usage", "input_tokens": 0.5}, "usage: Expected `int`, got `float`"),
        ({"type": "song"}, "an event's type is 'song', expected reasoning, tool_call, "),
        ({"type": 7}, "type: expected str, got int"),
        ({"type": "x-y", "z": object()}, "'x-y' has no JSON form: object has no JSON form"),
    ],
)  # fmt: skip
def test_an_event_that_cannot_be_sent_is_an_error_that_names_its_member(
    event: object, why: str, events: bool
) -> None:
    expected = f"an event of the chat handler cannot be sent: .*{why}"
    with pytest.raises((TypeError, ValueError), match=expected.replace("|", r"\|")):
        said(event, events=events)


@pytest.mark.parametrize(
    ("pieces", "why"),
    [
        ([ToolCall("c", "n", {}), ToolCall("c", "n", {})], "goes on after all its arguments"),
        ([ToolCall("c", "n", delta="{"), ToolCall("c", "m", delta="}")], "was 'n', and is 'm' now"),
        ([Ask("a", "?"), Ask("a", "!")], "two asks have the same id"),
        ([Ask(f"a{n}", "?") for n in range(17)], "more than 16 questions in one turn"),
    ],
)
def test_events_that_do_not_go_together_are_explained(pieces: list[object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        said(*pieces)


@dataclasses.dataclass
class Message:
    role: str
    content: str | None
    tool_calls: list[dict[str, Any]] | None = None
    usage: Usage | None = None


CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"n":1}'}}
CALLED = {"type": "tool_call", "call": "c1", "name": "weather", "arguments": {"n": 1}}
COUNTS = {"input_tokens": 3, "output_tokens": 4}
HI = {"role": "assistant", "content": "hi"}


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (
            {"role": "assistant", "content": None, "tool_calls": [CALL], "usage": Usage(3, 4)},
            [CALLED, {"message": {"role": "assistant", "content": ""}, "finish": "tool_calls",
                      "usage": COUNTS}],
        ),
        (
            Message("assistant", None, [CALL], Usage(3, 4)),
            [CALLED, {"message": {"role": "assistant", "content": ""}, "finish": "tool_calls",
                      "usage": COUNTS}],
        ),
        ({**HI, "finish": "length"}, [{"message": HI, "finish": "length"}]),
        (
            {**HI, "usage": {"prompt_tokens": 3, "completion_tokens": 4, "details": {"a": 1}}},
            [{"message": HI, "usage": COUNTS}],
        ),
        ({**HI, "tool_calls": None, "usage": None}, [{"message": HI}]),
        ({**HI, "name": "x"}, [{"message": {**HI, "name": "x"}}]),
        (HI, [{"message": HI}]),
    ],
)  # fmt: skip
def test_a_message_may_carry_its_usage_its_finish_and_tool_calls(
    message: Any, told: list[object]
) -> None:
    assert read(encode_answer(turn(), message)) == told
    # One that is yielded is its text, and the same events.
    *events, last = told
    text = [last.pop("message")["content"]]  # type: ignore[attr-defined]
    if isinstance(message, dict):
        assert said(message) == [*events, *filter(None, text), last]


def test_a_message_is_left_as_it_is_for_a_caller_who_wants_text() -> None:
    message = {**HI, "tool_calls": [CALL], "usage": Usage(3, 4), "finish": "length"}
    expected = {"message": {**message, "usage": COUNTS}}
    assert read(encode_answer(turn(events=False), message)) == [expected]


@pytest.mark.parametrize(
    ("member", "why"),
    [
        ({"finish": "over"}, "finish is 'over', expected one of stop, length"),
        ({"finish": 7}, "a message's finish is int, expected str"),
        ({"usage": 7}, "a message's usage is int, expected Usage or a dict"),
        ({"usage": {"input_tokens": -1}}, "usage: Expected `int` >= 0"),
        ({"tool_calls": [7]}, "a message's tool_calls: Expected `object`, got `int`"),
        ({"tool_calls": [{**CALL, "id": ""}]}, "ToolCall.call: expected str of length >= 1"),
    ],
)
def test_what_a_message_carries_is_checked(member: dict[str, Any], why: str) -> None:
    with pytest.raises((TypeError, ValueError), match=why):
        encode_answer(turn(), {**HI, **member})


def test_arguments_that_are_no_json_are_passed_on_as_the_model_wrote_them() -> None:
    call = {**CALL, "function": {"name": "weather", "arguments": '{"n":'}}
    (event, _) = read(encode_answer(turn(), {**HI, "tool_calls": [call]}))
    assert event == {"type": "tool_call", "call": "c1", "name": "weather", "delta": '{"n":'}


def test_an_invoke_may_yield_events_and_return_any_object() -> None:
    assert read(encode_answer(turn(method="invoke"), {"type": "reasoning"})) == [
        {"output": {"type": "reasoning"}}
    ]
    assert said(Status("x"), "y", method="invoke")[0] == {"type": "status", "text": "x"}


async def test_a_handler_sees_the_clients_tools_and_answers(serve: Serve) -> None:
    source = """
        agent = Agent("a", tools=True, asks=True)
        @agent.chat
        def chat(messages, context):
            trace = [context.traceparent, context.tracestate]
            return repr([context.events, context.tools, context.resume, *trace])
    """
    brought = {
        "tools": [
            {"name": "weather", "parameters": {"type": "object"}},
            {"name": "now", "description": None, "parameters": None, "strict": True},
        ],
        "resume": [{"id": "a1", "payload": {"ok": True}}, {"id": "a2", "status": "cancelled"}],
        "traceparent": "00-1",
        "tracestate": "a=1",
    }
    async with serve(source) as worker:
        answer = await worker.chat(USER, events=True, **brought)
        seen = [
            True,
            [Tool("weather", parameters={"type": "object"}), Tool("now")],
            [Resume("a1", payload={"ok": True}), Resume("a2", "cancelled")],
            "00-1",
            "a=1",
        ]
        assert answer.value["content"] == repr(seen)
        assert (await worker.chat(USER)).value["content"] == repr([False, [], [], None, None])
    assert Context().tools == []


async def test_events_of_every_kind_of_handler_arrive(serve: Serve) -> None:
    source = """
        from worker import Status, Usage
        agent = Agent("a")
        @agent.invoke
        def words(input):
            yield Status("thread")
            yield "one"
            yield Usage(1, 2)
        @agent.chat
        async def chat(messages):
            yield Status("loop")
            yield "two"
            if messages[-1]["content"] == "wrong":
                yield Status(7)
    """
    async with serve(source) as worker:
        answer = await worker.invoke("x", events=True)
        assert answer.words == ({"type": "status", "text": "thread"}, "one")
        assert answer.outcome == {"usage": {"input_tokens": 1, "output_tokens": 2}}
        answer = await worker.chat(USER, events=True)
        assert answer.words == ({"type": "status", "text": "loop"}, "two")
        assert (await worker.chat(USER)).words == ("two",)
        _, why = (await worker.chat([{"role": "user", "content": "wrong"}])).failure
        text = "an event of the chat handler cannot be sent: Status.text: expected str, got int"
        assert why == f"TypeError: {text}"


class Trip(pydantic.BaseModel):
    city: str


@dataclasses.dataclass
class Plan:
    days: int


async def test_ready_declares_what_an_agent_takes_and_asks(serve: Serve) -> None:
    source = """
        from dataclasses import dataclass
        @dataclass
        class Plan:
            days: int
        agent = Agent("a", input={"type": "string"}, output=Plan, modes=["text", "image"],
                      tools=True, asks=True)
        agent.invoke(lambda input: input)
    """
    async with serve(source, handshake=False) as worker:
        ready = await worker.ready()
    assert ready.input == b'{"type":"string"}'
    assert b'"days":{"type":"integer"}' in (ready.output or b"")
    assert (ready.modes, ready.tools, ready.asks) == (("text", "image"), True, True)


def test_a_schema_is_a_dict_or_a_type_that_has_one() -> None:
    schemas = Agent("a", input=Trip, output=list[Plan]).encoded_schemas()
    assert msgspec.json.decode(schemas["input"])["required"] == ["city"]
    assert msgspec.json.decode(schemas["output"])["type"] == "array"
    models = Agent("a", input=list[Trip]).encoded_schemas()
    assert b'"city"' in models["input"]
    assert Agent("a").encoded_schemas() == {}
    with pytest.raises(TypeError, match="input is no JSON Schema, and no type that has one"):
        Agent("a", input=7)
    with pytest.raises(ValueError, match="modes are 'text', expected some of text, image"):
        Agent("a", modes="text")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"modes are \['smell'\]"):
        Agent("a", modes=["smell"])  # type: ignore[list-item]
