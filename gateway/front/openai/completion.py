"""Answers to `POST /v1/chat/completions`: one completion, or a stream of its chunks."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from gateway import clock
from gateway.front.chats.answer import Answer, Content, ContentStream
from gateway.front.chats.parts import in_fewer_events
from gateway.front.dialect import join_chunks
from gateway.front.event_stream import DONE
from gateway.front.openai import outcomes
from gateway.front.openai.errors import error_members
from protocol import on_one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.errors import GatewayError
    from gateway.exchange import Exchange
    from gateway.front.chats.calls import FunctionCall
    from gateway.front.openai.chat_request import ChatRequest
    from protocol import Outcome

_encode = msgspec.json.encode


def _new_id() -> str:
    return f"chatcmpl-{secrets.token_urlsafe(16)}"


def encode_completion(request: ChatRequest, exchange: Exchange, words: list[bytes]) -> bytes:
    """The body of one whole completion. Raises InvalidAgentResponse."""
    message = _Message()
    answer = Answer(message, request.tools.names)
    answer.take(words)
    for _ in answer.end(exchange.result, exchange.outcome):
        pass
    choice = {
        "index": 0,
        "message": message.as_members(),
        "logprobs": None,
        "finish_reason": outcomes.FINISH_REASONS[answer.finish],
    }
    body: dict[str, Any] = {
        "id": _new_id(),
        "object": "chat.completion",
        "created": clock.unix_time(),
        "model": request.model,
        "choices": [choice],
    }
    if (usage := outcomes.chat_usage(exchange.outcome)) is not None:
        body["usage"] = usage
    return _encode(body)


class _Message(Content):
    """The message of a whole completion."""

    __slots__ = ("_calls", "_texts", "_thoughts")

    def __init__(self) -> None:
        self._texts: list[bytes] = []
        self._thoughts: list[bytes] = []
        self._calls: Sequence[FunctionCall] = ()

    def text(self, texts: Sequence[bytes]) -> bytes:
        self._texts += texts
        return b""

    def reasoning(self, text: bytes) -> bytes:
        self._thoughts.append(text)
        return b""

    def calls(self, calls: Sequence[FunctionCall]) -> bytes:
        self._calls = calls
        return b""

    def as_members(self) -> dict[str, Any]:
        members: dict[str, Any] = {
            "role": "assistant",
            "content": Raw(join_chunks(self._texts)) if self._texts else None,
            "refusal": None,
        }
        if self._thoughts:
            members["reasoning_content"] = Raw(join_chunks(self._thoughts))
        if self._calls:
            members["tool_calls"] = [_call_members(call) for call in self._calls]
        return members


def _call_members(call: FunctionCall) -> dict[str, Any]:
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }


class _Deltas(Content):
    """The chunks of a stream, which differ in their `delta`.

    Text is the usual case, and is placed between two constant pieces, without an object for each
    chunk.
    """

    __slots__ = ("_after", "_before", "_between")

    def __init__(self, request: ChatRequest) -> None:
        usage = b',"usage":null' if request.include_usage else b""
        self._before = (
            b'data: {"id":"%b","object":"chat.completion.chunk","created":%d,"model":%b%b,'
            b'"choices":[{"index":0,"delta":'
            % (_new_id().encode(), clock.unix_time(), on_one_line(_encode(request.model)), usage)
        )
        self._after = b',"finish_reason":null}]}\n\n'
        self._between = b'}%b%b{"content":' % (self._after, self._before)

    def begin(self) -> bytes:
        """The first chunk. Without a content, which an answer may not have."""
        return self._delta(b'{"role":"assistant"}')

    def text(self, texts: Sequence[bytes]) -> bytes:
        texts = in_fewer_events(texts)
        chunks = self._around(texts)
        # Some clients end lines at U+2028.
        return chunks if chunks.isascii() else self._around(map(on_one_line, texts))

    def _around(self, texts: Iterable[bytes]) -> bytes:
        """With what surrounds it, a word is ten times as long: all of it is copied once."""
        words = list(texts)
        words[0] = self._before + b'{"content":' + words[0]
        words[-1] += b"}" + self._after
        return self._between.join(words)

    def reasoning(self, text: bytes) -> bytes:
        return self._delta(b'{"reasoning_content":%b}' % text)

    def calls(self, calls: Sequence[FunctionCall]) -> bytes:
        return b"".join(
            self._delta(_encode({"tool_calls": [{"index": index, **_call_members(call)}]}))
            for index, call in enumerate(calls)
        )

    def finish(self, reason: str) -> bytes:
        """The last chunk that has a choice."""
        return self._before + b'{},"finish_reason":"%b"}]}\n\n' % reason.encode()

    def usage(self, usage: dict[str, Any]) -> bytes:
        """The chunk that a client asks for with `stream_options.include_usage`: without choices."""
        head = self._before[: self._before.index(b',"usage":null')]
        return head + b',"choices":[],"usage":%b}\n\n' % _encode(usage)

    def _delta(self, delta: bytes) -> bytes:
        return self._before + on_one_line(delta) + self._after


class CompletionStream(ContentStream):
    """The `StreamEncoder` of one completion."""

    __slots__ = ("_deltas", "_include_usage")

    def __init__(self, request: ChatRequest, exchange: Exchange) -> None:
        self._deltas = _Deltas(request)
        self._include_usage = request.include_usage
        super().__init__(exchange, self._deltas, request.tools.names)

    def error(self, error: GatewayError) -> bytes:
        """An error, which the clients raise, and no `[DONE]`."""
        exchange = self._exchange
        members = error_members(error, exchange.call.request_id, exchange.output_begun)
        return b"data: " + on_one_line(_encode({"error": members})) + b"\n\n"

    def _begin(self) -> bytes:
        return self._deltas.begin()

    def _finished(self, finish: str, outcome: Outcome | None) -> bytes:
        """The finish, the usage, and `[DONE]`."""
        last = self._deltas.finish(outcomes.FINISH_REASONS[finish])
        if self._include_usage and (usage := outcomes.chat_usage(outcome)) is not None:
            last += self._deltas.usage(usage)
        return last + DONE
