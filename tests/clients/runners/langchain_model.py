"""A chat model of LangChain's, whichever client is behind it, doing what an order says."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage

from . import MAX_STEPS, PICTURE, TOOL, Order, Reply


def ask(model: Any, order: Order, *errors: type[Exception], finish: tuple[str, ...]) -> Reply:
    """`errors` are what the client raises; `finish` names the members of a message's metadata that
    may say how it ended."""
    reply = Reply()
    if order.tools:
        model = model.bind_tools([{"type": "function", "function": TOOL}])
    messages: list[Any] = [HumanMessage(_content(order))]
    with reply.noting_errors(*errors):
        for _ in range(MAX_STEPS):
            if order.do == "answer":
                message = model.invoke(messages)
                reply.say(message.text)
            else:
                message = _stream(model, messages, reply, leave=order.do == "leave")
            _take(message, reply, finish)
            if order.do == "leave" or not message.tool_calls:
                break
            messages.append(message)
            messages += [
                ToolMessage(reply.call(call["name"], call["args"]), tool_call_id=call["id"])
                for call in message.tool_calls
            ]
    return reply


def _content(order: Order) -> Any:
    if not order.image:
        return order.text
    return [
        {"type": "text", "text": order.text},
        {"type": "image", "mime_type": "image/png", "base64": PICTURE.partition(",")[2]},
    ]


def _stream(model: Any, messages: list[Any], reply: Reply, *, leave: bool) -> Any:
    whole: AIMessageChunk | None = None
    pieces = model.stream(messages)
    for piece in pieces:
        whole = piece if whole is None else whole + piece
        reply.say(piece.text)
        if leave and piece.text:
            pieces.close()
            break
    return whole


def _take(message: AIMessage, reply: Reply, finish: tuple[str, ...]) -> None:
    reply.reasoning += "".join(
        block.get("reasoning", "")
        for block in message.content_blocks
        if block["type"] == "reasoning"
    )
    told = message.response_metadata
    reply.finish = next((told[name] for name in finish if told.get(name)), None)
    reply.spent(message.usage_metadata, "input_tokens", "output_tokens")
