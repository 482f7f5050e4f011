"""The openai package for Python."""

from __future__ import annotations

import sys
from typing import Any

import openai

from . import CHAT_TOOL, MAX_STEPS, RESPONSES_TOOL, SECONDS, Order, Reply, serve


def chat(client: openai.OpenAI, order: Order) -> Reply:
    reply = Reply()
    messages: list[Any] = [{"role": "user", "content": order.chat_content()}]
    options: dict[str, Any] = {"model": order.model, "messages": messages}
    if order.tools:
        options["tools"] = [CHAT_TOOL]
    with reply.noting_errors(openai.OpenAIError):
        for _ in range(MAX_STEPS):
            if order.do == "answer":
                message = answer_chat(client, options, reply)
            elif order.do == "stream":
                message = stream_chat(client, options, reply)
            else:
                leave_chat(client, options, reply)
                break
            if not message.tool_calls:
                break
            messages.append(message.model_dump(exclude_none=True))
            for call in message.tool_calls:
                content = reply.call(call.function.name, call.function.arguments)
                messages.append({"role": "tool", "tool_call_id": call.id, "content": content})
    return reply


def answer_chat(client: openai.OpenAI, options: dict[str, Any], reply: Reply) -> Any:
    completion = client.chat.completions.create(**options)
    [choice] = completion.choices
    reply.say(choice.message.content)
    reply.reasoning += getattr(choice.message, "reasoning_content", None) or ""
    reply.finish = choice.finish_reason
    reply.spent(completion.usage, "prompt_tokens", "completion_tokens")
    return choice.message


def stream_chat(client: openai.OpenAI, options: dict[str, Any], reply: Reply) -> Any:
    """Through the client's own accumulator, which is strict about what comes."""
    options = {**options, "stream_options": {"include_usage": True}}
    with client.chat.completions.stream(**options) as stream:
        for event in stream:
            if event.type == "chunk":
                for choice in event.chunk.choices:
                    reply.say(choice.delta.content)
                    reply.reasoning += getattr(choice.delta, "reasoning_content", None) or ""
        completion = stream.get_final_completion()
    [choice] = completion.choices
    reply.finish = choice.finish_reason
    reply.spent(completion.usage, "prompt_tokens", "completion_tokens")
    return choice.message


def leave_chat(client: openai.OpenAI, options: dict[str, Any], reply: Reply) -> None:
    with client.chat.completions.create(**options, stream=True) as stream:
        for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                reply.say(chunk.choices[0].delta.content)
                break


def responses(client: openai.OpenAI, order: Order) -> Reply:
    reply = Reply()
    items: list[Any] = [{"role": "user", "content": order.responses_content()}]
    options: dict[str, Any] = {"model": order.model, "input": items, "store": False}
    if order.tools:
        options["tools"] = [RESPONSES_TOOL]
    with reply.noting_errors(openai.OpenAIError):
        for _ in range(MAX_STEPS):
            if order.do == "answer":
                response = client.responses.create(**options)
                reply.say(response.output_text)
            elif order.do == "stream":
                response = stream_responses(client, options, reply)
            else:
                leave_responses(client, options, reply)
                break
            take_response(response, reply)
            calls = [item for item in response.output if item.type == "function_call"]
            if not calls:
                break
            for call in calls:
                items.append(call.model_dump(exclude_none=True, exclude={"parsed_arguments"}))
                output = reply.call(call.name, call.arguments)
                items.append(
                    {"type": "function_call_output", "call_id": call.call_id, "output": output}
                )
    return reply


def take_response(response: Any, reply: Reply) -> None:
    for item in response.output:
        if item.type == "reasoning":
            reply.reasoning += "".join(part.text for part in item.summary)
    reply.finish = response.status
    reply.spent(response.usage, "input_tokens", "output_tokens")


def stream_responses(client: openai.OpenAI, options: dict[str, Any], reply: Reply) -> Any:
    """Through the client's own accumulator, which is strict about what comes."""
    with client.responses.stream(**options) as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                reply.say(event.delta)
            elif event.type == "response.failed":
                # This client hands out a failed response as an event, and raises nothing.
                reply.fail(event.type, event.response.error.message)
                return event.response
            elif event.type == "response.incomplete":
                return event.response
        return stream.get_final_response()


def leave_responses(client: openai.OpenAI, options: dict[str, Any], reply: Reply) -> None:
    with client.responses.create(**options, stream=True) as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                reply.say(event.delta)
                break


def main() -> None:
    ask = {"chat": chat, "responses": responses}
    with openai.OpenAI(base_url=f"{sys.argv[1]}/v1", api_key="-", timeout=SECONDS) as client:
        serve(
            ("openai",),
            lambda order: ask[order.api](client.with_options(api_key=order.key), order),
        )


main()
