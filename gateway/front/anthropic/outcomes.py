"""How an answer ended, in Anthropic's words: its stop reason and its usage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.front.chats.endings import counts_of

if TYPE_CHECKING:
    from protocol import Outcome

STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "refused": "refusal",
    "tool_calls": "tool_use",
    "input_required": "end_turn",
}
"""`stop_reason` by the finish. A question to the user is text, after which the user speaks. An
agent does not tell that it met one of the client's stop sequences."""

NO_USAGE = {"input_tokens": 0, "output_tokens": 0}
"""Where it is not known: clients expect numbers, and add them up."""


def usage_of(outcome: Outcome | None) -> dict[str, Any]:
    """`usage` of a message: here tokens that were read from a cache are counted apart from
    `input_tokens`, which hold them on the wire."""
    counts = counts_of(outcome)
    if counts is None:
        return NO_USAGE
    asked = counts["input_tokens"]
    cached = min(asked, counts.get("cached_input_tokens", 0))
    usage: dict[str, Any] = {
        "input_tokens": asked - cached,
        "output_tokens": counts["output_tokens"],
    }
    if "cached_input_tokens" in counts:
        usage |= {"cache_creation_input_tokens": 0, "cache_read_input_tokens": cached}
    if "reasoning_tokens" in counts:
        usage["output_tokens_details"] = {"thinking_tokens": counts["reasoning_tokens"]}
    return usage
