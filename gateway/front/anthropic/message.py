"""An answer to `POST /v1/messages` that is told whole."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from gateway.front.anthropic.answer import Answer, message_members
from gateway.front.anthropic.outcomes import usage_of
from gateway.front.dialect import join_chunks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.exchange import Exchange
    from gateway.front.anthropic.request import MessagesRequest
    from gateway.front.chats.calls import FunctionCall
    from protocol.events import Status


def new_id() -> str:
    """The id of a message."""
    return f"msg_{secrets.token_hex(12)}"


def encode_message(request: MessagesRequest, exchange: Exchange, words: Sequence[bytes]) -> bytes:
    """The body of one whole message. Raises InvalidAgentResponse."""
    blocks = Blocks()
    answer = Answer(request, blocks)
    answer.take(words)
    reason = answer.end(exchange.result, exchange.outcome)
    return msgspec.json.encode(
        message_members(
            new_id(),
            request.model,
            content=blocks.as_members(),
            stop_reason=reason,
            stop_sequence=None,
            usage=usage_of(exchange.outcome),
        )
    )


class Blocks:
    """A `Content` that keeps its blocks."""

    __slots__ = ("_blocks", "_kind", "_pieces")

    def __init__(self) -> None:
        self._blocks: list[dict[str, Any]] = []
        self._kind = ""
        self._pieces: list[bytes] = []
        """Of the last block, whose kind is "text" or "thinking"."""

    def text(self, texts: Sequence[bytes]) -> None:
        self._add("text", texts)

    def thinking(self, text: bytes) -> None:
        self._add("thinking", [text])

    def status(self, status: Status) -> None:
        del status  # was for those who waited

    def call(self, call: FunctionCall) -> None:
        self._close()
        given = Raw(call.arguments.encode())
        self._blocks.append({"type": "tool_use", "id": call.id, "name": call.name, "input": given})

    def as_members(self) -> list[dict[str, Any]]:
        """All blocks, once nothing more is said."""
        self._close()
        return self._blocks

    def _add(self, kind: str, texts: Sequence[bytes]) -> None:
        if self._kind != kind:
            self._close()
            self._kind = kind
        self._pieces += texts

    def _close(self) -> None:
        if self._kind:
            block = {"type": self._kind, self._kind: Raw(join_chunks(self._pieces))}
            self._blocks.append(block | ({"signature": ""} if self._kind == "thinking" else {}))
        self._kind, self._pieces = "", []
