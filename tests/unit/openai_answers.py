"""What an agent says, as a completion and as a Response: read with OpenAI's own types."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response as OpenAIResponse
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from gateway.call import Call
from gateway.config import Clocks
from gateway.exchange import Exchange
from gateway.front.dialect import RequestHead
from gateway.front.openai.dialect import ChatCodec, ResponseCodec
from gateway.front.openai.memory import Memory
from protocol import Outcome
from protocol.events import MAX_CALLS

HEAD = RequestHead(request_id="r-1")
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {}}, "name": name}
    for name in ("weather", "clock")
]
USAGE = b'{"input_tokens":7,"output_tokens":3}'
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
MESSAGES = [{"role": "user", "content": "hi"}]
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
REASONING = {"type": "reasoning", "text": "hm\u2028"}
STATUS = {"type": "status", "text": "at\nwork"}
OWN = {"type": "tool_call", "call": "own", "name": "search", "arguments": {}}
WEATHER = {"type": "tool_call", "call": "c1", "name": "weather", "arguments": {"city": "Oslo"}}
RESULT = {"type": "tool_result", "call": "c1", "content": 12}
PIECES = [
    {"type": "tool_call", "call": "c2", "name": "clock", "delta": '{"zone'},
    {"type": "tool_call", "call": "c2", "name": "clock", "delta": '":1}'},
]
ANSWERED = {"type": "tool_result", "call": "c2", "content": 12}
INVENTED = [{**RESULT, "call": f"invented {number}"} for number in range(MAX_CALLS + 1)]
CALLS = Outcome("tool_calls", None, None)
IMAGE = {"type": "file", "name": "a[1].png", "mime": "image/png", "data": "aGk="}
REPORT = {"type": "file", "name": "r.pdf", "mime": "application/pdf", "path": "/out/r.pdf"}


def words_of(*said: str | dict[str, Any]) -> list[bytes]:
    return [json.dumps(each, ensure_ascii=False).encode() for each in said]


def begin(
    codec: ChatCodec | ResponseCodec, *, stream: bool, tools: bool = False, **members: Any
) -> Exchange:
    asked = {"messages": MESSAGES} if isinstance(codec, ChatCodec) else {"input": "hi"}
    body = {"model": "bot", "stream": stream, **asked, **members}
    if tools:
        body["tools"] = TOOLS
    call = codec.decode(HEAD, json.dumps(body).encode())
    assert isinstance(call, Call)
    return Exchange(call, Clocks(), 0.0)


def completed(
    said: Sequence[bytes] = (),
    outcome: Outcome | None = None,
    result: bytes | None = None,
    **members: Any,
) -> ChatCompletion:
    """One whole completion."""
    codec = ChatCodec()
    exchange = begin(codec, stream=False, **members)
    exchange.add_words(list(said), 0.0)
    exchange.end(result, outcome)
    response = codec.encode(exchange, exchange.take())
    assert response.status == 200
    return ChatCompletion.model_validate(json.loads(response.body))


def chunks_of(parts: bytes) -> Iterator[ChatCompletionChunk]:
    """The chunks of a whole stream, without the last event, which must be `[DONE]`."""
    *events, last, nothing = parts.decode().split("\n\n")
    assert (last, nothing) == ("data: [DONE]", "")
    for event in events:
        if not event.startswith(":"):
            assert "\n" not in event
            yield ChatCompletionChunk.model_validate(json.loads(event.removeprefix("data: ")))


def streamed(
    *batches: Sequence[bytes],
    outcome: Outcome | None = None,
    result: bytes | None = None,
    **members: Any,
) -> list[ChatCompletionChunk]:
    codec = ChatCodec()
    exchange = begin(codec, stream=True, **members)
    stream = codec.stream(exchange)
    parts = [stream.chunks(list(batch)) for batch in batches]
    exchange.end(result, outcome)
    return list(chunks_of(b"".join([*parts, stream.end(result)])))


def deltas(chunks: list[ChatCompletionChunk]) -> list[dict[str, Any]]:
    found = [chunk.choices[0].delta.model_dump(exclude_none=True) for chunk in chunks]
    assert found[0] == {"role": "assistant"}
    return found[1:]


def responded(
    said: Sequence[bytes] = (),
    outcome: Outcome | None = None,
    result: bytes | None = None,
    memory: Memory | None = None,
    **members: Any,
) -> OpenAIResponse:
    """One whole Response."""
    codec = ResponseCodec(memory or Memory())
    exchange = begin(codec, stream=False, **members)
    exchange.add_words(list(said), 0.0)
    exchange.end(result, outcome)
    return OpenAIResponse.model_validate(json.loads(codec.encode(exchange, exchange.take()).body))


def events_of(parts: bytes) -> list[Any]:
    """The events of a stream, numbered without a gap."""
    found = []
    for event in parts.decode().split("\n\n")[:-1]:
        if not event.startswith(":"):
            kind, data = event.split("\n")
            members = json.loads(data.removeprefix("data: "))
            assert kind == f"event: {members['type']}"
            assert members["sequence_number"] == len(found)
            found.append(EVENT.validate_python(members))
    return found


def followed(
    *batches: Sequence[bytes],
    outcome: Outcome | None = None,
    result: bytes | None = None,
    **members: Any,
) -> list[Any]:
    codec = ResponseCodec(Memory())
    exchange = begin(codec, stream=True, **members)
    stream = codec.stream(exchange)
    parts = [stream.chunks(list(batch)) for batch in batches]
    exchange.end(result, outcome)
    events = events_of(b"".join([*parts, stream.end(result)]))
    whole = OpenAIResponse.model_validate(json.loads(stream.last_response or b""))
    assert events[-1].response == whole
    return events


def types_of(events: list[Any]) -> list[str]:
    return [event.type.removeprefix("response.") for event in events]
