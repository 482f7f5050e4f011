"""The native dialect's paths, and what is done with a request on one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.front.dialect import RUN_PREFIX, Response, Route, RunPath
from gateway.front.native.body import read_call
from gateway.front.native.errors import encode_error
from gateway.front.native.results import as_body, as_body_with_events
from gateway.front.native.sse import AgentEventStream, EventStream

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.errors import GatewayError
    from gateway.exchange import Exchange
    from gateway.front.dialect import RequestHead
    from protocol import Method

_JSON = ((b"content-type", b"application/json"),)

_ROUTES: dict[Method, Route] = {
    "invoke": Route("native", "/agent/{name}/invoke", "invoke"),
    "chat": Route("native", "/agent/{name}/chat", "chat"),
}


class NativeDialect:
    """A `Dialect`: `/agent/{name}/invoke`, `/agent/{name}/chat`, and the same below `/agents`.

    One that does not serve matches no call, and still answers for runs and all that is nobody's.
    """

    def __init__(self, *, serves: bool = True) -> None:
        self._roots = frozenset({"agent", "agents"} if serves else ())

    def match(self, path: str) -> NativeCodec | None:
        """The codec for a path that names an agent and a handler. The agent may not exist."""
        root, _, rest = path.removeprefix("/").partition("/")
        name, _, method = rest.partition("/")
        if root not in self._roots:
            return None
        match method:
            case "invoke" | "chat":
                return NativeCodec(name, method)
        return None

    def match_run(self, path: str) -> RunPath | None:
        """`/runs/{id}` and `/runs/{id}/cancel`, for the runs of every dialect."""
        root, _, rest = path.removeprefix("/").partition("/")
        name, slash, action = rest.partition("/")
        if root != "runs" or not name or (slash and action != "cancel"):
            return None
        token = name.removeprefix(RUN_PREFIX) if name.startswith(RUN_PREFIX) else ""
        return RunPath(token, cancels=bool(slash))

    def covers(self, path: str) -> bool:
        """Every path: what no other dialect covers is this one's."""
        del path
        return True

    def encode_error(self, error: GatewayError, request_id: str) -> Response:
        return encode_error(error, request_id)


class NativeCodec:
    """A `Codec` that is without state once it is made."""

    __slots__ = ("_method", "agent")

    def __init__(self, agent: str, method: Method) -> None:
        self.agent = agent
        self._method = method

    @property
    def route(self) -> Route:
        return _ROUTES[self._method]

    def decode(self, head: RequestHead, body: bytes) -> Call:
        return read_call(self.agent, self._method, head, body)

    def encode(self, exchange: Exchange, words: list[bytes]) -> Response:
        if exchange.call.events:
            return Response(200, _JSON, as_body_with_events(exchange, words))
        return Response(200, _JSON, as_body(self._method, exchange.result, words))

    def encode_error(
        self, error: GatewayError, request_id: str, output_begun: bool | None = None
    ) -> Response:
        return encode_error(error, request_id, output_begun)

    def stream(self, exchange: Exchange) -> EventStream:
        return AgentEventStream(exchange) if exchange.call.events else EventStream(exchange)
