"""An answer to `POST /v1/messages` that is told whole, and what a stream of it has as well."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from gateway.errors import InvalidAgentResponse
from gateway.front.anthropic.outcomes import STOP_REASONS, usage_of
from gateway.front.chats.answer import Answer, Content
from gateway.front.dialect import join_chunks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.exchange import Exchange
    from gateway.front.anthropic.request import MessagesRequest
    from gateway.front.chats.calls import FunctionCall
    from protocol.events import Status

_decode_input = msgspec.json.Decoder(dict[str, Raw]).decode


def encode_message(request: MessagesRequest, exchange: Exchange, words: Sequence[bytes]) -> bytes:
    """The body of one whole message. Raises InvalidAgentResponse."""
    blocks = Blocks(shows_thinking=request.shows_thinking)
    answer = Answer(blocks, request.tools)
    answer.take(words)
    for _ in answer.end(exchange.result, exchange.outcome):
        pass
    return msgspec.json.encode(
        message_members(
            request.model,
            content=blocks.as_members(),
            stop_reason=STOP_REASONS[answer.finish],
            stop_sequence=None,
            usage=usage_of(exchange.outcome),
        )
    )


def message_members(model: str, **members: Any) -> dict[str, Any]:
    """A message with a new id, with what it has beside that and the agent that says it."""
    message_id = f"msg_{secrets.token_hex(12)}"
    return {"id": message_id, "type": "message", "role": "assistant", "model": model, **members}


def check_arguments(calls: Sequence[FunctionCall]) -> None:
    """Raises InvalidAgentResponse for what is no JSON object: here the client is given the object
    itself."""
    for call in calls:
        try:
            _decode_input(call.arguments)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise InvalidAgentResponse(
                f"the arguments of the call {call.id!r} of the client's tool {call.name!r} are no "
                f"JSON object: {error}"
            ) from None


class Blocks(Content):
    """A `Content` that keeps its blocks."""

    __slots__ = ("_blocks", "_kind", "_pieces", "_shows_thinking")

    def __init__(self, *, shows_thinking: bool) -> None:
        self._shows_thinking = shows_thinking
        self._blocks: list[dict[str, Any]] = []
        self._kind = ""
        self._pieces: list[bytes] = []
        """Of the last block, whose kind is "text" or "thinking"."""

    def text(self, texts: Sequence[bytes]) -> bytes:
        return self._add("text", texts)

    def reasoning(self, text: bytes) -> bytes:
        return self._add("thinking", [text]) if self._shows_thinking else b""

    def status(self, status: Status) -> bytes:
        del status  # was for those who waited
        return b""

    def calls(self, calls: Sequence[FunctionCall]) -> bytes:
        check_arguments(calls)
        self._close()
        for call in calls:
            given = Raw(call.arguments.encode())
            block = {"type": "tool_use", "id": call.id, "name": call.name, "input": given}
            self._blocks.append(block)
        return b""

    def as_members(self) -> list[dict[str, Any]]:
        """All blocks, once nothing more is said."""
        self._close()
        return self._blocks

    def _add(self, kind: str, texts: Sequence[bytes]) -> bytes:
        if self._kind != kind:
            self._close()
            self._kind = kind
        self._pieces += texts
        return b""

    def _close(self) -> None:
        if self._kind:
            block = {"type": self._kind, self._kind: Raw(join_chunks(self._pieces))}
            self._blocks.append(block | ({"signature": ""} if self._kind == "thinking" else {}))
        self._kind, self._pieces = "", []
