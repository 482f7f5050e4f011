"""Parameters of a request: those that the agent is told, and those that are refused.

Every parameter of OpenAI's API is in one of four groups. What the gateway itself needs is read by
`chat_request` and `response_request`. What is for the model is passed on: the agent finds it in
`context.parameters`, under the names of chat completions whichever API the client uses, so that an
author learns one vocabulary. What would change the answer and cannot be honoured is refused. The
rest are hints, which change nothing that the client could see in the answer, and are ignored. A
parameter that is in none of the groups is refused as well: nobody knows what it would change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta, Raw, Struct

from gateway.errors import InvalidRequest
from gateway.front.bodies import decode_body, readable
from gateway.front.openai.errors import refuse, unsupported
from protocol.wording import Problem, read_mismatch

if TYPE_CHECKING:
    from collections.abc import Mapping

Number: TypeAlias = float | None
Whole: TypeAlias = int | None
Text: TypeAlias = str | None
NOTHING = Raw(b"null")
"""What is not given: the same as null, in every parameter of both APIs."""


def given(value: Raw) -> bool:
    """Whether a parameter that is not decoded was given."""
    view = memoryview(value)
    return len(view) != len(b"null") or bytes(view) != b"null"


MOST_METADATA = 16
"""Pairs of `metadata`, as OpenAI's documentation has it, like the lengths below."""

Metadata: TypeAlias = Annotated[
    dict[
        Annotated[str, Meta(max_length=64)],
        Annotated[str, Meta(max_length=512)],
    ],
    Meta(max_length=MOST_METADATA),
]


MOST_PARAMETER_BYTES = 128 * 1024
"""Of a body beside its messages, tools and instructions: a schema of the answer fits. What is
decoded takes up to thirty times as much memory as its text."""


class _Large(Struct, gc=False):
    """What may be large, and is not decoded with the rest."""

    messages: Raw = NOTHING
    input: Raw = NOTHING
    instructions: Raw = NOTHING
    tools: Raw = NOTHING
    prediction: Raw = NOTHING


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


_decode_large = msgspec.json.Decoder(_Large).decode


def mismatch(error: Exception) -> InvalidRequest:
    """A 400 for a body whose types are wrong, which names the parameter where one is known."""
    found = read_mismatch(error)
    if found.problem is Problem.UNKNOWN_KEY:
        name = found.subject.strip("`")
        where = ".".join([*found.keys, name])
        return refuse(f"{where[:80]!r} is not supported", where[:80], "unknown_parameter")
    if found.problem is Problem.MISSING_KEY and not found.keys:
        name = found.subject.strip("`")
        return refuse(f"{name!r} is missing", name, "missing_required_parameter")
    keys = found.keys
    sentence = readable(error)
    return refuse(sentence, keys[0], "invalid_type") if keys else InvalidRequest(sentence)


def decode_parameters(decode: Any, body: bytes) -> Any:
    """Decode a body, by a decoder whose type leaves what is large as it is. Raises
    InvalidRequest."""
    if len(body) > MOST_PARAMETER_BYTES:
        large = decode_body(_decode_large, body, mismatch)
        fields = (getattr(large, name) for name in _Large.__struct_fields__)
        size = len(body) - sum(len(memoryview(value)) for value in fields)
        if size > MOST_PARAMETER_BYTES:
            raise InvalidRequest(
                f"the body has {size} bytes beside messages, input, instructions, tools and "
                f"prediction, expected at most {MOST_PARAMETER_BYTES}"
            )
    return decode_body(decode, body, mismatch)


def check_shared(body: Shared) -> None:
    """Raises InvalidRequest for what cannot be honoured, whichever the API."""
    if body.top_logprobs:
        raise unsupported("top_logprobs", "an agent does not tell the probabilities of its words")
    if given(body.moderation):
        raise unsupported("moderation", "the gateway moderates nothing")


def encode_parameters(members: Mapping[str, Any]) -> bytes:
    """`context.parameters`: an object of those that were given; nothing if there are none."""
    present = {name: value for name, value in members.items() if value is not None}
    return msgspec.json.encode(present) if present else b""


_Choice: TypeAlias = Literal["none", "auto", "required"]


class Function(Struct, gc=False):
    name: str


class NamedChoice(Struct, gc=False):
    """Chat completions have the name in `function`, Responses beside the type."""

    type: Literal["function"]
    function: Function | None = None
    name: str | None = None


_decode_choice = msgspec.json.Decoder(_Choice | NamedChoice).decode


def read_tool_choice(choice: Raw, names: frozenset[str]) -> str | dict[str, Any] | None:
    """What the agent is told of `tool_choice`: None, "none", "auto", "required", or the object by
    which chat completions name a function of `names`."""
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
    name = decoded.function.name if decoded.function is not None else decoded.name
    if name not in names:
        raise refuse(
            f"tool_choice names {str(name)[:80]!r}, which is not one of the tools", "tool_choice"
        )
    return {"type": "function", "function": {"name": name}}
