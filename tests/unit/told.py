"""What a client learns of an answer, by whichever dialect, whole and as a stream."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from a2a.server.tasks.task_manager import append_artifact_to_task
from a2a.types import Task, TaskArtifactUpdateEvent
from google.protobuf.json_format import MessageToDict, ParseDict
from hypothesis import example
from openai.types.chat import ChatCompletion
from openai.types.responses import Response as OpenAIResponse

from gateway.call import Call
from gateway.config import Clocks
from gateway.errors import InvalidAgentResponse
from gateway.exchange import Exchange
from gateway.front.a2a.dialect import A2ADialect
from gateway.front.a2a.task import Record
from gateway.front.anthropic.dialect import MessagesCodec
from gateway.front.dialect import RequestHead
from gateway.front.openai.dialect import ChatCodec, ResponseCodec
from gateway.front.openai.memory import Memory
from protocol import Outcome
from tests.unit import ag_ui, anthropic, openai_answers
from tests.unit import test_ui_stream as ui
from tests.unit.answers import TOOLS, Said, encoded

assert {tool["name"] for tool in openai_answers.TOOLS} == set(TOOLS)
assert {tool["name"] for tool in anthropic.TOOLS} == set(TOOLS)
assert {tool["name"] for tool in ag_ui.TOOLS} == set(TOOLS)

# Answers that told two dialects apart once, or a stream and the whole answer

THOUGHT = encoded({"type": "reasoning", "text": "First. "})
CALL = encoded({"type": "tool_call", "call": "c1", "name": "weather", "arguments": {}})
FILE = encoded({"type": "file", "name": "a", "mime": "text/plain", "data": "aGk="})
MADE = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
ASKS = Outcome("input_required", None, b'[{"id":"a1","reason":"r","message":"Which day?"}]')
CALLS = Outcome("tool_calls", None, None)


def message(content: Any = "Hi", **more: Any) -> bytes:
    return encoded({"role": "assistant", "content": content, **more})


THOUGHTS_TWICE = Said([THOUGHT], None, message(reasoning_content="Then."), [])
QUESTION_AFTER_NOTHING = Said([b'""'], ASKS, None, [])
QUESTION_AFTER_TEXT = Said([b'"a"', THOUGHT, b'"b"'], ASKS, None, [1])
CALL_WITHOUT_TEXT = Said([CALL], CALLS, None, [])
CALL_TOLD_TWICE = Said([CALL], None, message(None, tool_calls=[MADE]), [])
CALLS_IN_ANOTHER_ORDER = Said(
    [CALL],
    None,
    message(None, tool_calls=[{**MADE, "id": "c9"}, MADE]),
    [],
)
CALL_OF_ITS_OWN = Said([CALL, b'"Done."'], Outcome("stop", None, None), None, [])
FILE_AND_MESSAGE = Said([FILE], Outcome("length", None, None), message(), [])
REFUSED = Said([b'"No."'], Outcome("refused", None, None), None, [])
MALFORMED = Said([THOUGHT], None, message(tool_calls=[{}]), [])

WITHOUT_FILES = (
    THOUGHTS_TWICE,
    QUESTION_AFTER_NOTHING,
    QUESTION_AFTER_TEXT,
    CALL_WITHOUT_TEXT,
    CALL_TOLD_TWICE,
    CALLS_IN_ANOTHER_ORDER,
    CALL_OF_ITS_OWN,
    REFUSED,
    MALFORMED,
)


def with_examples(*answers: Said) -> Callable[[Any], Any]:
    """Have a property try these, too."""

    def add(prop: Any) -> Any:
        for each in answers:
            prop = example(each)(prop)
        return prop

    return add


class Told(NamedTuple):
    """What a client has learned; None in its place: that the answer cannot be told."""

    text: str
    thoughts: str
    calls: list[tuple[str, str, Any]]
    """Those that it is to make: the id, the tool, the arguments."""


class Streamed(NamedTuple):
    data: bytes
    failed: bool
    """Whether it tells that the answer cannot be told."""


def whole(codec: Any, exchange: Exchange, said: Said) -> Any:
    """The body of a whole answer; None: it cannot be told."""
    exchange.add_words(list(said.words), 0.0)
    exchange.end(said.result, said.outcome)
    try:
        return json.loads(codec.encode(exchange, exchange.take()).body)
    except InvalidAgentResponse:
        return None


def streamed(stream: Any, exchange: Exchange, said: Said) -> Streamed:
    parts = [stream.chunks(batch) for batch in said.batches()]
    exchange.end(said.result, said.outcome)
    parts.append(stream.end(said.result))
    return Streamed(b"".join(parts), stream.failure is not None)


# Streams


def stream_of_completion(said: Said, **members: Any) -> Streamed:
    codec = ChatCodec()
    exchange = openai_answers.begin(codec, stream=True, tools=True, **members)
    return streamed(codec.stream(exchange), exchange, said)


def stream_of_response(said: Said) -> Streamed:
    codec = ResponseCodec(Memory())
    exchange = openai_answers.begin(codec, stream=True, tools=True)
    return streamed(codec.stream(exchange), exchange, said)


def stream_of_message(said: Said) -> Streamed:
    codec = MessagesCodec()
    exchange = anthropic.begin(codec, stream=True)
    return streamed(codec.stream(exchange), exchange, said)


def stream_of_run(said: Said) -> Streamed:
    codec, exchange = ag_ui.begin(tools=ag_ui.TOOLS)
    return streamed(codec.stream(exchange), exchange, said)


def stream_of_page(said: Said) -> Streamed:
    stream, exchange = ui.begun(tools={name: {"inputSchema": {"type": "object"}} for name in TOOLS})
    return streamed(stream, exchange, said)


STREAMS: dict[str, Callable[[Said], Streamed]] = {
    "chat completions": stream_of_completion,
    "responses": stream_of_response,
    "messages": stream_of_message,
    "ag-ui": stream_of_run,
    "ui": stream_of_page,
}

# What is told


def completion_of(said: Said, **members: Any) -> ChatCompletion | None:
    codec = ChatCodec()
    body = whole(codec, openai_answers.begin(codec, stream=False, tools=True, **members), said)
    return None if body is None else ChatCompletion.model_validate(body)


def told_by_completion(said: Said) -> Told | None:
    completion = completion_of(said)
    if completion is None:
        return None
    message = completion.choices[0].message
    calls = [call for call in message.tool_calls or () if call.type == "function"]
    return Told(
        message.content or "",
        (message.model_extra or {}).get("reasoning_content", ""),
        [(call.id, call.function.name, call.function.arguments) for call in calls],
    )


def told_by_response(said: Said) -> Told | None:
    codec = ResponseCodec(Memory())
    body = whole(codec, openai_answers.begin(codec, stream=False, tools=True), said)
    if body is None:
        return None
    response = OpenAIResponse.model_validate(body)
    items = response.output
    summaries = [part.text for item in items if item.type == "reasoning" for part in item.summary]
    calls = [item for item in items if item.type == "function_call"]
    return Told(
        response.output_text,
        "".join(summaries),
        [(call.call_id, call.name, call.arguments) for call in calls],
    )


def told_by_message(said: Said) -> Told | None:
    codec = MessagesCodec()
    body = whole(codec, anthropic.begin(codec, stream=False), said)
    if body is None:
        return None
    blocks = body["content"]
    return Told(
        "".join(block.get("text", "") for block in blocks),
        "".join(block.get("thinking", "") for block in blocks),
        [(block["id"], block["name"], block["input"]) for block in blocks if "input" in block],
    )


def told_by_run(said: Said) -> Told | None:
    """By AG-UI, whose client is told of all calls, and at the end which are its own."""
    told = stream_of_run(said)
    if told.failed:
        return None
    events = ag_ui.events_of(told.data)
    ag_ui.Order().check(events)
    outcome = events[-1]["outcome"]
    asked = [each["message"] for each in outcome.get("interrupts", ()) if each["message"]]
    calls = []
    for call in outcome.get("pendingToolCallIds", ()):
        of_call = [event for event in events if event.get("toolCallId") == call]
        made = "".join(event["delta"] for event in of_call if event["type"] == "TOOL_CALL_ARGS")
        calls.append((call, of_call[0]["toolCallName"], made))
    return Told(
        with_questions(deltas(events, "TEXT_MESSAGE_CONTENT"), asked),
        deltas(events, "REASONING_MESSAGE_CONTENT"),
        calls,
    )


def told_by_page(said: Said) -> Told | None:
    """By the AI SDK's stream, whose page runs what is not `providerExecuted`."""
    told = stream_of_page(said)
    if told.failed:
        return None
    parts = ui.parts_in(told.data)
    asked = [part["data"]["message"] for part in parts if part["type"] == "data-ask"]
    asked += [part["reason"] for part in parts if part["type"] == "tool-approval-request"]
    made = [
        (part["toolCallId"], part["toolName"], part["input"])
        for part in parts
        if part["type"] == "tool-input-available" and "providerExecuted" not in part
    ]
    texts = deltas(parts, "text-delta")
    asked = [each for each in asked if each]
    return Told(with_questions(texts, asked), deltas(parts, "reasoning-delta"), made)


