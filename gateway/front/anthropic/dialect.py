"""The dialect's path, and what is done with a request on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.front.anthropic.errors import REQUEST_ID, encode_error
from gateway.front.anthropic.message import encode_message
from gateway.front.anthropic.request import VERSION, read_messages
from gateway.front.anthropic.stream import MessageStream
from gateway.front.dialect import Response, Route

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.call import Call
    from gateway.errors import GatewayError
    from gateway.exchange import Exchange
    from gateway.front.anthropic.request import MessagesRequest
    from gateway.front.dialect import RequestHead, RunPath

ROOT = "/v1/"
MESSAGES = "/v1/messages"


class AnthropicDialect:
    """A `SharingDialect`: `/v1/messages`, and all else below `/v1/` for its own clients."""

    def match(self, path: str) -> MessagesCodec | None:
        """The codec for the one path: which agent is called stands in the body."""
        return MessagesCodec() if path == MESSAGES else None

    def match_run(self, path: str) -> RunPath | None:
        """None: the API has no runs of its own."""
        del path
        return None

    def covers(self, path: str) -> bool:
        return path.startswith(ROOT)

    def claims(self, path: str, fields: Mapping[bytes, bytes]) -> bool:
        """What is below `/v1/messages` is nobody else's, and no other clients send the header."""
        return VERSION in fields or path.startswith(f"{MESSAGES}/")

    def encode_error(self, error: GatewayError, request_id: str) -> Response:
        """An error of a request that never had a codec."""
        return encode_error(error, request_id)


class MessagesCodec:
    """The `Codec` of one message."""

    __slots__ = ("_request",)

    agent = None
    route = Route("anthropic", MESSAGES, "chat")

    def __init__(self) -> None:
        self._request: MessagesRequest | None = None

    def decode(self, head: RequestHead, body: bytes) -> Call:
        call, self._request = read_messages(head, body)
        return call

    def encode(self, exchange: Exchange, words: list[bytes]) -> Response:
        assert self._request is not None
        headers = (
            (b"content-type", b"application/json"),
            (REQUEST_ID, exchange.call.request_id.encode()),
        )
        return Response(200, headers, encode_message(self._request, exchange, words))

    def encode_error(
        self, error: GatewayError, request_id: str, output_begun: bool | None = None
    ) -> Response:
        return encode_error(error, request_id, output_begun)

    def stream(self, exchange: Exchange) -> MessageStream:
        assert self._request is not None
        return MessageStream(self._request, exchange)
