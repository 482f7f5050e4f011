"""From the body of `POST /v1/responses` to a checked `Call`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw, Struct

from gateway.front.bodies import check_nesting, check_utf8
from gateway.front.chats.parameters import NOTHING, Text, Whole, decode_parameters, given
from gateway.front.chats.refusals import refuse, unsupported
from gateway.front.chats.requests import make_call
from gateway.front.chats.tools import Tools
from gateway.front.openai.items import read_input
from gateway.front.openai.memory import Place
from gateway.front.openai.parameters import LARGE, PASSED, Shared, asked, check_shared
from gateway.front.openai.tools import read_tools
from protocol import on_one_line

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.errors import InvalidRequest
    from gateway.front.dialect import RequestHead
    from gateway.front.openai.memory import Memory


class _Reasoning(Struct, gc=False, forbid_unknown_fields=True):
    """What a client asks of the agent's thoughts; a `summary` is a hint of what it would show, and
    was once called `generate_summary`."""

    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None
    context: str | None = None
    mode: str | None = None


class _TextOptions(Struct, gc=False, forbid_unknown_fields=True):
    format: dict[str, Raw] | None = None
    verbosity: str | None = None


class _Conversation(Struct, gc=False):
    id: str


class ResponseBody(Shared, kw_only=True, gc=False, forbid_unknown_fields=True):
    input: Raw = NOTHING
    instructions: Raw = NOTHING
    background: bool | None = None
    conversation: str | _Conversation | None = None
    previous_response_id: Text = None

    # For the agent.
    max_output_tokens: Whole = None
    max_tool_calls: Whole = None
    reasoning: _Reasoning | None = None
    text: _TextOptions | None = None
    truncation: Text = None

    # Refused, unless they ask for what is anyway.
    include: list[str] | None = None
    prompt: Raw = NOTHING
    access_programs: Raw = NOTHING
    context_management: Raw = NOTHING

    # Ignored.
    background_options: Raw = NOTHING
    image: Raw = NOTHING
    stream_options: Raw = NOTHING


_decode = msgspec.json.Decoder(ResponseBody).decode
_decode_tools = msgspec.json.Decoder(list[dict[str, Raw]]).decode

MOST_ECHOED_BYTES = 64 * 1024
"""Of tools that a Response tells whole."""

_LOGPROBS = "message.output_text.logprobs"


class ResponseRequest(Struct, frozen=True, gc=False):
    """What the response needs of the request."""

    model: str
    tools: Tools
    echo: bytes
    """Members of the Response that say what was asked for."""
    store: bool
    """Whether what is said may be remembered."""
    place: Place | None
    """The conversation."""
    previous: str | None
    """The response to go on from, which only an agent that still has the conversation can."""


def read_response(head: RequestHead, body: bytes, memory: Memory) -> tuple[Call, ResponseRequest]:
    """Check the body. Raises InvalidRequest and RequestTooLarge."""
    check_utf8(body)
    decoded: ResponseBody = decode_parameters(_decode, body, LARGE)
    check_nesting(body)
    _check_supported(decoded)
    if not given(decoded.input):
        raise refuse("'input' is missing", "input", "missing_required_parameter")
    tools = read_tools(decoded.tools, decoded.tool_choice, flat=True)
    chat = read_input(
        decoded.input, decoded.instructions, lambda item: memory.item(head.owner, item)
    )
    payload = on_one_line(msgspec.json.encode(chat.messages))
    call = make_call(
        head,
        asked(
            decoded,
            _conversation(head.owner, decoded, memory),
            continues=bool(decoded.background),
        ),
        payload,
        modes=chat.modes,
        tools=tools,
        parameters=_parameters(decoded),
    )
    conversation = call.conversation
    return call, ResponseRequest(
        model=decoded.model,
        tools=tools,
        echo=_echo(decoded, tools, conversation),
        store=decoded.store is not False,
        place=None if conversation is None else Place(head.owner, decoded.model, conversation),
        previous=decoded.previous_response_id,
    )


def _check_supported(body: ResponseBody) -> None:
    """Raises InvalidRequest for what would change the answer and cannot be honoured."""
    check_shared(body)
    if body.include is not None and _LOGPROBS in body.include:
        raise unsupported("include", f"{_LOGPROBS}: an agent does not tell any")
    if body.reasoning is not None and body.reasoning.mode not in {None, "standard"}:
        raise unsupported("reasoning.mode", "an agent has one way of thinking")
    if body.reasoning is not None and body.reasoning.context not in {None, "auto"}:
        raise unsupported("reasoning.context", "what an agent thought is not given back to it")
    if given(body.prompt):
        raise unsupported("prompt", "the gateway has no templates of prompts")
    if given(body.access_programs):
        raise unsupported("access_programs", "an agent is in none of OpenAI's programs")
    if given(body.context_management):
        raise unsupported("context_management", "the gateway leaves the context to the agent")


def _conversation(owner: str, body: ResponseBody, memory: Memory) -> str | None:
    """The conversation that the body names, by its id or by its last response."""
    named = body.conversation
    conversation = named.id if isinstance(named, _Conversation) else named
    if body.previous_response_id is None:
        return conversation
    param = "previous_response_id"
    if conversation is not None:
        raise refuse("'conversation' and 'previous_response_id' exclude each other", param)
    place = memory.place(body.previous_response_id)
    if place is None or place.agent != body.model or place.owner != owner:
        raise not_found(body.previous_response_id)
    return place.conversation


def not_found(response_id: str) -> InvalidRequest:
    """A 400 in OpenAI's words, for a response that cannot be gone on from."""
    return refuse(
        f"Previous response with id {response_id[:80]!r} not found: only the last response of a "
        "conversation that the request named (X-Conversation-Id, 'conversation') is known, while "
        "its worker lives; send the earlier items instead",
        "previous_response_id",
        "previous_response_not_found",
    )


