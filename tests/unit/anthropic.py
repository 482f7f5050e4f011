"""Requests of Anthropic's Messages, read without a gateway."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.call import Call
from gateway.errors import InvalidRequest
from gateway.front.anthropic.parameters import MessagesBody
from gateway.front.anthropic.request import MessagesRequest, read_messages
from gateway.front.dialect import RequestHead

VERSION = {b"anthropic-version": b"2026-10-21"}
HEAD = RequestHead(request_id="r-1", fields=VERSION)
HELLO = [{"role": "user", "content": "hello"}]
TOOL = {"name": "weather", "description": "d", "input_schema": {"type": "object"}}
PNG = {"type": "base64", "media_type": "image/png", "data": "iVBORw0="}
PDF = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}
TEXT = {"type": "text", "text": "t"}
MEMBERS = sorted(set(MessagesBody.__struct_fields__) - {"model"})


def read(head: RequestHead = HEAD, **members: Any) -> tuple[Call, MessagesRequest]:
    body = {"model": "bot", "max_tokens": 9, "messages": HELLO, **members}
    return read_messages(head, json.dumps(body).encode())


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
