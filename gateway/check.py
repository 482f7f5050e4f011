"""`gateway --check`: starts one worker of each agent, without a request, and says what it found."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click
import msgspec
import trio

from gateway.workers.events import Ended, Reason, Spoke
from gateway.workers.worker import Worker

if TYPE_CHECKING:
    from gateway.config import AgentSettings, Settings
    from gateway.errors import GatewayError
    from gateway.sandbox.launch import Launcher
    from gateway.workers.events import WorkerEvent
    from protocol import Ready

SILENCE_SECONDS = 5.0
"""How long an agent has to speak the handshake; after that it counts as one without."""


async def check_agents(settings: Settings, launchers: dict[str, Launcher]) -> int:
    """Print one JSON object per agent; returns 0 if each could be started, else 1.

    Each agent's sandbox was tried before, when its launcher was made.
    """
    logging.getLogger("gateway").setLevel(logging.ERROR)
    trials = [_Trial(name, agent, launchers[name]) for name, agent in settings.agents.items()]
    async with trio.open_nursery() as nursery:
        for trial in trials:
            nursery.start_soon(trial.run)
    for trial in trials:
        click.echo(msgspec.json.format(msgspec.json.encode(trial.found), indent=2))
    return 0 if all(trial.found["ok"] for trial in trials) else 1


class _Trial:
    """One worker of one agent, until it speaks, ends, or was silent for long enough."""

    def __init__(self, name: str, agent: AgentSettings, launcher: Launcher) -> None:
        self._name = name
        self._launcher = launcher
        self._decided = trio.Event()
        self._error: GatewayError | None = None
        self._ready: Ready | None = None
        self._worker = Worker(1, name, launcher, self._receive, clocks=agent.clocks)
        self._patience = min(agent.clocks.seconds("start"), SILENCE_SECONDS)

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._worker.run)
            with suppress(trio.TooSlowError), trio.fail_after(self._patience):
                await self._decided.wait()
            self._worker.end(Reason.ASKED)

    @property
    def found(self) -> dict[str, Any]:
        found: dict[str, Any] = {"agent": self._name, "ok": self._error is None}
        if self._error is not None:
            found["error"] = self._error.message
        elif self._ready is not None:
            found["handshake"] = "ready"
            found["handlers"] = self._ready.handlers
            found["concurrency"] = self._ready.concurrency
        else:
            found["handshake"] = "none: taken as serving every handler, one request at a time"
        found["sandbox"] = self._launcher.describe()
        return found

    def _receive(self, worker_id: int, event: WorkerEvent) -> None:
        """What the worker reports."""
        del worker_id
        if isinstance(event, Spoke):
            self._ready = event.ready
            self._decided.set()
        elif isinstance(event, Ended):
            if event.reason is not Reason.ASKED:
                self._error = event.error
            self._decided.set()