def told_by_task(said: Said) -> Told | None:
    """By A2A, whose task is what its events add up to."""
    codec = A2ADialect().match("/a2a/bot")
    assert codec is not None
    tools = [{"name": name, "description": "", "parameters": {}} for name in TOOLS]
    body = {
        "jsonrpc": "2.0",
        "id": 7,
        "method": "SendMessage",
        "params": {
            "message": {"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": "hi"}]},
            "metadata": {"urn:agent-gateway:a2a:tools:1": tools},
        },
    }
    head = RequestHead(request_id="r-1", fields={b"a2a-version": b"1.0"})
    call = codec.decode(head, json.dumps(body).encode())
    assert isinstance(call, Call)
    codec.kept_as("t")
    exchange = Exchange(call, Clocks(), 0.0)
    told = streamed(codec.stream(exchange), exchange, said)
    if told.failed:
        return None
    events = [
        json.loads(line.removeprefix("data: "))
        for line in told.data.decode().split("\n\n")
        if line.startswith("data: ")
    ]
    check_task(events, json.loads(Record.read(codec.tell("completed").body).show()))
    statuses = [each["statusUpdate"]["status"] for each in events if "statusUpdate" in each]
    shown = [part for status in statuses for part in status.get("message", {"parts": ()})["parts"]]
    data = [part["data"] for part in shown if "data" in part]
    texts = [
        part["text"]
        for each in events
        if "artifactUpdate" in each
        for part in each["artifactUpdate"]["artifact"]["parts"]
        if "text" in part
    ]
    asked = [ask["message"] for each in data for ask in each.get("asks", ()) if ask["message"]]
    thoughts = [each["text"] for each in data if each.get("type") == "reasoning"]
    calls = [call for each in data for call in each.get("toolCalls", ())]
    return Told(
        with_questions("".join(texts), asked),
        "".join(thoughts),
        [(call["id"], call["name"], call["arguments"]) for call in calls],
    )


