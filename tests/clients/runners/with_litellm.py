"""litellm."""

from __future__ import annotations

import os
import sys
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it asks the internet for it

import litellm
import openai

from . import CHAT_TOOL, MAX_STEPS, RESPONSES_TOOL, SECONDS, Order, Reply, serve


def chat(url: str, order: Order) -> Reply:
    reply = Reply()
    messages: list[Any] = [{"role": "user", "content": order.chat_content()}]
    options: dict[str, Any] = {**options_of(url, order), "messages": messages}
    if order.tools:
        options["tools"] = [CHAT_TOOL]
    with reply.noting_errors(openai.APIError):  # litellm's errors are all kinds of it
        for _ in range(MAX_STEPS):
            if order.do == "answer":
                completion = litellm.completion(**options)
                reply.say(completion.choices[0].message.content)
            else:
                completion = stream_chat(options, reply, leave=order.do == "leave")
            if order.do == "leave":
                break
            [choice] = completion.choices
            reply.reasoning += getattr(choice.message, "reasoning_content", None) or ""
            reply.finish = choice.finish_reason
            reply.spent(completion.usage, "prompt_tokens", "completion_tokens")
            if not choice.message.tool_calls:
                break
            messages.append(choice.message.model_dump(exclude_none=True))
            for call in choice.message.tool_calls:
                content = reply.call(call.function.name, call.function.arguments)
                messages.append({"role": "tool", "tool_call_id": call.id, "content": content})
    return reply


def stream_chat(options: dict[str, Any], reply: Reply, *, leave: bool) -> Any:
    pieces: Any = litellm.completion(**options, stream=True, stream_options={"include_usage": True})
    taken = []
    for piece in pieces:
        taken.append(piece)
        if piece.choices:
            reply.say(piece.choices[0].delta.content)
        if leave and reply.text:
            pieces.completion_stream.close()
            break
    return litellm.stream_chunk_builder(taken, messages=options["messages"])


def responses(url: str, order: Order) -> Reply:
    reply = Reply()
    items: list[Any] = [{"role": "user", "content": order.responses_content()}]
    options: dict[str, Any] = {**options_of(url, order), "input": items, "store": False}
    if order.tools:
        options["tools"] = [RESPONSES_TOOL]
    with reply.noting_errors(openai.APIError):
        for _ in range(MAX_STEPS):
            if order.do == "answer":
                response: Any = litellm.responses(**options)
                reply.say(response.output_text)
            else:
                response = stream_responses(options, reply, leave=order.do == "leave")
            if response is None:
                break
            calls = []
            for item in response.output:
                if item.type == "reasoning":
                    reply.reasoning += "".join(part.text for part in item.summary)
                elif item.type == "function_call":
                    calls.append(item)
            reply.finish = response.status
            reply.spent(response.usage, "input_tokens", "output_tokens")
            if not calls:
                break
            for call in calls:
                items.append(call.model_dump(exclude_none=True))
                output = reply.call(call.name, call.arguments)
                items.append(
                    {"type": "function_call_output", "call_id": call.call_id, "output": output}
                )
    return reply


def stream_responses(options: dict[str, Any], reply: Reply, *, leave: bool) -> Any:
    """The response of the last event; None if there was none."""
    # Else it asks for one answer, and makes a stream of that.
    streams = {"litellm_provider": "openai", "supports_native_streaming": True}
    litellm.register_model({options["model"]: {**streams, "mode": "responses"}})
    events: Any = litellm.responses(**options, stream=True)
    for event in events:
        if event.type == "response.output_text.delta":
            reply.say(event.delta)
            if leave:
                events.response.close()
                return None
        elif event.type in {"response.completed", "response.incomplete"}:
            return event.response
        elif event.type == "response.failed":
            reply.fail(event.type, event.response.error["message"])
            return event.response
    return None


def options_of(url: str, order: Order) -> dict[str, Any]:
    to_anthropic = order.api == "messages"
    return {
        "model": f"{'anthropic' if to_anthropic else 'openai'}/{order.model}",
        "api_base": url if to_anthropic else f"{url}/v1",
        "api_key": order.key,
        "timeout": SECONDS,
    }


def main() -> None:
    litellm.suppress_debug_info = True  # it prints advice to stdout
    ask = {"chat": chat, "messages": chat, "responses": responses}
    serve(("litellm",), lambda order: ask[order.api](sys.argv[1], order))


main()
