"""The anthropic package for Python."""

from __future__ import annotations

import sys
from typing import Any

import anthropic
from anthropic import beta_tool

from . import MAX_STEPS, PICTURE, SECONDS, TOOL, Order, Reply, serve

MOST_TOKENS = 1000
CLIENT_TOOL = {
    "name": TOOL["name"],
    "description": TOOL["description"],
    "input_schema": TOOL["parameters"],
}


def ask(url: str, order: Order) -> Reply:
    reply = Reply()
    client = anthropic.Anthropic(base_url=url, api_key=order.key, timeout=SECONDS)
    options: dict[str, Any] = {
        "model": order.model,
        "max_tokens": MOST_TOKENS,
        "messages": [{"role": "user", "content": content(order)}],
    }
    with client, reply.noting_errors(anthropic.AnthropicError):
        if order.do == "leave":
            leave(client, options, reply)
        elif order.do == "stream":
            stream(client, options, reply, tools=order.tools)
        elif order.tools:
            run_tools(client, options, reply)
        else:
            take(client.messages.create(**options), reply)
    return reply


def content(order: Order) -> Any:
    if not order.image:
        return order.text
    kind, _, data = PICTURE.removeprefix("data:").partition(";base64,")
    source = {"type": "base64", "media_type": kind, "data": data}
    return [{"type": "image", "source": source}, {"type": "text", "text": order.text}]


def take(message: Any, reply: Reply) -> None:
    for block in message.content:
        if block.type == "text":
            reply.say(block.text)
        elif block.type == "thinking":
            reply.reasoning += block.thinking
    reply.finish = message.stop_reason
    reply.spent(message.usage, "input_tokens", "output_tokens")


def run_tools(client: anthropic.Anthropic, options: dict[str, Any], reply: Reply) -> None:
    """Through the client's own runner of tools."""

    @beta_tool(name=TOOL["name"], description=TOOL["description"], input_schema=TOOL["parameters"])
    def weather(city: str) -> str:
        return reply.call(TOOL["name"], {"city": city})

    runner = client.beta.messages.tool_runner(**options, tools=[weather], max_iterations=MAX_STEPS)
    for message in runner:
        take(message, reply)


def stream(
    client: anthropic.Anthropic, options: dict[str, Any], reply: Reply, *, tools: bool
) -> None:
    """Through the client's own accumulator, which is strict about what comes."""
    if tools:
        options["tools"] = [CLIENT_TOOL]
    for _ in range(MAX_STEPS):
        with client.messages.stream(**options) as events:
            for event in events:
                if event.type == "text":
                    reply.say(event.text)
                elif event.type == "thinking":
                    reply.reasoning += event.thinking
            message = events.get_final_message()
        reply.finish = message.stop_reason
        reply.spent(message.usage, "input_tokens", "output_tokens")
        uses = [block for block in message.content if block.type == "tool_use"]
        if not uses:
            return
        options["messages"] += [
            message.to_param(),
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": use.id,
                        "content": reply.call(use.name, use.input),
                    }
                    for use in uses
                ],
            },
        ]


def leave(client: anthropic.Anthropic, options: dict[str, Any], reply: Reply) -> None:
    with client.messages.create(**options, stream=True) as events:
        for event in events:
            if event.type == "content_block_delta" and event.delta.type == "text_delta":
                reply.say(event.delta.text)
                break


def main() -> None:
    serve(("anthropic",), lambda order: ask(sys.argv[1], order))


main()
