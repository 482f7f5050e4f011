"""`/mcp`: every request of the protocol, on its way to the SDK and back."""

from __future__ import annotations

import logging
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import trio

from gateway.errors import MethodNotAllowed, Overloaded
from gateway.front.head import check_media_type
from gateway.front.mcp.codec import PATH
from gateway.front.mcp.envelope import Envelope, read_envelope
from gateway.front.mcp.routes.calls import Calls, Visit
from gateway.front.mcp.routes.handlers import Handlers, visit_of
from gateway.front.mcp.routes.sessions import Sessions
from gateway.front.mcp.routes.transport import SESSION, field_of
from gateway.front.runs.wishes import read_wish

if TYPE_CHECKING:
    from mcp.server.context import ServerRequestContext
    from mcp.server.subscriptions import ListenHandler

    from gateway.agents.dispatcher import Dispatcher
    from gateway.front.auth import Keys
    from gateway.front.calling import Calling
    from gateway.front.client import ClientRequest
    from gateway.front.runs.service import Runs

METHODS = ("DELETE", "GET", "POST")

MOST_OTHER_BODY = 4096
"""Bytes of the body of a request that needs none."""

MOST_IN_ALL = 1024
"""Sessions of all keys. One more ends one of the key that has most."""

LOOK_SECONDS = 1.0
"""Between two looks whether the list of tools has changed, and whether keys are still good."""


class Endpoint:
    """What serves `path`. `run` must be running while requests are served."""

    path = PATH

    def __init__(self, dispatcher: Dispatcher, calling: Calling, runs: Runs, keys: Keys) -> None:
        for name in ("mcp", "sse_starlette"):
            # What a client does wrong it is told; it must not fill the log with it.
            logging.getLogger(name).setLevel(logging.ERROR)
        self._dispatcher = dispatcher
        self._calling = calling
        self._keys = keys
        self._calls = Calls(dispatcher, calling, runs)
        self._handlers = Handlers(self._calls, self._listen, self._opened)
        self._server = self._handlers.make_server(version("agent-gateway"))
        self._of_keys: dict[str, Sessions] = {}
        """The sessions of each caller, by the name of its key."""
        self._told = self._calls.listed_now
        """The tools as clients were told that they have changed, or as the first one found them."""
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve sessions, and tell them when the tools change, until cancelled."""
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._close_when_draining)
            task_status.started()
            while not self._dispatcher.draining:
                await trio.sleep(LOOK_SECONDS)
                await self._forget_callers()
                listed = self._calls.listed_now
                if listed != self._told:
                    self._told = listed
                    for owner, sessions in list(self._of_keys.items()):
                        if self._keys.is_good(owner):
                            await sessions.tell_of_change()

    async def _close_when_draining(self) -> None:
        """End what waits for news or for answers, also what begins later.

        This is a task of its own, since a client that does not read may be told of a change at this
        moment, which takes longer than connections have to end."""
        await self._dispatcher.drains.wait()
        while True:
            self._calls.close()
            for sessions in self._of_keys.values():
                sessions.close()
            await trio.sleep(LOOK_SECONDS)

    async def _forget_callers(self) -> None:
        """End what callers have open whose keys are not good any more, but for calls in progress;
        and keep nothing for those that have nothing open."""
        for owner, sessions in list(self._of_keys.items()):
            if not self._keys.is_good(owner):
                sessions.close()
                await sessions.end_idle()
            if sessions.are_unused:
                del self._of_keys[owner]
                sessions.stop()

    async def respond(self, request: ClientRequest, scope: Any) -> None:
        """Respond to a request whose caller is known. Raises GatewayError and ClientGoneError."""
        method = scope["method"]
        if method not in METHODS:
            allow = ", ".join(METHODS)
            raise MethodNotAllowed(f"{method} is not supported here; use {allow}", allow=allow)
        visit = await self._read(request, method)
        visit.session = field_of(scope["headers"], SESSION) or ""
        try:
            await self._sessions_of(request.caller.name).serve(visit, scope)
        finally:
            visit.gone = True
            visit.work.cancel()

    async def _read(self, request: ClientRequest, method: str) -> Visit:
        if method != "POST":
            if request.head.has_body:
                await request.read_body(MOST_OTHER_BODY, self._dispatcher.until_stop)
            return Visit(request, Envelope(b""), 0, None)
        check_media_type(request.head)
        fields = request.head.fields
        wish = read_wish(fields, PATH, request.caller.name)
        if wish is not None and wish.key is None:
            wish = None  # every answer is waited for
        # Only a call takes a place among the key's: a stream that waits for changes would hold it
        # for as long as it is open, and a call that has the last one could not be cancelled.
        body = await self._calling.read(request, None, wish, may_be_of_run=True)
        envelope = read_envelope(body)
        if envelope.call is not None and wish is None and request.permit is not None:
            request.permit.start()  # with a wish, a run that begins does it (`Runs.begin`)
        if wish is not None and envelope.call is not None:
            # Not the whole body: each request of a client has an id of its own. What goes on with
            # answers to questions is another run (`Calls.run`).
            asked = (envelope.call.name.encode(), envelope.call.arguments)
            wish = wish.of_body(fields, b"\0".join(asked))
        return Visit(request, envelope, len(body), wish)

    def _sessions_of(self, owner: str) -> Sessions:
        sessions = self._of_keys.get(owner)
        if sessions is None:
            assert self._nursery is not None
            if not self._of_keys:
                self._told = self._calls.listed_now
            sessions = self._of_keys[owner] = Sessions(self._server, self._make_place)
            self._nursery.start_soon(sessions.run)
        return sessions

    async def _make_place(self) -> None:
        """For one more session that counts already. Raises Overloaded."""
        while sum(each.count for each in self._of_keys.values()) > MOST_IN_ALL:
            with_idle = [each for each in self._of_keys.values() if each.has_idle]
            if not with_idle:
                raise Overloaded(
                    f"{MOST_IN_ALL} sessions of all keys are open and in use, the most that may",
                    retry_after=5,
                )
            await max(with_idle, key=lambda each: each.count).end_oldest()

    def _listen(self, visit: Visit) -> ListenHandler:
        return self._sessions_of(visit.request.caller.name).listen

    def _opened(self, ctx: ServerRequestContext[Any, Any]) -> None:
        sessions = self._of_keys.get(visit_of(ctx).request.caller.name)
        if sessions is not None:
            sessions.opened(ctx)
