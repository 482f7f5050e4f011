"""openai-agents: the events of a streamed run as words and events, and a client's tools.

    @agent.chat
    async def chat(messages, context):
        ready = clerk.clone(tools=[*clerk.tools, *openai_agents.tools(context)])
        run = Runner.run_streamed(ready, openai_agents.items(messages))
        return openai_agents.events(run, context)

A client's tool is one that needs an approval which never comes: its call interrupts the run, and
the client makes it; a run that goes on without its result tells of it again. The calls of other
tools that need an approval become questions; to go on with these, the agent keeps the run's state
(`run.to_state()`) and decides them with `decide`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from ..context import Context, InvalidInput
from ..events import Ask, Event, Finish, Reasoning, ToolCall, ToolResult, Usage, tool_call
from ..messages import to_plain
from ._answers import approves

_REASONING = {"response.reasoning_summary_text.delta", "response.reasoning_text.delta"}
_FINISHES: dict[object, Any] = {"max_output_tokens": "length", "content_filter": "refused"}


async def events(run: Any, context: Context) -> AsyncIterator[str | Event]:
    """The words and events of `Runner.run_streamed(…)`, whose `stream_events` this calls."""
    told = set()
    try:
        async for event in run.stream_events():
            if event.type == "raw_response_event":
                for each in _read_raw(event.data):
                    yield each
            elif event.type == "run_item_stream_event":
                for each in _read_item(event.item):
                    if isinstance(each, ToolCall):
                        told.add(each.call)
                    yield each
    finally:
        if not run.is_complete:  # it runs in a task of its own, also when its caller has left
            run.cancel()
    clients = {tool.name for tool in context.tools}
    for item in run.interruptions:
        if item.name not in clients:
            yield _ask(item)
        elif item.call_id not in told:  # by the run that this one goes on from
            yield _call(item.raw_item)


def tools(context: Context) -> list[Any]:
    """The client's tools, for an agent's `tools`."""
    from agents import FunctionTool  # noqa: PLC0415  (see the package's docstring)

    async def never(*_: Any) -> str:
        raise RuntimeError("a tool of the client's is called by the client")

    return [
        FunctionTool(
            name=tool.name,
            description=tool.description,
            params_json_schema=tool.parameters or {"type": "object", "properties": {}},
            on_invoke_tool=never,
            strict_json_schema=False,
            needs_approval=True,
        )
        for tool in context.tools
    ]


def decide(state: Any, context: Context) -> Any:
    """Approve or reject the interruptions of a run's state as the user has answered; returns the
    state, to be run again.

    An answer approves if its payload is true, or an object whose `approved` is; one that was
    cancelled rejects. What was not answered stays open: it interrupts the run again.
    """
    answers = {answer.id: answer for answer in context.resume}
    for item in state.get_interruptions():
        answer = answers.get(item.call_id)
        if answer is None:
            continue
        if approves(answer):
            state.approve(item)
        else:
            state.reject(item)
    return state


def items(messages: Iterable[Mapping[str, Any]]) -> list[Any]:
    """The messages of a chat, as a run's input.

    Raises InvalidInput for a part of a message's content that is of no known type.
    """
    found: list[Any] = []
    for message in messages:
        content = message.get("content")
        if message["role"] == "tool":
            call = message.get("tool_call_id", "")
            output = content if isinstance(content, str) else msgspec.json.encode(content).decode()
            found.append({"type": "function_call_output", "call_id": call, "output": output})
            continue
        if content:
            found.append({"role": message["role"], "content": _content(content, message["role"])})
        found += (
            _function_call(call["id"], **call["function"])
            for call in message.get("tool_calls") or ()
        )
    return found


def _function_call(call: str, name: str, arguments: str, **_: Any) -> dict[str, Any]:
    return {"type": "function_call", "call_id": call, "name": name, "arguments": arguments}


def _content(content: Any, role: str) -> Any:
    if isinstance(content, str) or role == "assistant":
        return content if isinstance(content, str) else _text(content)
    return [_part(part) for part in content]


def _text(parts: Iterable[Mapping[str, Any]]) -> str:
    return "".join(part.get("text", "") for part in parts)


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    match part:
        case {"type": "text", "text": text}:
            return {"type": "input_text", "text": text}
        case {"type": "image_url", "image_url": {"url": url, **rest}}:
            return {"type": "input_image", "image_url": url, "detail": rest.get("detail", "auto")}
        case {"type": "input_audio", "input_audio": audio}:
            return {"type": "input_audio", "input_audio": audio}
        case {"type": "file", "file": file}:
            return {"type": "input_file", **file}
    raise InvalidInput(f"messages: a part of type {part.get('type')!r} is none that is taken")


def _read_raw(data: Any) -> Iterator[str | Event]:
    kind = data.type
    if kind == "response.output_text.delta":
        yield data.delta
    elif kind in _REASONING:
        yield Reasoning(data.delta)
    elif kind == "response.refusal.delta":
        yield data.delta
        yield Finish("refused")
    elif kind in {"response.completed", "response.incomplete"}:
        if (usage := data.response.usage) is not None:
            yield Usage(
                usage.input_tokens,
                usage.output_tokens,
                cached_input_tokens=_detail(usage, "input_tokens_details", "cached_tokens"),
                reasoning_tokens=_detail(usage, "output_tokens_details", "reasoning_tokens"),
            )
        incomplete = data.response.incomplete_details
        if incomplete is not None and incomplete.reason in _FINISHES:
            yield Finish(_FINISHES[incomplete.reason])


def _detail(usage: Any, group: str, name: str) -> int:
    return getattr(getattr(usage, group, None), name, None) or 0


def _read_item(item: Any) -> Iterator[Event]:
    kind, raw = item.type, item.raw_item
    if kind in {"tool_call_item", "handoff_call_item"}:
        yield _call(raw)
    elif kind == "tool_call_output_item":
        yield ToolResult(_get(raw, "call_id"), msgspec.to_builtins(item.output, enc_hook=to_plain))
    elif kind == "handoff_output_item":
        yield ToolResult(_get(raw, "call_id"), _get(raw, "output"))


def _call(raw: Any) -> ToolCall:
    # A tool that the model's host runs has an id and a type, and other members for its arguments.
    call = _get(raw, "call_id") or _get(raw, "id")
    return tool_call(call, _get(raw, "name") or _get(raw, "type"), _get(raw, "arguments"))


def _ask(item: Any) -> Ask:
    question = f"May {item.name} be called with {item.arguments}?"
    schema = {"type": "boolean"}
    return Ask(item.call_id, question, reason="approval", schema=schema, call=item.call_id)


def _get(item: Any, name: str) -> Any:
    return item.get(name) if isinstance(item, Mapping) else getattr(item, name, None)
