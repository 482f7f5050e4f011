"""pydantic-ai: the events of a run as words and events, and a client's tools as external ones.

    @agent.chat
    async def chat(messages, context):
        run = guide.run_stream_events(
            message_history=pydantic_ai.history(messages),
            toolsets=[pydantic_ai.toolset(context)],
            output_type=[str, DeferredToolRequests],
        )
        async with run as stream:
            async for each in pydantic_ai.events(stream):
                yield each

Calls of the client's tools end the run, with `DeferredToolRequests` as its output; so do calls that
need an approval, which become questions.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from ..context import Context, InvalidInput
from ..events import Ask, Event, File, Finish, Reasoning, ToolResult, Usage, tool_call
from ..messages import to_plain
from ._answers import approves

_FINISHES: dict[object, Any] = {"stop": "stop", "length": "length", "content_filter": "refused"}


async def events(stream: AsyncIterable[Any]) -> AsyncIterator[str | Event]:
    """The words and events of `agent.run_stream_events(…)`.

    An output that was not streamed as text (an output type) is one word: its JSON text.
    """
    streamed = False
    async for event in stream:
        kind = getattr(event, "event_kind", None)
        if kind == "final_result":
            streamed = event.tool_name is None
        elif kind == "agent_run_result":
            for each in _result(event.result, streamed=streamed):
                yield each
        else:
            for each in _read(kind, event):
                yield each


def toolset(context: Context) -> Any:
    """The client's tools, as an `ExternalToolset`. The agent's output types must have
    `DeferredToolRequests` among them."""
    from pydantic_ai import ExternalToolset, ToolDefinition  # noqa: PLC0415  (see the package)

    return ExternalToolset(
        [
            ToolDefinition(
                name=tool.name,
                description=tool.description or None,
                parameters_json_schema=tool.parameters or {"type": "object", "properties": {}},
            )
            for tool in context.tools
        ]
    )


def approvals(context: Context) -> Any:
    """The answers to questions about calls that need an approval, as `DeferredToolResults` for a
    run whose history ends with these calls; None if there are none.

    An answer approves if its payload is true, or an object whose `approved` is; any other denies,
    as does one that was cancelled. pydantic-ai goes on only with an answer to each question: its
    run raises UserError for what is missing.
    """
    from pydantic_ai import DeferredToolResults, ToolDenied  # noqa: PLC0415  (see the package)

    decided: dict[str, Any] = {
        answer.id: True if approves(answer) else ToolDenied() for answer in context.resume
    }
    return DeferredToolResults(approvals=decided) if decided else None


def history(messages: Iterable[Mapping[str, Any]]) -> list[Any]:
    """The messages of a chat, for a run's `message_history`; the prompt is the last of them.

    Raises InvalidInput for a part of a message's content that is of no known type.
    """
    from pydantic_ai import messages as theirs  # noqa: PLC0415  (see the package)

    names: dict[str, str] = {}
    found: list[Any] = []
    for message in messages:
        content = message.get("content")
        if message["role"] == "assistant":
            calls = list(_calls(message, theirs))
            names.update((call.tool_call_id, call.tool_name) for call in calls)
            text = [theirs.TextPart(_text(content))] if content else []
            if text or calls:
                found.append(theirs.ModelResponse([*text, *calls]))
            continue
        part: Any
        if message["role"] == "system":
            part = theirs.SystemPromptPart(_text(content))
        elif message["role"] == "tool":
            call = message.get("tool_call_id", "")
            part = theirs.ToolReturnPart(names.get(call, call), content, call)
        else:
            part = theirs.UserPromptPart(_prompt(content, theirs))
        if found and isinstance(found[-1], theirs.ModelRequest):
            found[-1] = theirs.ModelRequest([*found[-1].parts, part])
        else:
            found.append(theirs.ModelRequest([part]))
    return found


def _calls(message: Mapping[str, Any], theirs: Any) -> Iterator[Any]:
    for call in message.get("tool_calls") or ():
        function = call["function"]
        yield theirs.ToolCallPart(function["name"], function["arguments"], call["id"])


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content or ())


def _prompt(content: Any, theirs: Any) -> Any:
    if isinstance(content, str):
        return content
    return [_prompt_part(part, theirs) for part in content or ()]


def _prompt_part(part: Mapping[str, Any], theirs: Any) -> Any:
    binary = theirs.BinaryContent
    match part:
        case {"type": "text", "text": text}:
            return text
        case {"type": "image_url", "image_url": {"url": url}}:
            return binary.from_data_uri(url) if url.startswith("data:") else theirs.ImageUrl(url)
        case {"type": "input_audio", "input_audio": {"data": data, "format": kind}}:
            return binary.from_data_uri(f"data:audio/{kind};base64,{data}")
        case {"type": "file", "file": {"file_data": data}}:
            return binary.from_data_uri(data)
    raise InvalidInput(f"messages: a part of type {part.get('type')!r} is none that is taken")


def _read(kind: object, event: Any) -> Iterator[str | Event]:
    if kind == "part_start":
        yield from _part(event.part)
    elif kind == "part_delta" and event.delta.part_delta_kind in {"text", "thinking"}:
        yield from _said(event.delta.part_delta_kind, event.delta.content_delta)
    elif kind == "part_end" and event.part.part_kind in {"builtin-tool-call", "native-tool-call"}:
        part = event.part
        yield tool_call(part.tool_call_id, part.tool_name, part.args)
    elif kind == "function_tool_call":
        yield tool_call(event.part.tool_call_id, event.part.tool_name, event.part.args)
    elif kind == "function_tool_result":
        yield _tool_result(event.part)


def _part(part: Any) -> Iterator[str | Event]:
    kind = part.part_kind
    if kind in {"text", "thinking"}:
        yield from _said(kind, part.content)
    elif kind == "file":
        content = part.content
        name = f"{content.identifier}.{content.format}"
        yield File(name, content.media_type, content.data)
    elif kind in {"builtin-tool-return", "native-tool-return"}:
        yield _tool_result(part)


def _said(kind: str, text: str | None) -> Iterator[str | Event]:
    """A piece of the answer, or of the model's thoughts; nothing if it is empty."""
    if text:
        yield text if kind == "text" else Reasoning(text)


def _tool_result(part: Any) -> ToolResult:
    failed = part.part_kind == "retry-prompt" or part.outcome in {"failed", "retried"}
    return ToolResult(part.tool_call_id, _plain(part.content), is_error=failed)


def _result(result: Any, *, streamed: bool) -> Iterator[str | Event]:
    output = result.output
    if hasattr(output, "approvals"):  # DeferredToolRequests
        for part in output.approvals:
            schema = {"type": "boolean"}
            question = f"May {part.tool_name} be called with {part.args_as_json_str()}?"
            call = part.tool_call_id
            yield Ask(call, question, reason="approval", schema=schema, call=call)
    elif not streamed:
        yield output if isinstance(output, str) else msgspec.json.encode(_plain(output)).decode()
    usage = result.usage
    if not hasattr(usage, "input_tokens"):  # a method, before 2.0
        usage = usage()
    yield Usage(
        usage.input_tokens,
        usage.output_tokens,
        cached_input_tokens=usage.cache_read_tokens,
        reasoning_tokens=getattr(usage, "output_reasoning_tokens", 0),
    )
    reason = getattr(result.response, "finish_reason", None)
    if reason in _FINISHES:
        yield Finish(_FINISHES[reason])


def _plain(value: Any) -> Any:
    return msgspec.to_builtins(value, enc_hook=to_plain)
