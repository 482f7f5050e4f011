"""The gateway's HTTP server: how many connections it takes, and how a reload changes it."""

from __future__ import annotations

import logging
import os
import resource
from typing import TYPE_CHECKING, Any

import trio
from hypercorn.config import Config

from gateway.front.listen import Places, serve_http
from gateway.front.sockets import BACKLOG
from gateway.observe import logs

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from gateway.config import CallerKeys, Settings
    from gateway.front.app import App

log = logging.getLogger("gateway")

MAX_DESCRIPTORS = 65_536
"""What the gateway allows itself, if the system does: a bound on the connections that say nothing,
and with it on their memory."""

DESCRIPTORS_PER_WORKER = 7
"""Three pipes, the process, the claim on its user id, and what its network and services end with.
"""

SPARE_DESCRIPTORS = 128
"""For what is open for a moment: a start of a worker takes some thirty, and one that has ended but
is not reaped keeps its own; looks into /proc; refused connections."""

GRACEFUL_SECONDS = 3.0
"""For connections to end after the last response was written."""


class HttpServer:
    """The HTTP server. `change` must have been called before `serve`."""

    def __init__(self, app: App, listeners: Sequence[socket.socket], places: Places) -> None:
        self._app = app
        self._places = places
        self._config = _http_config(listeners)
        self._others = len(os.listdir("/proc/self/fd"))

    def change(self, settings: Settings, keys: CallerKeys) -> None:
        """Obey these settings from now on. Open connections keep the `Keep-Alive` that they have
        announced."""
        self._config.keep_alive_timeout = settings.server.keep_alive
        self._places.number = _max_connections(settings, self._others)
        self._places.addresses.most = settings.server.connections_per_address
        self._app.change(settings, keys)

    async def serve(self, **options: Any) -> None:
        """As `serve_http`, whose triggers are the options."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._app.run_mounts)
            await serve_http(self._app, self._config, places=self._places, **options)
            nursery.cancel_scope.cancel()


def _http_config(listeners: Sequence[socket.socket]) -> Config:
    config = Config()
    config.bind = [f"fd://{listener.detach()}" for listener in listeners]
    config.backlog = BACKLOG
    config.graceful_timeout = GRACEFUL_SECONDS
    config.include_server_header = False
    # Ours are the records that matter; Hypercorn's own go nowhere but for its errors.
    config.errorlog = logging.getLogger("hypercorn.error")
    return config


def _max_connections(settings: Settings, others: int) -> int:
    """How many connections leave enough descriptors for every worker that may be started, and for
    so many others."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    workers = sum(agent.workers.max for agent in settings.run_here.values())
    reserved = others + SPARE_DESCRIPTORS + workers * DESCRIPTORS_PER_WORKER
    least = limit // 4
    if limit - reserved < least:
        message = (
            f"the limit of {limit} open files is too low for {workers} workers, which need "
            f"{reserved}, beside connections: raise it (ulimit -n, LimitNOFILE=)"
        )
        logs.event(log, logging.WARNING, message)
    return max(limit - reserved, least)


def raise_descriptor_limit() -> None:
    """Every connection takes a descriptor and every worker some: take what the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
