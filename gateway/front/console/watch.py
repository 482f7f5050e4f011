"""Looks at the gateway once in a while, for all who have the console open; not at all for nobody.

`Watch.run` sleeps until there is a reader, and then looks every `INTERVAL` and wakes the readers.
Each of them finds out what is new to itself, when it has sent what it has found before: so a reader
that is slow gets less often more, nothing waits for it in memory, and nobody waits for it.

The memory of workers costs most: a look into /proc for each of their processes. So a few workers
are measured each time, every one of them in turn.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

import trio

from gateway.errors import Overloaded, ShuttingDown
from gateway.exchange import Exchange
from gateway.front.console.agents import AgentView, Glances
from gateway.front.console.journal import Noted
from gateway.workers.memory import measure_all

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import NoReturn

    from gateway.agents.dispatcher import Dispatcher

INTERVAL = 1.0
"""Seconds between two looks: people see it as at once, and it costs little."""

ROUND = 10
"""Looks in which the memory of every worker is measured once."""

MOST_MEASURED = 64
"""Workers that are measured at one look, each of which takes some 100 µs of a thread."""

MOST_NOTED = 1000
"""Running requests whose words are noted. Each takes 30 KB at most, or 80 KB with its text."""

MOST_READERS = 32
MOST_READERS_OF_KEY = 8
"""Open streams: a person has a few tabs."""


class Watch:
    """See the module's docstring."""

    def __init__(self, dispatcher: Dispatcher, noted: type[Noted] = Noted) -> None:
        """`noted` is what requests become while anybody looks."""
        self._dispatcher = dispatcher
        self._noted = noted
        self._readers: list[str] = []
        """The owner of each."""
        self._opened = trio.Event()
        self._looked = trio.lowlevel.ParkingLot()
        self._glances = Glances()
        self._memory: dict[tuple[str, int], int] = {}
        self._next_measured: tuple[str, int] = ("", 0)
        self.views: Mapping[str, AgentView] = {}
        self.closed = False
        """Whether the gateway ends: no more is looked at."""
        self.generation = 0
        """Another number when readers have to begin anew: rights have changed."""

    def __repr__(self) -> str:
        return f"<Watch of {len(self._readers)} readers>"

    async def run(self) -> NoReturn:
        """Look while there are readers, until cancelled."""
        while True:
            await self._opened.wait()
            with trio.CancelScope() as scope:
                self._dispatcher.reading.add(scope)  # the end of the gateway is not to wait for us
                self._dispatcher.new_exchange = self._new_exchange
                try:
                    await self._look_while_watched()
                finally:
                    self._dispatcher.new_exchange = Exchange
                    self._dispatcher.reading.discard(scope)
            if scope.cancelled_caught:
                self.close()
                await trio.sleep_forever()
            self._memory.clear()

    async def _look_while_watched(self) -> None:
        while self._readers:
            await self._measure()
            self._look()
            self._looked.unpark_all()
            await trio.sleep(INTERVAL)
        self._opened = trio.Event()

    def _new_exchange(self, *args: Any, **options: Any) -> Exchange:
        """What a request becomes that is admitted now."""
        few = len(self._dispatcher.open) < MOST_NOTED
        return (self._noted if few else Exchange)(*args, **options)

    def _look(self) -> None:
        self.views = self._glances.look(self._dispatcher.agents.values(), self._memory)

    async def _measure(self) -> None:
        """Measure the next workers in turn."""
        agents = self._dispatcher.agents.values()
        pids = {
            (agent.name, worker_id): pid
            for agent in agents
            for worker_id, pid in agent.pids().items()
            if pid is not None
        }
        for gone in self._memory.keys() - pids.keys():
            del self._memory[gone]
        if not pids:
            return
        count = min(MOST_MEASURED, math.ceil(len(pids) / ROUND))
        new = [key for key in pids if key not in self._memory]
        turns = sorted(key for key in pids if key > self._next_measured) or sorted(pids)
        due = dict.fromkeys([*islice(new, MOST_MEASURED), *turns[:count]])
        if turns[:count]:
            self._next_measured = turns[:count][-1]
        self._memory |= await measure_all({key: pids[key] for key in due})

    # Readers

    def close(self) -> None:
        """Have every reader end, and take no more."""
        self.closed = True
        self._looked.unpark_all()

    def check_room(self, owner: str) -> None:
        """Whether one more may read. Raises Overloaded and ShuttingDown."""
        if self.closed:
            raise ShuttingDown("the gateway is shutting down")
        if len(self._readers) >= MOST_READERS:
            raise Overloaded(f"{MOST_READERS} streams of the console are open", retry_after=5)
        if owner and self._readers.count(owner) >= MOST_READERS_OF_KEY:
            raise Overloaded(
                f"{MOST_READERS_OF_KEY} streams of the console are open with this key",
                retry_after=5,
            )

    @contextmanager
    def reader(self, owner: str) -> Iterator[None]:
        """Have the gateway looked at meanwhile."""
        if not self._readers:
            self._look()
        self._readers.append(owner)
        self._opened.set()
        try:
            yield
        finally:
            self._readers.remove(owner)

    async def next_look(self) -> None:
        """Wait for the next look, or for `closed`."""
        await self._looked.park()
