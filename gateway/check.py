"""`gateway --check`: tries each agent without a request, and says what was found."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click
import msgspec
import trio

from gateway.workers.worker import Reason, Worker

if TYPE_CHECKING:
    from gateway.config import AgentSettings, Settings
    from gateway.errors import GatewayError
    from gateway.exchange import Exchange
    from gateway.sandbox.launch import Launcher
    from protocol import Ready

SILENCE_SECONDS = 5.0
"""How long an agent that does not speak the handshake is given to show that it does."""


async def check_agents(settings: Settings, launchers: dict[str, Launcher]) -> int:
    """Print one JSON object per agent; returns 0 if each could be started, else 1.

    The sandbox of each was tried before, when its launcher was made.
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
    """One worker of one agent, until it has spoken, ended, or been silent for long enough."""

    def __init__(self, name: str, agent: AgentSettings, launcher: Launcher) -> None:
        self._name = name
        self._launcher = launcher
        self._decided = trio.Event()
        self._error: GatewayError | None = None
        self._ready: Ready | None = None
        stop = agent.clocks.seconds("stop")
        self._worker = Worker(1, name, launcher, self, stop=stop)
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

    # WorkerOwner; without requests, only the first line and the end can come.

    def worker_spawned(self, worker: Worker) -> None: ...

    def worker_spoke(self, worker: Worker, ready: Ready | None) -> None:
        self._ready = ready
        self._decided.set()

    def worker_answered(self, worker: Worker, exchange: Exchange, *, served: bool) -> None: ...

    def worker_paused(self, worker: Worker, *, paused: bool) -> None: ...

    def worker_misbehaved(self, worker: Worker) -> None: ...

    def worker_cannot_wait(self, worker: Worker, exchange: Exchange) -> None: ...

    def worker_ended(self, worker: Worker, reason: Reason, error: GatewayError) -> None:
        if reason is not Reason.ASKED:
            self._error = error
        self._decided.set()
