"""langchain-anthropic."""

from __future__ import annotations

import sys
from typing import Any

import anthropic
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage

from . import MAX_STEPS, PICTURE, SECONDS, TOOL, Order, Reply, serve


def ask(url: str, order: Order) -> Reply:
    reply = Reply()
    model: Any = ChatAnthropic(
        model_name=order.model,
        base_url=url,
        api_key=order.key,  # type: ignore[arg-type]
        max_tokens_to_sample=1000,
        timeout=SECONDS,
        stop=None,
    )
    if order.tools:
        model = model.bind_tools([{"type": "function", "function": TOOL}])
    messages: list[Any] = [HumanMessage(content(order))]
    with reply.noting_errors(anthropic.AnthropicError):
        for _ in range(MAX_STEPS):
            if order.do == "answer":
                message = model.invoke(messages)
                reply.say(message.text)
            else:
                message = stream(model, messages, reply, leave=order.do == "leave")
            take(message, reply)
            if order.do == "leave" or not message.tool_calls:
                break
            messages.append(message)
            messages += [
                ToolMessage(reply.call(call["name"], call["args"]), tool_call_id=call["id"])
                for call in message.tool_calls
            ]
    return reply


def content(order: Order) -> Any:
    if not order.image:
        return order.text
    return [
        {"type": "text", "text": order.text},
        {"type": "image", "mime_type": "image/png", "base64": PICTURE.partition(",")[2]},
    ]


def stream(model: Any, messages: list[Any], reply: Reply, *, leave: bool) -> Any:
    whole: AIMessageChunk | None = None
    pieces = model.stream(messages)
    for piece in pieces:
        whole = piece if whole is None else whole + piece
        reply.say(piece.text)
        if leave and piece.text:
            pieces.close()
            break
    return whole


def take(message: AIMessage, reply: Reply) -> None:
    reply.reasoning += "".join(
        block.get("reasoning", "")
        for block in message.content_blocks
        if block["type"] == "reasoning"
    )
    reply.finish = message.response_metadata.get("stop_reason")
    reply.spent(message.usage_metadata, "input_tokens", "output_tokens")


def main() -> None:
    serve(("langchain-anthropic",), lambda order: ask(sys.argv[1], order))


main()
