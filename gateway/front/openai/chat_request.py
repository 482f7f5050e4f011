"""From the body of `POST /v1/chat/completions` to a checked `Call`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
from msgspec import Raw, Struct

from gateway.errors import InvalidRequest
from gateway.front.bodies import are_plain, check_messages, check_nesting, check_utf8
from gateway.front.chats.parameters import (
    NOTHING,
    Number,
    Text,
    Whole,
    decode_parameters,
    given,
)
from gateway.front.chats.refusals import refuse, unsupported
from gateway.front.chats.requests import make_call
from gateway.front.chats.tools import Tools
from gateway.front.openai.content import DEVELOPER, modes_of, with_system
from gateway.front.openai.parameters import LARGE, PASSED, Shared, asked, check_shared
from gateway.front.openai.tools import read_tools
from protocol import as_one_line

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.front.dialect import RequestHead
    from protocol import Payload

_Stop: TypeAlias = str | list[str] | None


class _StreamOptions(Struct, gc=False):
    include_usage: bool | None = None


class ChatBody(Shared, kw_only=True, gc=False, forbid_unknown_fields=True):
    messages: Raw
    stream_options: _StreamOptions | None = None

    # For the agent.
    max_tokens: Whole = None
    max_completion_tokens: Whole = None
    stop: _Stop = None
    seed: Whole = None
    frequency_penalty: Number = None
    presence_penalty: Number = None
    logit_bias: dict[str, float] | None = None
    reasoning_effort: Text = None
    verbosity: Text = None
    response_format: dict[str, Raw] | None = None

    # Refused, unless they ask for what is anyway.
    n: Whole = None
    logprobs: bool | None = None
    modalities: list[str] | None = None
    audio: Raw = NOTHING
    functions: Raw = NOTHING
    function_call: Raw = NOTHING
    web_search_options: Raw = NOTHING

    # Ignored.
    prediction: Raw = NOTHING


_PASSED = (
    *PASSED,
    "max_tokens",
    "max_completion_tokens",
    "stop",
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
    "reasoning_effort",
    "verbosity",
    "response_format",
)

_decode = msgspec.json.Decoder(ChatBody).decode


class ChatRequest(Struct, frozen=True, gc=False):
    """What the response needs of the request."""

    model: str
    tools: Tools
    include_usage: bool


def read_chat(head: RequestHead, body: bytes) -> tuple[Call, ChatRequest]:
    """Check the body. Raises InvalidRequest and RequestTooLarge."""
    check_utf8(body)
    decoded: ChatBody = decode_parameters(_decode, body, LARGE)
    check_nesting(body)
    _check_supported(decoded)
    tools = read_tools(decoded.tools, decoded.tool_choice, flat=False)
    payload, modes = _read_messages(decoded.messages, body)
    parameters: dict[str, Any] = {name: getattr(decoded, name) for name in _PASSED}
    call = make_call(head, asked(decoded), payload, modes=modes, tools=tools, parameters=parameters)
    options = decoded.stream_options
    usage = options is not None and options.include_usage is True
    return call, ChatRequest(decoded.model, tools, usage)


def _read_messages(messages: Raw, body: bytes) -> tuple[Payload, frozenset[str]]:
    """The messages as the agent gets them, and the modes that they need."""
    if are_plain(messages):
        return as_one_line(messages, source=body), frozenset()
    payload = as_one_line(messages, source=body)
    if DEVELOPER in body:
        payload = with_system(payload)
    try:
        check_messages(payload)
    except InvalidRequest as error:
        raise refuse(error.message, "messages") from None
    return payload, modes_of(payload)


def _check_supported(body: ChatBody) -> None:
    """Raises InvalidRequest for what would change the answer and cannot be honoured."""
    check_shared(body)
    if body.n not in {None, 1}:
        raise unsupported("n", "an agent gives one answer")
    if body.logprobs:
        raise unsupported("logprobs", "an agent does not tell the probabilities of its words")
    if body.modalities is not None and body.modalities != ["text"]:
        raise unsupported("modalities", "an agent answers with text")
    if given(body.audio):
        raise unsupported("audio", "an agent answers with text")
    if given(body.functions) or given(body.function_call):
        param = "functions" if given(body.functions) else "function_call"
        raise unsupported(param, "it was replaced by 'tools' and 'tool_choice'; use those")
    if given(body.web_search_options):
        raise unsupported("web_search_options", "the gateway searches nothing; an agent may")