def _parameters(body: ResponseBody) -> dict[str, Any]:
    """The parameters as chat completions name them."""
    parameters: dict[str, Any] = {name: getattr(body, name) for name in PASSED}
    reasoning = body.reasoning if body.reasoning is not None else _Reasoning()
    text = body.text if body.text is not None else _TextOptions()
    return parameters | {
        "max_completion_tokens": body.max_output_tokens,
        "max_tool_calls": body.max_tool_calls,
        "reasoning_effort": reasoning.effort,
        "response_format": _response_format(text.format),
        "truncation": body.truncation,
        "verbosity": text.verbosity,
    }


def _response_format(format_: dict[str, Raw] | None) -> dict[str, Any] | None:
    """`text.format` as chat completions have it: a schema's members stand in `json_schema`."""
    if format_ is None or bytes(format_.get("type", NOTHING)) != b'"json_schema"':
        return format_
    members = {name: value for name, value in format_.items() if name != "type"}
    return {"type": "json_schema", "json_schema": members}


def _echo(body: ResponseBody, tools: Tools, conversation: str | None) -> bytes:
    """What a Response says of its request, as members of a JSON object."""
    parallel = body.parallel_tool_calls
    text: dict[str, Any] = {"format": {"type": "text"}}
    if body.text is not None and body.text.format is not None:
        text["format"] = body.text.format
    reasoning = body.reasoning
    members = {
        "background": bool(body.background),
        "conversation": None if conversation is None else {"id": conversation},
        "max_output_tokens": body.max_output_tokens,
        "metadata": body.metadata or {},
        "parallel_tool_calls": True if parallel is None else parallel,
        "previous_response_id": body.previous_response_id,
        "reasoning": {"effort": reasoning.effort if reasoning else None, "summary": None},
        "temperature": body.temperature,
        "text": text,
        "tool_choice": _flat_choice(tools),
        "tools": _flat_tools(tools),
        "top_p": body.top_p,
        "truncation": body.truncation or "disabled",
        "user": body.user,
    }
    return msgspec.json.encode(members)[1:-1]


def _flat_choice(tools: Tools) -> Any:
    if isinstance(tools.choice, dict):
        return {"type": "function", **tools.choice["function"]}
    return tools.choice or "auto"


def _flat_tools(tools: Tools) -> list[dict[str, Raw]]:
    """The tools as Responses has them; many or long ones by name only, as they are told three
    times."""
    if tools.wire is None:
        return []
    whole = len(tools.wire) <= MOST_ECHOED_BYTES
    return [
        {
            "type": Raw(b'"function"'),
            "name": tool["name"],
            "description": tool["description"] if whole else NOTHING,
            "parameters": tool["parameters"] if whole else NOTHING,
            "strict": Raw(b"false"),
        }
        for tool in _decode_tools(tools.wire)
    ]
