"""Answers to `POST /v1/chat/completions`: one completion, or a stream of its chunks."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import msgspec

from gateway import clock
from gateway.errors import GatewayError, InvalidAgentResponse
from gateway.front.chats import endings
from gateway.front.chats.calls import Calls
from gateway.front.chats.message import EMPTY, read_message
from gateway.front.chats.parts import in_fewer_events, link_to, status_comment
from gateway.front.dialect import join_chunks, text_runs
from gateway.front.event_stream import DONE, HEADERS, KEEP_ALIVE
from gateway.front.openai import outcomes
from gateway.front.openai.errors import error_members
from protocol import on_one_line
from protocol.events import File, Reasoning, Status, ToolCall, ToolResult, read_event

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.exchange import Exchange
    from gateway.front.chats.calls import FunctionCall
    from gateway.front.openai.chat_request import ChatRequest
    from protocol import Payload

_encode = msgspec.json.encode


def _new_id() -> str:
    return f"chatcmpl-{secrets.token_urlsafe(16)}"


def encode_completion(request: ChatRequest, exchange: Exchange, words: list[bytes]) -> bytes:
    """The body of one whole completion. Raises InvalidAgentResponse."""
    outcome = exchange.outcome
    text, reasoning, held = _gather(words, request.tools.names)
    message = None
    if exchange.result is not None:
        message = read_message(exchange.result, request.tools.names)
        text = message.text if text == EMPTY else join_chunks([text, message.text])
        reasoning = reasoning or message.reasoning
    calls = endings.calls_of(outcome, held, message)
    text = _with_text(text, endings.questions_of(outcome))
    answer: dict[str, Any] = {
        "role": "assistant",
        "content": None if calls and text == EMPTY else msgspec.Raw(text),
        "refusal": None,
    }
    if reasoning is not None:
        answer["reasoning_content"] = msgspec.Raw(reasoning)
    if calls:
        answer["tool_calls"] = [_call_members(call) for call in calls]
    finish = outcomes.FINISH_REASONS[endings.finish_of(outcome, calls)]
    body: dict[str, Any] = {
        "id": _new_id(),
        "object": "chat.completion",
        "created": clock.unix_time(),
        "model": request.model,
        "choices": [{"index": 0, "message": answer, "logprobs": None, "finish_reason": finish}],
    }
    if (usage := outcomes.chat_usage(outcome)) is not None:
        body["usage"] = usage
    return _encode(body)


def _gather(words: list[bytes], names: frozenset[str]) -> tuple[bytes, bytes | None, Calls]:
    """The text, the reasoning and the calls of an answer in words."""
    texts: list[bytes] = []
    thoughts: list[str] = []
    calls = Calls(names)
    for run, word in text_runs(words):
        if word is None:
            texts += run
            continue
        match read_event(word):
            case Reasoning(text=text):
                thoughts.append(text)
            case ToolCall() as event:
                calls.add(event)
            case ToolResult(call=call):
                calls.answered(call)
            case File() as event:
                texts.append(_encode(link_to(event)))
    reasoning = _encode("".join(thoughts)) if thoughts else None
    return join_chunks(texts), reasoning, calls


def _with_text(text: bytes, more: str) -> bytes:
    """A JSON string, and more text in a paragraph of its own."""
    if not more:
        return text
    return _encode(more) if text == EMPTY else b"%b%b" % (text[:-1], _encode("\n\n" + more)[1:])


def _call_members(call: FunctionCall) -> dict[str, Any]:
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }


class CompletionStream:
    """The `StreamEncoder` of one completion: chunks that differ in their `delta`.

    Text is the usual case, and is placed between two constant pieces, without an object for each
    chunk.
    """

    __slots__ = (
        "_after",
        "_before",
        "_begun",
        "_between",
        "_calls",
        "_exchange",
        "_request",
        "_text_begun",
        "failure",
    )

    headers = HEADERS

    def __init__(self, request: ChatRequest, exchange: Exchange) -> None:
        self._request = request
        self._exchange = exchange
        self._calls = Calls(request.tools.names)
        self._begun = False
        self._text_begun = False
        self.failure: GatewayError | None = None
        """Why this encoder has ended the exchange: nothing that comes afterwards is sent."""
        usage = b',"usage":null' if request.include_usage else b""
        self._before = (
            b'data: {"id":"%b","object":"chat.completion.chunk","created":%d,"model":%b%b,'
            b'"choices":[{"index":0,"delta":'
            % (_new_id().encode(), clock.unix_time(), on_one_line(_encode(request.model)), usage)
        )
        self._after = b',"finish_reason":null}]}\n\n'
        self._between = b'}%b%b{"content":' % (self._after, self._before)

    def chunks(self, chunks: list[bytes]) -> bytes:
        """Text, reasoning, comments; nothing for what is not the client's."""
        if self.failure is not None:
            return b""
        opening = self._opening()
        parts = []
        try:
            for texts, event in text_runs(chunks):
                parts.append(
                    self._text(texts, opening) if event is None else opening + self._event(event)
                )
                opening = b""
        except InvalidAgentResponse as error:
            self._fail(error)
        return b"".join(parts)

    def keep_alive(self) -> bytes:
        """A comment, which clients skip."""
        return self._opening() + KEEP_ALIVE

    def end(self, result: Payload | None) -> bytes:
        """What was not told yet, the finish, the usage, and `[DONE]`."""
        if self.failure is not None:
            return self.error(self.failure)
        outcome = self._exchange.outcome
        parts = [self._opening()]
        message = None
        if result is not None:
            try:
                message = read_message(result, self._request.tools.names)
            except InvalidAgentResponse as error:
                self.failure = error
                return parts[0] + self.error(error)
            if message.reasoning is not None:
                parts.append(self._delta(b'{"reasoning_content":%b}' % message.reasoning))
            if message.text != EMPTY:
                parts.append(self._text([message.text]))
        calls = endings.calls_of(outcome, self._calls, message)
        if questions := endings.questions_of(outcome):
            paragraph = "\n\n" if self._text_begun else ""
            parts.append(self._text([_encode(paragraph + questions)]))
        for index, call in enumerate(calls):
            members = _encode({"tool_calls": [{"index": index, **_call_members(call)}]})
            parts.append(self._delta(members))
        finish = outcomes.FINISH_REASONS[endings.finish_of(outcome, calls)]
        parts.append(self._before + b'{},"finish_reason":"%b"}]}\n\n' % finish.encode())
        usage = outcomes.chat_usage(outcome)
        if self._request.include_usage and usage is not None:
            parts.append(self._usage(usage))
        parts.append(DONE)
        return b"".join(parts)

    def error(self, error: GatewayError) -> bytes:
        """An error, which the clients raise, and no `[DONE]`."""
        exchange = self._exchange
        members = error_members(error, exchange.call.request_id, exchange.output_begun)
        return b"data: " + on_one_line(_encode({"error": members})) + b"\n\n"

    def _opening(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        return self._delta(b'{"role":"assistant","content":""}')

    def _text(self, texts: Sequence[bytes], opening: bytes = b"") -> bytes:
        """Chunks with texts, JSON strings; `opening` stands before them.

        With what surrounds it, a word is ten times as long: all of it is copied once.
        """
        self._text_begun = True
        texts = in_fewer_events(texts)
        chunks = self._around(texts, opening)
        # Some clients end lines at U+2028.
        return chunks if chunks.isascii() else self._around(map(on_one_line, texts), opening)

    def _around(self, texts: Iterable[bytes], opening: bytes) -> bytes:
        words = list(texts)
        words[0] = opening + self._before + b'{"content":' + words[0]
        words[-1] += b"}" + self._after
        return self._between.join(words)

    def _delta(self, delta: bytes) -> bytes:
        return self._before + on_one_line(delta) + self._after

    def _event(self, word: bytes) -> bytes:
        match read_event(word):
            case Reasoning(text=text):
                return self._delta(b'{"reasoning_content":%b}' % _encode(text))
            case Status() as event:
                return status_comment(event)
            case File() as event:
                return self._text([_encode(link_to(event))])
            case ToolCall() as event:
                self._calls.add(event)
            case ToolResult(call=call):
                self._calls.answered(call)
        return b""

    def _usage(self, usage: dict[str, Any]) -> bytes:
        """The chunk that a client asks for with `stream_options.include_usage`: without choices."""
        head = self._before[: self._before.index(b',"usage":null')]
        return head + b',"choices":[],"usage":%b}\n\n' % _encode(usage)

    def _fail(self, error: GatewayError) -> None:
        """End the exchange, which may have ended well meanwhile."""
        self.failure = error
        self._exchange.fail(error)
