"""The dialect's paths, and what is done with a request on one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.front.ag_ui.errors import encode_error
from gateway.front.ag_ui.run_input import RunRequest, read_run
from gateway.front.ag_ui.run_stream import RunStream
from gateway.front.dialect import Response, Route

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.errors import GatewayError
    from gateway.exchange import Exchange
    from gateway.front.dialect import RequestHead, RunPath

ROOT = "/ag-ui/"


class AGUIDialect:
    """A `Dialect`: `/ag-ui/{name}`."""

    def match(self, path: str) -> RunCodec | None:
        """The codec for a path that names an agent, which may not exist."""
        name = path.removeprefix(ROOT)
        return RunCodec(name) if path.startswith(ROOT) and name and "/" not in name else None

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


class RunCodec:
    """The `Codec` of one run. Every answer is a stream."""

    __slots__ = ("_request", "agent")

    route = Route("ag-ui", "/ag-ui/{name}", "chat")

    def __init__(self, agent: str) -> None:
        self.agent = agent
        self._request: RunRequest | None = None

    def decode(self, head: RequestHead, body: bytes) -> Call:
        call, self._request = read_run(self.agent, head, body)
        return call

    def encode(self, exchange: Exchange, words: list[bytes]) -> Response:
        """The whole stream at once."""
        stream = self.stream(exchange)
        told = stream.chunks(words) if words else b""
        return Response(200, stream.headers, told + stream.end(exchange.result))

    def encode_error(
        self, error: GatewayError, request_id: str, output_begun: bool | None = None
    ) -> Response:
        return encode_error(error, request_id, output_begun)

    def stream(self, exchange: Exchange) -> RunStream:
        assert self._request is not None
        return RunStream(self._request, exchange)
