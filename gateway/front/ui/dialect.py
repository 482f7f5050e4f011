"""The dialect's paths, and what is done with a request on one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.front.dialect import Response, Route, RunRequest
from gateway.front.ui.errors import encode_error
from gateway.front.ui.request import ChatRequest, read_chat
from gateway.front.ui.resumable import Resumable, chat_of
from gateway.front.ui.stream import UIStream

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.errors import GatewayError
    from gateway.exchange import Exchange
    from gateway.front.dialect import RequestHead, RunPath

ROOT = "/ui/"
STREAM = "/stream"


class UIDialect:
    """A `Dialect`: `/ui/{name}` and `/ui/{name}/{chat}/stream`."""

    def __init__(self) -> None:
        self._resumable = Resumable()

    def match(self, path: str) -> ChatCodec | ResumeCodec | None:
        """The codec for a path that names an agent, which may not exist."""
        if not path.startswith(ROOT):
            return None
        name, slash, rest = path.removeprefix(ROOT).partition("/")
        if not name:
            return None
        if not slash:
            return ChatCodec(name, self._resumable)
        chat = rest.removesuffix(STREAM)
        if chat == rest or not chat or "/" in chat:
            return None
        return ResumeCodec(name, chat, self._resumable)

    def match_run(self, path: str) -> RunPath | None:
        """None: the protocol has no paths for runs."""
        del path
        return None

    def covers(self, path: str) -> bool:
        """Whether errors on this path are in this dialect's form, though no agent is called."""
        return path.startswith(ROOT)

    def encode_error(self, error: GatewayError, request_id: str) -> Response:
        """An error of a request that never had a codec."""
        return encode_error(error, request_id)


class ChatCodec:
    """The `KeptCodec` of one answer, which is always a stream."""

    __slots__ = ("_chat", "_request", "_resumable", "agent")

    route = Route("ui", "/ui/{name}", "chat")

    def __init__(self, agent: str, resumable: Resumable) -> None:
        self.agent = agent
        self._resumable = resumable
        self._request: ChatRequest | None = None
        self._chat: bytes | None = None

    def decode(self, head: RequestHead, body: bytes) -> Call:
        call, self._request = read_chat(self.agent, head, body)
        self._chat = chat_of(head, self.agent, self._request.chat)
        return call

    def kept_as(self, token: str) -> None:
        if self._chat is not None:
            self._resumable.put(self._chat, token)

    def encode(self, exchange: Exchange, words: list[bytes]) -> Response:
        """The whole stream at once."""
        stream = self.stream(exchange)
        told = stream.chunks(words) if words else b""
        return Response(200, stream.headers, told + stream.end(exchange.result))

    def encode_error(
        self, error: GatewayError, request_id: str, output_begun: bool | None = None
    ) -> Response:
        del output_begun
        return encode_error(error, request_id)

    def stream(self, exchange: Exchange) -> UIStream:
        assert self._request is not None
        return UIStream(self._request, exchange)


class ResumeCodec(ChatCodec):
    """The codec of a request for the stream of a chat that may still go on. Calls no agent."""

    __slots__ = ("_name",)

    route = Route("ui", "/ui/{name}/{chat}/stream", "chat", method="GET", has_runs=True)

    def __init__(self, agent: str, chat: str, resumable: Resumable) -> None:
        super().__init__(agent, resumable)
        self._name = chat

    def decode(self, head: RequestHead, body: bytes) -> RunRequest:  # type: ignore[override]
        del body
        chat = chat_of(head, self.agent, self._name)
        token = None if chat is None else self._resumable.get(chat)
        return RunRequest("rejoin", token or "")
