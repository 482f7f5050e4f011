"""`gateway --check`: starts one worker of each agent, without a request, and says what it found.
What is part of a fleet connects to NATS, too.

A worker that has said nothing yet may be one without the handshake, which speaks when it is asked,
or one that is still loading what it will fail at. So silence is waited for as long as a request
would wait, and what was not found out is said.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

import click
import msgspec
import trio

from gateway.config import Clocks
from gateway.sandbox.words import in_words
from gateway.workers.events import Ended, Reason, Spoke
from gateway.workers.worker import Worker

if TYPE_CHECKING:
    from gateway.config import AgentSettings, Settings
    from gateway.errors import GatewayError
    from gateway.sandbox.launch import Launcher
    from gateway.workers.events import WorkerEvent
    from protocol import Ready

EXPLAIN_SECONDS = 5.0
"""Of an agent's silence, before it is said what is waited for."""


async def check_agents(settings: Settings, launchers: dict[str, Launcher]) -> int:
    """Print one JSON object per NATS server and per agent; returns 0 if each could be connected to
    or started, else 1.

    Each agent's sandbox was tried before, when its launcher was made.
    """
    logging.getLogger("gateway").setLevel(logging.ERROR)
    trials = [_Trial(name, agent, launchers[name]) for name, agent in settings.run_here.items()]
    servers = await _try_servers(settings)
    async with trio.open_nursery() as nursery:
        for trial in trials:
            nursery.start_soon(trial.run)
    found = [*servers, *(trial.found for trial in trials)]
    for each in found:
        click.echo(msgspec.json.format(msgspec.json.encode(each), indent=2))
    return 0 if all(each["ok"] for each in found) else 1


async def _try_servers(settings: Settings) -> list[dict[str, Any]]:
    if settings.fleet.role is None:
        return []
    from gateway.fleet.nats_try import try_servers  # noqa: PLC0415 - of an extra

    return await try_servers(settings.fleet)


def check_files(settings: Settings) -> None:
    """Raises ConfigError for files of `[fleet]` that cannot be used as they are."""
    if settings.fleet.role is not None:
        from gateway.fleet.nats_login import check  # noqa: PLC0415 - of an extra

        check(settings.fleet)


class _Trial:
    """One worker of one agent, until it speaks or ends, or its `start` clock has run out."""

    def __init__(self, name: str, agent: AgentSettings, launcher: Launcher) -> None:
        self._name = name
        self._agent = agent
        self._launcher = launcher
        self._decided = trio.Event()
        self._error: GatewayError | None = None
        self._spoke: Spoke | None = None
        self._worker = Worker(1, name, launcher, self._receive, clocks=agent.clocks)
        start = agent.clocks.seconds("start")
        # A clock that is off would never run out; the default is enough for most.
        self._patience = Clocks().seconds("start") if math.isinf(start) else start

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._worker.run)
            if not await self._decided_within(min(EXPLAIN_SECONDS, self._patience)):
                left = self._patience - EXPLAIN_SECONDS
                if left > 0:
                    message = f"agent {self._name!r} says nothing: waiting for {left:g} s more"
                    click.echo(f"gateway: {message}", err=True)
                    await self._decided_within(left)
            self._worker.end(Reason.ASKED)

    async def _decided_within(self, seconds: float) -> bool:
        with trio.move_on_after(seconds):
            await self._decided.wait()
        return self._decided.is_set()

    @property
    def found(self) -> dict[str, Any]:
        """What is printed; `run` must have returned."""
        found: dict[str, Any] = {"agent": self._name, "ok": self._error is None}
        if self._error is not None:
            found["error"] = self._error.message
        elif self._spoke is not None and self._spoke.ready is not None:
            found |= _ready(self._spoke.ready)
        else:
            found |= self._no_handshake()
        if self._worker.stderr_tail:
            found["stderr"] = self._worker.stderr_tail
        described = self._launcher.describe()
        found["in_words"] = in_words(described, workers=self._agent.workers.max)
        found["sandbox"] = described
        return found

    def _no_handshake(self) -> dict[str, Any]:
        how = "its first line is another" if self._spoke else f"silent for {self._patience:g} s"
        return {
            "handshake": f"none ({how}): taken as serving every handler, one request at a time",
            "not_found_out": "whether it has started and would answer: it was not sent a request",
        }

    def _receive(self, worker_id: int, event: WorkerEvent) -> None:
        """What the worker reports."""
        del worker_id
        if isinstance(event, Spoke):
            self._spoke = event
            self._decided.set()
        elif isinstance(event, Ended):
            if event.reason is not Reason.ASKED:
                self._error = event.error
            self._decided.set()


def _ready(ready: Ready) -> dict[str, Any]:
    return {
        "handshake": "ready",
        "handlers": ready.handlers,
        "concurrency": ready.concurrency,
        "not_found_out": "whether its handlers work: it was not sent a request",
    }
