"""Parameters of a request: those that the agent is told, and those that are refused.

Every parameter of OpenAI's API is in one of four groups. What the gateway itself needs is read by
`chat_request` and `response_request`. What is for the model is passed on: the agent finds it in
`context.parameters`, under the names of chat completions whichever API the client uses, so that an
author learns one vocabulary. What would change the answer and cannot be honoured is refused. The
rest are hints, which change nothing that the client could see in the answer, and are ignored. A
parameter that is in none of the groups is refused as well: nobody knows what it would change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta, Raw, Struct

from gateway.front.chats.parameters import NOTHING, Number, Text, Whole, given
from gateway.front.chats.refusals import refuse, unsupported
from gateway.front.chats.requests import Asked
from gateway.front.chats.tools import named_choice

if TYPE_CHECKING:
    from gateway.front.chats.tools import Choice

MOST_METADATA = 16
"""Pairs of `metadata`, as OpenAI's documentation has it, like the lengths below."""

Metadata: TypeAlias = Annotated[
    dict[
        Annotated[str, Meta(max_length=64)],
        Annotated[str, Meta(max_length=512)],
    ],
    Meta(max_length=MOST_METADATA),
]


class _Large(Struct, gc=False):
    """What may be large, and is not decoded with the rest."""

    messages: Raw = NOTHING
    input: Raw = NOTHING
    instructions: Raw = NOTHING
    tools: Raw = NOTHING
    prediction: Raw = NOTHING


LARGE = msgspec.json.Decoder(_Large)


class Shared(Struct, kw_only=True, gc=False, forbid_unknown_fields=True):
    """What both APIs know under one name."""

    model: str
    stream: bool | None = None

    # Who asks, and in which conversation.
    user: Text = None
    safety_identifier: Text = None
    metadata: Metadata | None = None

    # For the agent.
    temperature: Number = None
    top_p: Number = None
    parallel_tool_calls: bool | None = None
    tool_choice: Raw = NOTHING
    tools: Raw = NOTHING

    # Of services that speak OpenAI's API for models of their own; for the agent.
    top_k: Number = None
    min_p: Number = None
    repetition_penalty: Number = None

    # Refused, unless they ask for what is anyway.
    top_logprobs: Whole = None
    moderation: Raw = NOTHING

    # Ignored.
    store: bool | None = None
    service_tier: Text = None
    prompt_cache_key: Text = None
    prompt_cache_options: Raw = NOTHING
    prompt_cache_retention: Text = None


PASSED = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "parallel_tool_calls",
)
"""Of `Shared`: passed on as they are."""


def check_shared(body: Shared) -> None:
    """Raises InvalidRequest for what cannot be honoured, whichever the API."""
    if body.top_logprobs:
        raise unsupported("top_logprobs", "an agent does not tell the probabilities of its words")
    if given(body.moderation):
        raise unsupported("moderation", "the gateway moderates nothing")


def asked(body: Shared, conversation: str | None = None, *, continues: bool = False) -> Asked:
    """What a body says beside its messages; `conversation` is what it names."""
    return Asked(
        model=body.model,
        stream=bool(body.stream),
        user=body.user if body.user is not None else body.safety_identifier,
        custom=body.metadata,
        conversation=conversation,
        continues=continues,
    )


_Choice: TypeAlias = Literal["none", "auto", "required"]


class Function(Struct, gc=False):
    name: str


class NamedChoice(Struct, gc=False):
    """Chat completions have the name in `function`, Responses beside the type."""

    type: Literal["function"]
    function: Function | None = None
    name: str | None = None


_decode_choice = msgspec.json.Decoder(_Choice | NamedChoice).decode


def read_tool_choice(choice: Raw, names: frozenset[str]) -> Choice:
    """What the agent is told of `tool_choice`, of the tools with these names."""
    if not given(choice):
        return None
    try:
        decoded = _decode_choice(choice)
    except (msgspec.MsgspecError, RecursionError):
        raise unsupported(
            "tool_choice",
            "expected 'none', 'auto', 'required', or an object of type 'function' with the name of "
            "one of the tools",
        ) from None
    if isinstance(decoded, str):
        if decoded == "required" and not names:
            raise refuse("tool_choice is 'required', and there are no tools", "tool_choice")
        return decoded
    function = decoded.function
    return named_choice(decoded.name if function is None else function.name, names)
