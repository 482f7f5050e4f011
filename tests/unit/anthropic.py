"""Anthropic's Messages without a gateway: requests as they are read, and what an agent says as it
is told, in messages and events that the client's own types accept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter

from gateway.call import Call
from gateway.config import Clocks
from gateway.errors import InvalidRequest
from gateway.exchange import Exchange
from gateway.front.anthropic.dialect import MessagesCodec
from gateway.front.anthropic.parameters import MessagesBody
from gateway.front.anthropic.request import MessagesRequest, read_messages
from gateway.front.dialect import RequestHead
from protocol import Outcome

# Requests

VERSION = {b"anthropic-version": b"2026-10-21"}
HEAD = RequestHead(request_id="r-1", fields=VERSION)
HELLO = [{"role": "user", "content": "hello"}]
TOOL = {"name": "weather", "description": "d", "input_schema": {"type": "object"}}
PNG = {"type": "base64", "media_type": "image/png", "data": "iVBORw0="}
PDF = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}
TEXT = {"type": "text", "text": "t"}
MEMBERS = sorted(set(MessagesBody.__struct_fields__) - {"model"})


def body_of(**members: Any) -> bytes:
    body = {"model": "bot", "max_tokens": 9, "messages": HELLO, **members}
    return json.dumps(body).encode()


def read(head: RequestHead = HEAD, **members: Any) -> tuple[Call, MessagesRequest]:
    return read_messages(head, body_of(**members))


def call_of(head: RequestHead = HEAD, **members: Any) -> Call:
    return read(head, **members)[0]


def messages_of(call: Call) -> Any:
    return json.loads(bytes(call.payload))


def told(call: Call) -> Any:
    return json.loads(call.context)


def turns(*contents: Any) -> list[dict[str, Any]]:
    """Messages of the user and the assistant, one after the other."""
    return [
        {"role": "assistant" if index % 2 else "user", "content": content}
        for index, content in enumerate(contents)
    ]


def refused(**members: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        read(**members)
    return caught.value


# Answers

TOOLS = [{"name": name, "input_schema": {}} for name in ("weather", "clock")]
USAGE = b'{"input_tokens":7,"output_tokens":3}'
CALLS = Outcome("tool_calls", None, None)
EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
SUN = {"type": "reasoning", "text": "Sun?"}
CALL = {"type": "tool_call", "call": "c1", "name": "weather", "arguments": {"city": "Oslo"}}
RESULT = {"type": "tool_result", "call": "c1", "content": "x"}
OWN = {"type": "tool_call", "call": "c2", "name": "search", "arguments": {}}
STATUS = {"type": "status", "text": "Looking \u2028 it up"}
FILE = {"type": "file", "name": "a.txt", "mime": "text/plain", "path": "/a.txt"}


def words_of(*said: str | dict[str, Any]) -> list[bytes]:
    return [json.dumps(each, ensure_ascii=False).encode() for each in said]


def begin(codec: MessagesCodec, *, stream: bool, tools: bool = True, **members: Any) -> Exchange:
    offered = {"tools": TOOLS} if tools else {}
    call = codec.decode(HEAD, body_of(stream=stream, **offered, **members))
    assert isinstance(call, Call)
    return Exchange(call, Clocks(), 0.0)


def answered(
    said: Sequence[bytes] = (),
    outcome: Outcome | None = None,
    result: bytes | None = None,
    **members: Any,
) -> Message:
    """One whole message."""
    codec = MessagesCodec()
    exchange = begin(codec, stream=False, **members)
    exchange.add_words(list(said), 0.0)
    exchange.end(result, outcome)
    response = codec.encode(exchange, exchange.take())
    assert response.status == 200
    assert dict(response.headers)[b"request-id"] == b"r-1"
    return Message.model_validate(json.loads(response.body))


def events_of(parts: bytes) -> list[tuple[str, Any]]:
    """The names and the data of events."""
    *events, nothing = parts.decode().split("\n\n")
    assert nothing == ""
    found = []
    for event in events:
        name, data = event.split("\n")
        decoded = json.loads(data.removeprefix("data: "))
        assert name == f"event: {decoded['type']}"
        found.append((decoded["type"], decoded))
    return found


def streamed(
    *batches: Sequence[bytes],
    outcome: Outcome | None = None,
    result: bytes | None = None,
    **members: Any,
) -> list[tuple[str, Any]]:
    codec = MessagesCodec()
    exchange = begin(codec, stream=True, **members)
    stream = codec.stream(exchange)
    assert (b"request-id", b"r-1") in stream.headers
    parts = [stream.chunks(list(batch)) for batch in batches]
    exchange.end(result, outcome)
    return events_of(b"".join([*parts, stream.end(result)]))


def put_together(events: list[tuple[str, Any]]) -> Message:
    """What the client makes of a stream, which must be complete and in order."""
    names = [name for name, _ in events if name != "ping"]
    assert (names[0], names[-2:]) == ("message_start", ["message_delta", "message_stop"])
    opened: list[int] = []
    snapshot: Any = None
    buffers: dict[int, bytes] = {}
    for name, data in events:
        if name == "ping":
            continue
        event = EVENT.validate_python(data)
        if name == "content_block_start":
            opened.append(data["index"])
            assert opened == list(range(len(opened)))
        elif name.startswith("content_block"):
            assert data["index"] == opened[-1]
        snapshot = accumulate_event(event=event, current_snapshot=snapshot, json_bufs=buffers)
    assert names.count("content_block_start") == names.count("content_block_stop") == len(opened)
    return Message.model_validate(snapshot.to_dict())


def content_of(message: Message) -> list[dict[str, Any]]:
    return [block.model_dump(exclude_none=True) for block in message.content]


def both(
    *said: str | dict[str, Any],
    outcome: Outcome | None = None,
    result: bytes | None = None,
    **members: Any,
) -> Message:
    """The message, which is the same whether it is told whole or as a stream."""
    words = words_of(*said)
    whole = answered(words, outcome, result, **members)
    batches = [words] if words else []
    parts = put_together(streamed(*batches, outcome=outcome, result=result, **members))
    assert content_of(parts) == content_of(whole)
    assert parts.stop_reason == whole.stop_reason
    assert parts.usage.to_dict() == whole.usage.to_dict()
    assert parts.id != whole.id
    return whole
