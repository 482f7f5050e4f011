"""How an answer ended, in OpenAI's words: finish, usage, and questions as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    from gateway.front.openai.calls import Calls, FunctionCall
    from gateway.front.openai.message import Message
    from protocol import Outcome

FINISH_REASONS = {
    "stop": "stop",
    "length": "length",
    "refused": "content_filter",
    "tool_calls": "tool_calls",
    "input_required": "stop",
}
"""`finish_reason` of chat completions. A question to the user is text, after which the user speaks:
for OpenAI's clients that is a turn like others."""


class _Ask(Struct, gc=False):
    message: str


_decode_asks = msgspec.json.Decoder(list[_Ask]).decode
_decode_usage = msgspec.json.Decoder(dict[str, int]).decode


def finish_of(outcome: Outcome | None, calls: list[FunctionCall]) -> str:
    """The finish, with those calls for the client: "stop" where the agent told none. A finish of
    `tool_calls` without a call that the client could make is the end of an answer like others."""
    if calls:
        return "tool_calls"
    finish = outcome.finish if outcome is not None else None
    return "stop" if finish is None or finish == "tool_calls" else finish


def calls_of(outcome: Outcome | None, calls: Calls, message: Message | None) -> list[FunctionCall]:
    """The calls that the client is to make: those that the agent told of, if the answer ended for
    them, and those in its message, unless it ended for another reason."""
    finish = outcome.finish if outcome is not None else None
    found = calls.of_client() if finish == "tool_calls" else []
    if message is not None and finish in {None, "tool_calls"}:
        known = {call.id for call in found}
        found += [
            call
            for call in message.calls
            if call.id not in known and not calls.is_answered(call.id)
        ]
    return found


def questions_of(outcome: Outcome | None) -> str:
    """The questions that the answer ends with, as text; nothing if there are none."""
    if outcome is None or outcome.asks is None:
        return ""
    return "\n\n".join(ask.message for ask in _decode_asks(outcome.asks) if ask.message)


def chat_usage(outcome: Outcome | None) -> dict[str, Any] | None:
    """`usage` of a chat completion; None unless the agent told both counts: clients take an absent
    usage for unknown, and a zero for a zero."""
    counts = _counts(outcome)
    if counts is None:
        return None
    usage: dict[str, Any] = {
        "prompt_tokens": counts["input_tokens"],
        "completion_tokens": counts["output_tokens"],
        "total_tokens": _total(counts),
    }
    if (cached := _cached(counts)) is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": cached}
    if "reasoning_tokens" in counts:
        usage["completion_tokens_details"] = {"reasoning_tokens": counts["reasoning_tokens"]}
    return usage


def response_usage(outcome: Outcome | None) -> dict[str, Any] | None:
    """`usage` of a Response, whose details are mandatory: 0 is what clients expect for none."""
    counts = _counts(outcome)
    if counts is None:
        return None
    return {
        "input_tokens": counts["input_tokens"],
        "input_tokens_details": {"cached_tokens": _cached(counts) or 0, "cache_write_tokens": 0},
        "output_tokens": counts["output_tokens"],
        "output_tokens_details": {"reasoning_tokens": counts.get("reasoning_tokens", 0)},
        "total_tokens": _total(counts),
    }


def _counts(outcome: Outcome | None) -> dict[str, int] | None:
    if outcome is None or outcome.usage is None:
        return None
    counts = _decode_usage(outcome.usage)
    return counts if {"input_tokens", "output_tokens"} <= counts.keys() else None


def _total(counts: dict[str, int]) -> int:
    return counts.get("total_tokens", counts["input_tokens"] + counts["output_tokens"])


def _cached(counts: dict[str, int]) -> int | None:
    return counts.get("cached_input_tokens")
