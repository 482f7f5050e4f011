"""Requests over HTTP, as an ASGI application: what is admitted, and calls to agents.

Every request passes here first. It is refused if it is not for this gateway (`target`, `hosts`).
Then it either belongs to a dialect, and is taken from its request to its exchange; `client` reads
and refuses requests, `answers` sends the way back. Or it goes on to the Quart application. Knows no
format: see `dialect`. A request that belongs to no dialect is refused in the one that covers its
path.

Calls are taken before the Quart application, as ASGI middleware takes requests: they need nothing
of what Quart does for each request, which costs more than everything done here.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from gateway.call import Call
from gateway.errors import GatewayError, InternalError, MethodNotAllowed, NotFound
from gateway.front.answers import Reply
from gateway.front.auth import CALLER, Keys
from gateway.front.calling import Calling
from gateway.front.client import (
    HAS_INPUT,
    LIMIT_UNREAD,
    ClientGoneError,
    ClientRequest,
    no_limit,
    not_known,
)
from gateway.front.dialect import Response, dialect_of
from gateway.front.head import check_media_type, read_head
from gateway.front.hosts import parse_authority
from gateway.front.mount import check_origin
from gateway.front.runs.asked import respond_about_run
from gateway.front.runs.paths import Visit, respond_on_path, respond_with_run
from gateway.front.runs.run import Run
from gateway.front.runs.wishes import RawRequest, read_wish
from gateway.front.sockets import UNREAD_SECONDS
from gateway.front.target import SERVER_WIDE, WEBSOCKET, read_target
from gateway.observe.observation import OBSERVATION

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from gateway.agents.dispatcher import Dispatcher
    from gateway.front.client import Receive, Send
    from gateway.front.cors import Cors
    from gateway.front.dialect import Codec, Dialect, RunPath, RunRequest
    from gateway.front.hosts import KnownHosts
    from gateway.front.limits.permits import Limits
    from gateway.front.mount import Mount
    from gateway.front.observed import Observing
    from gateway.front.runs.service import Runs
    from gateway.front.runs.wishes import Wish
    from gateway.observe.observation import Observation
    from gateway.workers.input_checker import InputChecker

    ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]

log = logging.getLogger("gateway.http")

SERVER_OPTIONS = Response(200, ((b"allow", b"GET, HEAD, OPTIONS, POST"),), b"")
"""To `OPTIONS *`: what is supported somewhere (RFC 9110, 9.3.7)."""


class CallRoutes:
    """ASGI middleware. `inner` gets every request that is admitted and that no dialect matches."""

    def __init__(
        self,
        inner: ASGIApp,
        dispatcher: Dispatcher,
        dialects: tuple[Dialect, ...],
        hosts: KnownHosts,
        runs: Runs,
        *,
        max_body: int,
        keys: Keys | None = None,
        inputs: Callable[[str], InputChecker | None] = lambda _: None,
        limits: Limits | None = None,
        cors: Cors | None = None,
        observing: Observing | None = None,
    ) -> None:
        """`inputs` gives what checks the inputs of an agent, None where no schema is declared. It
        may raise AgentNotFound. `observing`: what is done because requests are observed."""
        self._observing = observing
        self.cors = cors
        """None where no page of another origin may call."""
        self.calling = Calling(dispatcher, runs, max_body=max_body, inputs=inputs, limits=limits)
        self.mounts: dict[str, Mount] = {}
        """What serves whole paths of protocols that come with machinery of their own."""
        self._inner = inner
        self.keys = Keys() if keys is None else keys
        self._dispatcher = dispatcher
        self._runs = runs
        self._dialects = dialects
        self._hosts = hosts

    def change(self, hosts: KnownHosts, max_body: int) -> None:
        """Answer for these hosts, and take bodies of so many bytes, from now on."""
        self._hosts = hosts
        self.calling.max_body = max_body

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._inner(scope, receive, send)
            return
        seen, observing = None, self._observing
        if observing is not None:
            seen = observing.begin(scope)
            if observing.keep_bodies:
                receive, send = observing.keeping_bodies(seen, receive, send)
        if self.cors is not None:
            send = self.cors.sharing(scope, send)
        try:
            if not await self._respond(scope, receive, send, seen):
                await self._inner(scope, receive, send)
        except Exception:
            if seen is not None and observing is not None:
                observing.fail(seen)
            raise
        finally:
            if seen is not None and observing is not None:
                observing.end(seen)

    async def _respond(
        self, scope: Any, receive: Receive, send: Send, seen: Observation | None
    ) -> bool:
        """Respond to a request, unless `inner` is to: then returns False, with `scope` checked."""
        state = scope.get("state", {})
        head = read_head(scope["headers"])
        request = ClientRequest(
            head,
            receive,
            send,
            partial(self._encode_error, scope["path"], head.fields),
            limit_unread=state.get(LIMIT_UNREAD, no_limit),
            has_input=state.get(HAS_INPUT, not_known),
            observation=seen,
        )
        if seen is not None:
            seen.request_id = head.request_id
        try:
            if self.cors is not None and (granted := self.cors.answer_preflight(scope)) is not None:
                _note_route(request, "preflight")
                await request.respond(granted)
                return True
            codec = self._admit(request, scope)
            if codec is not None:
                await self._call(request, scope["method"], scope["path"], codec)
            elif not await self._respond_otherwise(request, scope):
                state = scope.setdefault("state", {})
                state[CALLER] = request.caller
                request.limit_unread(UNREAD_SECONDS)
                if seen is not None:
                    state[OBSERVATION] = seen
                return False
        except GatewayError as error:
            error.__traceback__ = None  # holds what was asked, which the response has no use for
            if request.permit is not None:
                request.permit.leave(error)
            await request.respond_error(error)
        except ClientGoneError:
            request.log(logging.DEBUG, "client disconnected")
        except Exception:  # the boundary: a defect of ours is logged, and answered
            log.exception("internal error", extra={"fields": {"request": request.head.request_id}})
            await request.respond_error(InternalError("a defect of the gateway; see its log"))
        finally:
            if request.permit is not None:
                request.permit.leave()
        return True

    async def _respond_otherwise(self, request: ClientRequest, scope: Any) -> bool:
        """Respond to a request that is no call by itself, unless `inner` is to."""
        if scope["path"] == SERVER_WIDE:
            _note_route(request, SERVER_WIDE)
            await request.respond(SERVER_OPTIONS)
        elif (path := self._match_run(scope["path"])) is not None:
            _note_route(request, path.route)
            visit = Visit(scope["method"], path, scope.get("query_string", b""))
            await respond_on_path(request, self._runs, visit, self._dispatcher.until_stop)
        elif (mount := self.mounts.get(scope["path"])) is not None:
            _note_route(request, mount.path)
            check_origin(scope, self.cors)
            await mount.respond(request, scope)
        else:
            return False
        return True

    def _admit(self, request: ClientRequest, scope: Any) -> Codec | None:
        """The codec of a call; None: the request is for no dialect. Raises GatewayError.

        What counts as the path from here on is put into the scope.
        """
        scope["path"], authority = read_target(scope)
        codec = self.codec_of(scope["path"])
        if codec is not None:
            request.encode_error = codec.encode_error
            if codec.route.has_runs:
                request.head.query = scope.get("query_string", b"")
                request.head.scheme = scope.get("scheme", "http")
            if (seen := request.observation) is not None:
                seen.dialect, seen.route, seen.handler = codec.route[:3]
        else:
            fields = request.head.fields
            request.encode_error = partial(self._encode_error, scope["path"], fields)
        host = request.head.host
        if authority is not None:
            if host is not None:
                parse_authority(host)
            host = request.head.host = authority
        if host is not None:
            self._hosts.check(host, scope["server"][0] if scope.get("server") else "")
        if self.keys.on:
            request.caller = self.keys.identify(request.head.fields, scope["path"])
            request.head.owner = request.caller.name
            if request.observation is not None:
                request.observation.key = request.caller.name
        if scope.get("state", {}).get(WEBSOCKET):
            raise NotFound("there is no WebSocket here")
        return codec

    def _encode_error(
        self, path: str, fields: Mapping[bytes, bytes], error: GatewayError, request_id: str
    ) -> Response:
        """Write an error of a request that has no codec."""
        return dialect_of(self._dialects, path, fields).encode_error(error, request_id)

    def codec_of(self, path: str) -> Codec | None:
        for dialect in self._dialects:
            codec = dialect.match(path)
            if codec is not None:
                return codec
        return None

    def _match_run(self, path: str) -> RunPath | None:
        for dialect in self._dialects:
            run = dialect.match_run(path)
            if run is not None:
                return run
        return None

    async def _call(self, request: ClientRequest, method: str, path: str, codec: Codec) -> None:
        """Raises GatewayError before a response has begun, and ClientGoneError at any time."""
        seen = request.observation
        _check_method(method, codec)
        caller = request.caller
        if codec.agent is not None:
            caller.check(codec.agent)
            self._dispatcher.agent(codec.agent)
            if seen is not None:
                seen.agent = codec.agent
        if method == "POST":
            check_media_type(request.head)
        fields = request.head.fields
        wishes = b"prefer" in fields or b"idempotency-key" in fields
        wish = read_wish(fields, path, caller.name) if wishes else None
        body = await self.calling.read(
            request, codec.agent, wish, may_be_of_run=codec.route.has_runs
        )
        size = len(body)
        asked = codec.decode(request.head, body)
        if wish is not None:
            wish = wish.of_body(fields, body)
        raw = None
        if wish is not None and wish.respond_async and self._runs.afar is not None:
            raw = RawRequest(path, body)
        # Neither the body nor the call keeps a name here: it would be held until the response ends.
        del body
        after = None
        if not isinstance(asked, Call):
            going_on, after = await self._respond_without_call(request, codec, asked, wish)
            if going_on is None:
                return
            asked, going_on = going_on, None
        in_background = asked.continues and not asked.stream
        begun = await self.calling.begin(request, asked, size, codec, wish, after=after, raw=raw)
        del asked, after, raw
        if isinstance(begun, Run):
            await respond_with_run(
                request, self._runs, begun, wish, codec, in_background=in_background
            )
            return
        try:
            await Reply(request, codec, begun).send(partial(self.calling.leave, begun))
        finally:
            self.calling.leave(begun)

    async def _respond_without_call(
        self, request: ClientRequest, codec: Codec, asked: Response | RunRequest, wish: Wish | None
    ) -> tuple[Call | None, Run | None]:
        """Respond to what is no call. If it becomes one, returns that, and the run that it goes on
        from."""
        if isinstance(asked, Response):
            await request.respond(asked)
            return None, None
        return await respond_about_run(request, self._runs, codec, asked, wish)


def _check_method(method: str, codec: Codec) -> None:
    """Raises MethodNotAllowed."""
    allow = codec.route.method
    if method != allow:
        raise MethodNotAllowed(f"{method} is not supported here; use {allow}", allow=allow)


def _note_route(request: ClientRequest, route: str) -> None:
    if request.observation is not None:
        request.observation.route = route
