"""The first milliseconds of a worker: the checks that it can be served, and `ready`.

Importing this module imports no event loop, which would double the time to `ready`. `ready` says
that the agent is loaded and which handlers it has; the event loop is imported while the gateway
routes the first request.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from protocol.worker_side import WorkerConnection

from .handler import Served

if TYPE_CHECKING:
    from types import ModuleType

    from .loops import Backend
    from .stdio import Stdio

_OWN_PATH = tuple(sys.path)
"""Where modules were found before the agent was loaded."""

BACKENDS: tuple[Backend, ...] = ("asyncio", "trio")


class Declared(Served, Protocol):
    """An agent, as much of it as `ready` declares."""

    description: str | None
    modes: Sequence[str]
    tools: bool
    asks: bool

    def encoded_metadata(self) -> bytes:
        """The metadata as JSON text."""

    def encoded_schemas(self) -> Mapping[str, bytes]:
        """The JSON Schemas of "input" and "output", as JSON text, as far as they are declared."""


def serve(agent: Declared, wire: Stdio, *, backend: Backend = "asyncio") -> None:
    """Declare the agent, and serve it until stdin ends.

    Raises ValueError for an agent that cannot be served, and SystemExit with a status other than 0
    when anything but the end of stdin ended it.
    """
    _check(agent, backend)
    for handler in agent.handlers.values():
        for complaint in handler.prepare():
            sys.stderr.write(f"worker: {complaint}\n")
    schemas: dict[str, bytes] = {}
    for handler in agent.handlers.values():
        schemas |= handler.schemas()
    schemas |= agent.encoded_schemas()  # what the author has written counts more
    connection = WorkerConnection()
    ready = connection.send_ready(
        handlers=list(agent.handlers),
        concurrency=agent.concurrency,
        description=agent.description,
        metadata=agent.encoded_metadata(),
        **schemas,
        modes=agent.modes,
        tools=agent.tools,
        asks=agent.asks,
    )
    os.write(wire.stdout, ready)  # one write suffices: the pipe is empty and blocking

    status = _import_server().run(agent, wire, connection, backend=backend)
    if status:
        raise SystemExit(status)


def _import_server() -> ModuleType:
    """Import the event loop and all that goes with it, from where the SDK itself came from.

    Files beside the agent come first on `sys.path` by now, and may be called anyio.py.
    """
    path = list(sys.path)
    sys.path[:] = [*_OWN_PATH, *(place for place in path if place not in _OWN_PATH)]
    try:
        from . import server  # noqa: PLC0415  (see the module's docstring)
    finally:
        sys.path[:] = path
    return server


def _check(agent: Served, backend: str) -> None:
    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}, expected 'asyncio' or 'trio'")
    if backend == "trio":
        from importlib.util import find_spec  # noqa: PLC0415  (not needed by default)

        if find_spec("trio") is None:
            raise ValueError("backend is 'trio', and trio is not installed")
    if not agent.handlers:
        raise ValueError(
            f"agent {agent.name!r} has no handlers; "
            "decorate a function with @agent.invoke or @agent.chat"
        )
