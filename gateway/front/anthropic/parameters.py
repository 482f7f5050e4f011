"""The body of `POST /v1/messages`: what the agent is told of it, and what is refused.

Every member of Anthropic's API is in one of four groups. What the gateway itself needs is read by
`request`. What is for the model is passed on: the agent finds it in `context.parameters`, under the
names of chat completions, so that an author learns one vocabulary. What would change the answer and
cannot be honoured is refused. The rest are hints, which change nothing that the client could see in
the answer, and are ignored. A member that is in none of the groups is refused as well: nobody knows
what it would change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta, Raw, Struct

from gateway.front.chats.parameters import NOTHING, Number, Text, given
from gateway.front.chats.refusals import refuse, unsupported

if TYPE_CHECKING:
    from gateway.errors import InvalidRequest

_Tokens: TypeAlias = Annotated[int, Meta(ge=1)]


class Thinking(Struct, gc=False, forbid_unknown_fields=True):
    """What a client asks of the agent's thoughts, and whether it wants to see them."""

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: _Tokens | None = None
    display: Literal["summarized", "omitted"] | None = None


class Format(Struct, gc=False, forbid_unknown_fields=True):
    """What the text of the answer must be."""

    type: Literal["json_schema"]
    schema: dict[str, Raw]
    name: Text = None


class OutputConfig(Struct, gc=False, forbid_unknown_fields=True):
    effort: Text = None
    format: Format | None = None
    task_budget: Raw = NOTHING


class _Metadata(Struct, gc=False):
    user_id: Text = None


class MessagesBody(Struct, kw_only=True, gc=False, forbid_unknown_fields=True):
    model: str
    messages: Raw
    max_tokens: _Tokens
    system: Raw = NOTHING
    stream: bool | None = None
    metadata: _Metadata | None = None

    # For the agent.
    temperature: Number = None
    top_p: Number = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: Format | None = None
    tools: Raw = NOTHING
    tool_choice: Raw = NOTHING

    # Refused, unless they ask for what is anyway.
    compaction: Raw = NOTHING
    container: Raw = NOTHING
    fallback_credit_token: Raw = NOTHING
    fallbacks: Raw = NOTHING
    inference_geo: Raw = NOTHING
    mcp_servers: list[Raw] | None = None
    thread: Raw = NOTHING

    # Ignored.
    billing_policy: Raw = NOTHING
    cache_control: Raw = NOTHING
    context_management: Raw = NOTHING
    diagnostics: Raw = NOTHING
    service_tier: Text = None
    speed: Text = None


class _Large(Struct, gc=False):
    """What may be large, and is not decoded with the rest."""

    messages: Raw = NOTHING
    system: Raw = NOTHING
    tools: Raw = NOTHING


LARGE = msgspec.json.Decoder(_Large)

NO_THREAD = "thread_unsupported_request"
"""Anthropic's own code: its clients' tool runners try a thread first, and do without after that."""

_NO_FALLBACKS = (b'"default"', b"[]")
"""The models that Anthropic has chosen itself, or none: then the model is asked alone."""

_REFUSED = {
    "compaction": "the gateway keeps no conversations, and summarizes none",
    "container": "the gateway runs no code for clients; an agent may",
    "fallback_credit_token": "an agent gives none",
    "inference_geo": "the gateway cannot promise where an agent's models are",
}


def check_supported(body: MessagesBody) -> None:
    """Raises InvalidRequest for what would change the answer and cannot be honoured."""
    for name, why in _REFUSED.items():
        if given(getattr(body, name)):
            raise unsupported(name, why)
    if given(body.thread):
        raise refuse(
            "thread: the gateway keeps no conversations; send all messages, and X-Conversation-Id "
            "for an agent that does",
            "thread",
            NO_THREAD,
        )
    if body.mcp_servers:
        raise unsupported(
            "mcp_servers", "the gateway connects to none for a client; an agent may have its own"
        )
    if given(body.fallbacks) and bytes(body.fallbacks) not in _NO_FALLBACKS:
        raise unsupported("fallbacks", "the agent is the one that 'model' names, or none")
    if _formats(body) > 1:
        raise refuse("output_format is output_config.format; send one of them", "output_format")
    if (thinking := body.thinking) is not None:
        problem = _problem_of_thinking(thinking)
        if problem is not None:
            raise problem


def _problem_of_thinking(thinking: Thinking) -> InvalidRequest | None:
    budgeted = thinking.budget_tokens is not None
    if thinking.type == "enabled" and not budgeted:
        return refuse(
            "thinking.budget_tokens is missing, which a thinking of the type 'enabled' has",
            "thinking.budget_tokens",
            "missing_required_parameter",
        )
    if thinking.type != "enabled" and budgeted:
        return refuse(
            f"thinking.budget_tokens is for the type 'enabled', and the type is {thinking.type!r}",
            "thinking.budget_tokens",
        )
    return None


def _formats(body: MessagesBody) -> int:
    config = body.output_config
    return (config is not None and config.format is not None) + (body.output_format is not None)


def shows_thinking(body: MessagesBody) -> bool:
    """Whether the client wants to see what the agent thinks: not if it says that it does not."""
    thinking = body.thinking
    return thinking is None or (thinking.type != "disabled" and thinking.display != "omitted")


def parameters_of(body: MessagesBody) -> dict[str, Any]:
    """What the agent finds in `context.parameters`, but for the choice among its tools."""
    config = body.output_config or OutputConfig()
    return {
        "max_tokens": body.max_tokens,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "top_k": body.top_k,
        "stop": body.stop_sequences,
        "thinking": None if body.thinking is None else _without_nothing(body.thinking),
        "reasoning_effort": config.effort,
        "task_budget": config.task_budget if given(config.task_budget) else None,
        "response_format": _response_format(config.format or body.output_format),
    }


def _without_nothing(thinking: Thinking) -> dict[str, Any]:
    members = msgspec.structs.asdict(thinking)
    return {name: value for name, value in members.items() if value is not None}


def _response_format(asked: Format | None) -> dict[str, Any] | None:
    """As chat completions have it, where a schema has a name."""
    if asked is None:
        return None
    schema = {"name": asked.name or "answer", "strict": True, "schema": asked.schema}
    return {"type": "json_schema", "json_schema": schema}
