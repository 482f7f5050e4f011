"""How an answer ended, in OpenAI's words: its finish and its usage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.front.chats.endings import counts_of, total_of

if TYPE_CHECKING:
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


def chat_usage(outcome: Outcome | None) -> dict[str, Any] | None:
    """`usage` of a chat completion; None where it is not known."""
    counts = counts_of(outcome)
    if counts is None:
        return None
    usage: dict[str, Any] = {
        "prompt_tokens": counts["input_tokens"],
        "completion_tokens": counts["output_tokens"],
        "total_tokens": total_of(counts),
    }
    if (cached := _cached(counts)) is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": cached}
    if "reasoning_tokens" in counts:
        usage["completion_tokens_details"] = {"reasoning_tokens": counts["reasoning_tokens"]}
    return usage


def response_usage(outcome: Outcome | None) -> dict[str, Any] | None:
    """`usage` of a Response, whose details are mandatory: 0 is what clients expect for none."""
    counts = counts_of(outcome)
    if counts is None:
        return None
    return {
        "input_tokens": counts["input_tokens"],
        "input_tokens_details": {"cached_tokens": _cached(counts) or 0, "cache_write_tokens": 0},
        "output_tokens": counts["output_tokens"],
        "output_tokens_details": {"reasoning_tokens": counts.get("reasoning_tokens", 0)},
        "total_tokens": total_of(counts),
    }


def _cached(counts: dict[str, int]) -> int | None:
    return counts.get("cached_input_tokens")
