"""Requests to OpenAI's two endpoints, and the calls that are made of them."""

from __future__ import annotations

import json
from typing import Any

from gateway.call import Call
from gateway.front.dialect import RequestHead
from gateway.front.openai.chat_request import read_chat
from gateway.front.openai.memory import Memory
from gateway.front.openai.response_request import ResponseRequest, read_response

HEAD = RequestHead(request_id="r-1")
HELLO = [{"role": "user", "content": "hello"}]
TOOL = {"name": "weather", "description": "d", "parameters": {"type": "object"}}
CHAT_TOOL = {"type": "function", "function": TOOL}
FLAT_TOOL = {"type": "function", "strict": True, **TOOL}


def chat(head: RequestHead = HEAD, **members: Any) -> Call:
    body = {"model": "bot", "messages": HELLO, **members}
    return read_chat(head, json.dumps(body).encode())[0]


def response(
    head: RequestHead = HEAD, known: Memory | None = None, **members: Any
) -> tuple[Call, ResponseRequest]:
    body = {"model": "bot", "input": "hello", **members}
    return read_response(head, json.dumps(body).encode(), known or Memory())


def messages_of(call: Call) -> Any:
    return json.loads(bytes(call.payload))


def told(call: Call) -> Any:
    return json.loads(call.context)
