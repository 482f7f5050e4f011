"""The agents of the gateway, each with its launcher: made, tried, put in force, and removed.

The one place that knows both how an agent is put together and that there are others beside it.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

import trio
from msgspec import structs

from gateway.agents.dispatcher import TURN_SECONDS, TURNS_PER_CPU
from gateway.agents.supervisor import AgentSupervisor
from gateway.errors import ShuttingDown
from gateway.workers.checker_places import CheckerPlaces
from gateway.workers.deferred import DeferredWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from gateway.agents.dispatcher import Dispatcher
    from gateway.composition.launchers import LauncherMaker, States
    from gateway.config import Settings
    from gateway.sandbox.launch import Launcher
    from gateway.workers.worker import Worker

SILENCE_SECONDS = 5.0
"""Of a new agent's first worker, before requests are given to it nevertheless: it may be one
without the handshake, which speaks when it is asked."""


class NotStarted(Exception):  # noqa: N818 - named as what has happened
    """An agent that was to be added or replaced could not be started."""


class Roster:
    """See the module's docstring. `dispatcher` must be running for anything to be started."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        maker: LauncherMaker,
        states: States,
        *,
        kind_of_worker: Callable[[str, Sequence[str]], Callable[..., Worker]],
        on_gone: Callable[[], None] = lambda: None,
    ) -> None:
        """`kind_of_worker` is what makes the workers of an agent with this name and command, which
        is as it may be shown. `on_gone` is called whenever a worker has been reaped."""
        self._dispatcher = dispatcher
        self._maker = maker
        self._states = states
        self._kind_of_worker = kind_of_worker
        self._on_gone = on_gone
        self._checker_places = CheckerPlaces()
        self.ports: Sequence[int] = ()
        """What the gateway listens on: no agent is ever connected to it."""
        self.launchers: dict[str, Launcher] = {}
        """Of the agents that requests are given to."""

    def __repr__(self) -> str:
        return f"<Roster {list(self._dispatcher.agents)}>"

    @property
    def processes(self) -> Iterator[tuple[int, str | None]]:
        """The pid of every process that is a worker's or a launcher's, and its mark, if any."""
        for agent in self._dispatcher.running:
            yield from agent.processes
        for pid in self._maker.processes():
            yield pid, None

    def open(self, settings: Settings, launchers: Mapping[str, Launcher]) -> None:
        """Have these agents served once the dispatcher runs: those of the gateway's start."""
        for name, launcher in launchers.items():
            launcher.keep_from(self.ports)
            self._dispatcher.agents[name] = self._make(name, settings, launcher)
            self._put_launcher(name, launcher)
        self._maker.made()

    def prepare(self, settings: Settings, names: Collection[str]) -> dict[str, Launcher]:
        """The launchers of agents to come. Blocks. Raises ConfigError and SandboxError."""
        return self._maker.make(settings, names, beside=self.launchers)

    async def start(
        self, settings: Settings, launchers: Mapping[str, Launcher]
    ) -> dict[str, AgentSupervisor]:
        """Start agents, and wait until the first worker of each has spoken.

        One that says nothing is waited for `SILENCE_SECONDS`; where the agent before it spoke the
        handshake, for as long as its `start` clock. Raises NotStarted and ShuttingDown; then none
        of these agents is left.
        """
        started: dict[str, AgentSupervisor] = {}
        try:
            for name, launcher in launchers.items():
                launcher.keep_from(self.ports)
                agent = self._make(name, settings, launcher)
                await self._dispatcher.start(agent)
                started[name] = agent
            self._maker.made()
            await self._try(started.values())
            for name, agent in started.items():
                if (why := agent.why_not_started) is not None:
                    raise NotStarted(f"agent {name!r} cannot be started: {why}")
        except OSError as error:
            await self._give_up(started, launchers)
            raise NotStarted(f"an agent cannot be started: {error.strerror or error}") from error
        except BaseException:
            await self._give_up(started, launchers)
            raise
        return started

    async def _give_up(
        self, started: Mapping[str, AgentSupervisor], launchers: Mapping[str, Launcher]
    ) -> None:
        for agent in started.values():
            agent.stop(ShuttingDown("the agent could not be started"))
        with trio.CancelScope(shield=True):  # takes seconds at most
            for name in launchers.keys() - started.keys():
                await trio.to_thread.run_sync(launchers[name].close)
        self._maker.made()

    async def _try(self, agents: Collection[AgentSupervisor]) -> None:
        """Start the first workers of agents, a few at a time, and wait for what comes of it."""
        left = iter(agents)

        async def take_turns() -> None:
            for agent in left:
                agent.warm_up()
                with trio.move_on_after(TURN_SECONDS):
                    await _spoken(agent)

        async with trio.open_nursery() as nursery:
            for _ in range(TURNS_PER_CPU * len(os.sched_getaffinity(0))):
                nursery.start_soon(take_turns)
        async with trio.open_nursery() as nursery:
            for agent in agents:
                nursery.start_soon(self._wait_for, agent)

    async def _wait_for(self, agent: AgentSupervisor) -> None:
        before = self._dispatcher.agents.get(agent.name)
        spoke = before is not None and before.summary.handlers is not None
        start = agent.settings.clocks.seconds("start")
        with trio.move_on_after(start if spoke else min(start, SILENCE_SECONDS)):
            await _spoken(agent)

    def put(self, agents: Iterable[AgentSupervisor]) -> None:
        """Give the requests for their names to these agents, which were started."""
        for agent in agents:
            self._dispatcher.put(agent)
            self._put_launcher(agent.name, agent.launcher)

    def remove(self, name: str, seconds: float) -> None:
        """Serve an agent no more; its requests have so much time to end."""
        self._dispatcher.remove(name, seconds)
        del self.launchers[name]
        self._states.of.pop(name, None)

    def generations(self, name: str) -> int:
        """As `Dispatcher.generations`."""
        return self._dispatcher.generations(name)

    def _put_launcher(self, name: str, launcher: Launcher) -> None:
        self.launchers[name] = launcher
        if launcher.state is None:
            self._states.of.pop(name, None)
        else:
            self._states.of[name] = launcher.state

    def _make(self, name: str, configured: Settings, launcher: Launcher) -> AgentSupervisor:
        settings = configured.agents[name]
        worker = self._kind_of_worker(name, configured.shown_argv(name))
        kind = partial(
            AgentSupervisor,
            on_gone=self._on_gone,
            new_worker=worker,
            checker_places=self._checker_places,
        )
        if settings.state_per_conversation:
            # None can start before its conversation, and none is kept ready.
            settings = structs.replace(
                settings, workers=structs.replace(settings.workers, min=0, spare=0)
            )
            kind = partial(kind, new_worker=partial(DeferredWorker, new_worker=worker))
        return kind(name, settings, launcher)


async def _spoken(agent: AgentSupervisor) -> None:
    if agent.settings.workers.min:
        await agent.tried.wait()
