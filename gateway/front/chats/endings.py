"""How an answer ended: its finish, the calls for the client, its questions, and what it used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    from gateway.front.chats.calls import Calls, FunctionCall
    from gateway.front.chats.message import Message
    from protocol import Outcome


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
    them, and those in its message, unless it ended for another reason. One that is both is as it
    was told first, and where, since that may have been shown."""
    finish = outcome.finish if outcome is not None else None
    told = calls.of_client()
    if message is None or not message.calls or finish not in {None, "tool_calls"}:
        return told if finish == "tool_calls" else []
    ids = {call.id for call in message.calls}
    found = [call for call in told if finish == "tool_calls" or call.id in ids]
    known = {call.id for call in found}
    return found + [
        call for call in message.calls if call.id not in known and not calls.is_answered(call.id)
    ]


def questions_of(outcome: Outcome | None) -> str:
    """The questions that the answer ends with, as text; nothing if there are none."""
    if outcome is None or outcome.asks is None:
        return ""
    return "\n\n".join(ask.message for ask in _decode_asks(outcome.asks) if ask.message)


def counts_of(outcome: Outcome | None) -> dict[str, int] | None:
    """The counts of tokens; None unless the agent told both `input_tokens` and `output_tokens`:
    clients take an absent usage for unknown, and a zero for a zero."""
    if outcome is None or outcome.usage is None:
        return None
    counts = _decode_usage(outcome.usage)
    return counts if {"input_tokens", "output_tokens"} <= counts.keys() else None


def total_of(counts: dict[str, int]) -> int:
    """The agent's own total, if it told one."""
    return counts.get("total_tokens", counts["input_tokens"] + counts["output_tokens"])
