"""The Quart-Trio application of one gateway."""

from __future__ import annotations

import socket
from functools import partial
from typing import TYPE_CHECKING, Any

import trio
from quart.wrappers import base as wrappers
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIHTTPConnection

from gateway.front.cors import make_cors
from gateway.front.dialects import serve_dialects
from gateway.front.hosts import KnownHosts
from gateway.front.limits import make_limits
from gateway.front.metrics import Readers, make_metrics_blueprint
from gateway.front.observed import Counted, Observing
from gateway.front.requests import CallRoutes
from gateway.front.status import make_agents_blueprint, make_blueprint

if TYPE_CHECKING:
    from gateway.agents.dispatcher import Dispatcher
    from gateway.config import CallerKeys, ServerSettings, Settings
    from gateway.fleet.front.jobs import Jobs
    from gateway.front.auth import Keys
    from gateway.front.console.console import Console
    from gateway.front.console.fleet import Fleet
    from gateway.front.limits.permits import Limits
    from gateway.front.metrics import Scrape
    from gateway.front.observed import ASGIApp, Begin
    from gateway.front.runs.service import Runs
    from gateway.observe.observation import Tell


PAYLOAD_BYTES = 4096
"""Of each body in the access log, with `log_payloads`: a question and the beginning of its answer.
"""


class _NeverRaisedError(Exception):
    pass


_ClientLeftError: type[Exception] = getattr(wrappers, "ClientDisconnectedError", _NeverRaisedError)
"""What Quart 0.23 raises out of a response whose client leaves; Quart 0.22 just ends it."""


class HTTPConnection(TrioASGIHTTPConnection):
    """A connection whose last part of a response is always sent whole.

    When that part is sent, Hypercorn first tells the application that the request is over, and
    Quart-Trio then cancels the task that is still sending: without the shield the connection is
    never closed nor used again. The send is bounded by the socket's TCP_USER_TIMEOUT.
    """

    async def __call__(self, receive: Any, send: Any) -> None:
        try:
            await super().__call__(receive, partial(_send_whole, send))
        except* _ClientLeftError:
            pass  # nobody is there to be told


async def _send_whole(send: Any, message: dict[str, Any]) -> None:
    last = message["type"] == "http.response.body" and not message.get("more_body", False)
    with trio.CancelScope(shield=last):
        await send(message)


class App(QuartTrio):
    """The application of one gateway. What changes of it belongs to its `calls` and `readers`."""

    calls: CallRoutes
    readers: Readers | None = None
    console: Console | None = None

    async def run_mounts(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Run what serves paths by itself, until cancelled."""
        async with trio.open_nursery() as nursery:
            for mount in self.calls.mounts.values():
                await nursery.start(mount.run)
            task_status.started()

    def change(self, settings: Settings, keys: CallerKeys) -> None:
        """Go by these settings and keys from the next request on."""
        server = settings.server
        self.config["MAX_CONTENT_LENGTH"] = server.max_body_bytes
        self.calls.change(_hosts(server), server.max_body_bytes)
        self.calls.cors = make_cors(server.cors)
        calling = self.calls.calling
        calling.limits = make_limits(settings.agents, keys.by_name, calling.limits)
        if self.readers is not None:
            self.readers.change(server.metrics)
        if self.console is not None:
            self.console.change(settings, keys)


def make_app(
    dispatcher: Dispatcher,
    runs: Runs,
    settings: ServerSettings,
    tell: Tell | None = None,
    *,
    begin: Begin | None = None,
    keys: Keys | None = None,
    limits: Limits | None = None,
    scrape: Scrape | None = None,
    console: Console | None = None,
    probes_only: bool = False,
    background: Jobs | None = None,
    fleet: Fleet | None = None,
) -> App:
    """The application, ready to be served by Hypercorn's trio worker. `tell` is told of every
    request, for which `begin` is called first; without it, none is observed. `keys` are those of
    callers. `scrape` makes what `/metrics` is answered with, where there are metrics; `/console`
    shows the `console`. With `probes_only`, only the metrics tell of the agents. `background` keeps
    the requests that outlive a front, whose hosts the `fleet` has."""
    max_body = settings.max_body_bytes
    app = App("gateway", static_folder=None)
    # A path with an empty segment is another path, and no redirect is made up of a client's Host.
    app.url_map.merge_slashes = False
    app.asgi_http_class = HTTPConnection
    # The gateway has its own clocks; Quart's would cut every response after 60 s.
    app.config["RESPONSE_TIMEOUT"] = None
    app.config["MAX_CONTENT_LENGTH"] = max_body
    served = serve_dialects(settings.dialects)
    dialects = tuple(each.dialect for each in served)
    app.register_blueprint(make_blueprint(dispatcher, dialects))
    if not probes_only:
        app.register_blueprint(make_agents_blueprint(dispatcher, fleet))
    if keys is not None:
        keys.open_suffixes = tuple(each.open_suffix for each in served if each.open_suffix)
    for each in served:
        if each.routes is not None:
            app.register_blueprint(each.routes(dispatcher))
    if listing := [each for each in served if each.models is not None]:
        from gateway.front.models import make_models_blueprint  # noqa: PLC0415 - off: unread

        app.register_blueprint(make_models_blueprint(dispatcher, listing))
    if scrape is not None:
        app.readers = Readers(settings.metrics)
        app.register_blueprint(make_metrics_blueprint(scrape, app.readers))
    if console is not None:
        from gateway.front.console.routes import make_console_blueprint  # noqa: PLC0415 - the same

        app.console = console
        app.register_blueprint(make_console_blueprint(console))
    if settings.docs:
        from gateway.front.docs.routes import make_docs_blueprint  # noqa: PLC0415 - off: unread

        app.register_blueprint(make_docs_blueprint(dispatcher, served, settings))
    served_by_quart: ASGIApp = app.asgi_app
    observing = None
    if tell is not None:
        served_by_quart = Counted(served_by_quart)
        most = PAYLOAD_BYTES if settings.log_payloads else 0
        observing = Observing(tell, begin, keep_bodies=most)
    app.calls = CallRoutes(
        served_by_quart,
        dispatcher,
        dialects,
        _hosts(settings),
        runs,
        max_body=max_body,
        keys=keys,
        inputs=lambda agent: dispatcher.agent(agent).declared.checks,
        limits=limits,
        cors=make_cors(settings.cors),
        observing=observing,
    )
    if background is not None:
        from gateway.front.runs.afar import Afar  # noqa: PLC0415 - the same

        runs.afar = Afar(runs, background, dispatcher, app.calls.codec_of)
    for each in served:
        if each.mount is not None:
            mount = each.mount(dispatcher, app.calls.calling, runs, app.calls.keys)
            app.calls.mounts[mount.path] = mount
    app.asgi_app = app.calls  # type: ignore[method-assign, assignment]  # Quart's documented way to add middleware
    return app


def _hosts(settings: ServerSettings) -> KnownHosts:
    return KnownHosts(settings, socket.gethostname())