def check_task(events: list[Any], shown: dict[str, Any]) -> None:
    """The task that is shown is what the events add up to, as A2A's own package adds them."""
    task = Task()
    for each in events:
        if "artifactUpdate" in each:
            update = ParseDict(each["artifactUpdate"], TaskArtifactUpdateEvent())
            append_artifact_to_task(task, update)
    added = MessageToDict(task).get("artifacts", [])
    for artifact in added:
        texts = [part["text"] for part in artifact["parts"] if "text" in part]
        if texts:
            artifact["parts"] = [{"text": "".join(texts)}]
    assert shown.get("artifacts", []) == added
    assert shown["status"] == events[-1]["statusUpdate"]["status"]
    assert shown.get("metadata") == events[-1]["statusUpdate"].get("metadata")


def deltas(events: list[dict[str, Any]], kind: str) -> str:
    return "".join(event["delta"] for event in events if event["type"] == kind)


def with_questions(text: str, asked: list[str]) -> str:
    """The text as it is where questions have no form of their own."""
    return "\n\n".join([*([text] if text else []), *asked])


def decoded(told: Told | None) -> Told | None:
    """With the arguments of calls as values, which some dialects tell and some clients read."""
    if told is None:
        return None
    calls = [
        (call, name, json.loads(made) if isinstance(made, str) else made)
        for call, name, made in told.calls
    ]
    return told._replace(calls=calls)


def alike(said: Said) -> bool:
    """Whether every dialect has a form for the answer: files have none in text in some, and
    Anthropic's messages have none for arguments that are no object."""
    told = told_by_completion(said)
    return not any(b'"file"' in word for word in said.words) and (
        told is None or all(is_object(call[2]) for call in told.calls)
    )


def is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
