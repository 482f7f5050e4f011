"""The dialect's paths, and what is done with a request on one of them."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from msgspec import structs

from gateway.front.dialect import Response, Route, RunPath
from gateway.front.openai.chat_request import read_chat
from gateway.front.openai.completion import CompletionStream, encode_completion
from gateway.front.openai.errors import encode_error
from gateway.front.openai.memory import Memory
from gateway.front.openai.response import (
    MESSAGES,
    ResponseFrame,
    ResponseStream,
    encode_response,
)
from gateway.front.openai.response_request import read_response

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.errors import GatewayError
    from gateway.exchange import Exchange
    from gateway.front.dialect import RequestHead
    from gateway.front.openai.chat_request import ChatRequest
    from gateway.front.openai.response_request import ResponseRequest

_JSON = ((b"content-type", b"application/json"),)

ROOT = "/v1/"

PREFIX = "resp_"
"""What a Response's id begins with."""

_STATUSES = {"running": "in_progress"}
"""What a Response has instead of a run's state."""


class OpenAIDialect:
    """A `Dialect`: `/v1/chat/completions` and `/v1/responses`. It remembers what was said lately,
    see `memory`."""

    def __init__(self) -> None:
        self._memory = Memory()

    def match(self, path: str) -> ChatCodec | ResponseCodec | None:
        """The codec for one of the two paths: which agent is called stands in the body."""
        if path == "/v1/chat/completions":
            return ChatCodec()
        if path == "/v1/responses":
            return ResponseCodec(self._memory)
        return None

    def match_run(self, path: str) -> RunPath | None:
        """`/v1/responses/{id}` and `/v1/responses/{id}/cancel`."""
        name, slash, action = path.removeprefix(f"{ROOT}responses/").partition("/")
        if not path.startswith(f"{ROOT}responses/") or not name or (slash and action != "cancel"):
            return None
        token = name.removeprefix(PREFIX) if name.startswith(PREFIX) else ""
        return RunPath(token, cancels=bool(slash), dialect="openai", root="/v1/responses")

    def covers(self, path: str) -> bool:
        """Whether errors on this path are in this dialect's form, though no agent is called."""
        return path.startswith(ROOT)

    def encode_error(self, error: GatewayError, request_id: str) -> Response:
        """An error of a request that never had a codec."""
        return encode_error(error, request_id)


class ChatCodec:
    """The `Codec` of one chat completion."""

    __slots__ = ("_request",)

    agent = None
    route = Route("openai", "/v1/chat/completions", "chat")

    def __init__(self) -> None:
        self._request: ChatRequest | None = None

    def decode(self, head: RequestHead, body: bytes) -> Call:
        call, self._request = read_chat(head, body)
        return call

    def encode(self, exchange: Exchange, chunks: list[bytes]) -> Response:
        assert self._request is not None
        return Response(200, _JSON, encode_completion(self._request, exchange, chunks))

    def encode_error(
        self, error: GatewayError, request_id: str, output_begun: bool | None = None
    ) -> Response:
        return encode_error(error, request_id, output_begun)

    def stream(self, exchange: Exchange) -> CompletionStream:
        assert self._request is not None
        return CompletionStream(self._request, exchange)


class ResponseCodec:
    """The `RunCodec` of one Response. Its id is a random one unless it is kept as a run."""

    __slots__ = ("_frame", "_memory", "_request", "_stream")

    agent = None
    route = Route("openai", "/v1/responses", "chat")

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._request: ResponseRequest | None = None
        self._frame: ResponseFrame | None = None
        self._stream: ResponseStream | None = None

    def decode(self, head: RequestHead, body: bytes) -> Call:
        call, self._request = read_response(head, body, self._memory)
        self._frame = ResponseFrame.of(PREFIX + secrets.token_hex(24), self._request)
        return call

    def kept_as(self, token: str) -> None:
        assert self._frame is not None
        self._frame = structs.replace(self._frame, id=PREFIX + token)

    def tell(self, state: str, error: GatewayError | None = None) -> Response:
        """The Response: without output, unless it is that of a stream which has ended."""
        assert self._frame is not None
        body = None if self._stream is None or state == "cancelled" else self._stream.last_response
        if body is None:
            body = self._frame.render(_STATUSES.get(state, state), error=error)
        return Response(200, _JSON, body)

    def encode(self, exchange: Exchange, chunks: list[bytes]) -> Response:
        return Response(200, _JSON, encode_response(self._stream_of(exchange), exchange, chunks))

    def encode_error(
        self, error: GatewayError, request_id: str, output_begun: bool | None = None
    ) -> Response:
        return encode_error(error, request_id, output_begun, messages=MESSAGES)

    def stream(self, exchange: Exchange) -> ResponseStream:
        self._stream = self._stream_of(exchange)
        return self._stream

    def _stream_of(self, exchange: Exchange) -> ResponseStream:
        assert self._frame is not None
        assert self._request is not None
        return ResponseStream(self._frame, self._request, exchange, self._memory)
