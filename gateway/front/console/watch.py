"""Looks at the gateway once in a while, for all who have the console open; not at all for nobody.

`Watch.run` sleeps until there is a reader, and then looks every `INTERVAL` and wakes the readers.
Each of them finds out what is new to itself, when it has sent what it has found before: so a reader
that is slow gets less often more, nothing waits for it in memory, and nobody waits for it.

Workers are looked at one by one only where a reader has opened their agent. Their memory costs
most: a look into /proc for each of their processes. So a few of them are measured each time, every
one in turn.
"""

from __future__ import annotations

import math
from collections import Counter
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

import trio

from gateway.errors import Overloaded, ShuttingDown
from gateway.exchange import Exchange
from gateway.front.console.agents import AgentView, Glances
from gateway.front.console.fleet import HostGlances
from gateway.front.console.journal import Noted
from gateway.front.console.workers import WorkerGlances, WorkerView
from gateway.workers.memory import measure_all

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import NoReturn

    from gateway.agents.dispatcher import Dispatcher
    from gateway.front.console.fleet import Fleet, HostView

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


class Reader:
    """An open stream. `opened` is the agent whose workers it shows one by one."""

    __slots__ = ("displaced", "opened", "owner")

    def __init__(self, owner: str, opened: str | None) -> None:
        self.owner = owner
        self.opened = opened
        self.displaced = False
        """Whether the stream has to end, for the sake of another key's."""

    def __repr__(self) -> str:
        return f"<Reader with the key {self.owner!r}>"


class Watch:
    """See the module's docstring."""

    def __init__(
        self, dispatcher: Dispatcher, noted: type[Noted] = Noted, fleet: Fleet | None = None
    ) -> None:
        """`noted` is what requests become while anybody looks."""
        self._dispatcher = dispatcher
        self._fleet = fleet
        self._noted = noted
        self._readers: list[Reader] = []
        """The oldest first."""
        self._wanted = trio.Event()
        """Whether somebody is there for whom there has been no look."""
        self._looked = trio.lowlevel.ParkingLot()
        self._glances = Glances()
        self._worker_glances = WorkerGlances()
        self._host_glances = HostGlances()
        self._memory: dict[tuple[str, int], int] = {}
        self._next_measured: tuple[str, int] = ("", 0)
        self.views: Mapping[str, AgentView] = {}
        self.workers: Mapping[str, Mapping[str, WorkerView]] = {}
        """Of the agents that readers have opened, once they have been looked at."""
        self.hosts: Mapping[str, HostView] = {}
        """Of a fleet."""
        self.current = False
        """Whether the views are those of the last `INTERVAL`."""
        self.closed = False
        """Whether the gateway ends: no more is looked at."""
        self.generation = 0
        """Another number when readers have to begin anew: rights have changed."""

    def __repr__(self) -> str:
        return f"<Watch of {len(self._readers)} readers>"

    async def run(self) -> NoReturn:
        """Look while there are readers, until cancelled."""
        while True:
            await self._wanted.wait()
            with self._dispatcher.until_stop.scope() as scope:
                self._dispatcher.new_exchange = self._new_exchange
                try:
                    await self._look_while_watched()
                finally:
                    self._dispatcher.new_exchange = Exchange
            if scope.cancelled_caught:
                self.close()
                await trio.sleep_forever()
            self._memory.clear()
            self._host_glances.forget()

    async def _look_while_watched(self) -> None:
        while self._readers:
            self._wanted = trio.Event()
            await self._look()
            self.current = True
            self._looked.unpark_all()
            with trio.move_on_after(INTERVAL):
                await self._wanted.wait()
        self.current = False
        self._wanted = trio.Event()

    def _new_exchange(self, *args: Any, **options: Any) -> Exchange:
        """What a request becomes that is admitted now."""
        few = len(self._dispatcher.open) < MOST_NOTED
        return (self._noted if few else Exchange)(*args, **options)

    async def _look(self) -> None:
        agents = self._dispatcher.agents
        self.views = await self._glances.look(agents.values())
        if self._fleet is not None:
            self.hosts = await self._host_glances.look(self._fleet)
        opened = {
            reader.opened: agents.get(reader.opened)
            for reader in self._readers
            if reader.opened is not None
        }
        await self._measure(
            {
                (name, worker_id): pid
                for name, agent in opened.items()
                if agent is not None
                for worker_id, pid in agent.pids().items()
                if pid is not None
            }
        )
        self.workers = await self._worker_glances.look(opened, self._memory)

    async def _measure(self, pids: Mapping[tuple[str, int], int]) -> None:
        """Measure the next workers in turn."""
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
        if owner and self._count_by_owner()[owner] >= MOST_READERS_OF_KEY:
            raise Overloaded(
                f"{MOST_READERS_OF_KEY} streams of the console are open with this key",
                retry_after=5,
            )
        if len(self._readers) >= MOST_READERS and self._least_entitled(owner) is None:
            raise Overloaded(f"{MOST_READERS} streams of the console are open", retry_after=5)

    def _count_by_owner(self) -> Counter[str]:
        return Counter(reader.owner for reader in self._readers)

    def _least_entitled(self, owner: str) -> Reader | None:
        """The reader whose place another key's may take where all are taken: the oldest of the key
        with the most, if that has still no fewer afterwards. So every key gets its share, and none
        takes another's place only to lose it again."""
        counts = self._count_by_owner()
        most, count = counts.most_common(1)[0]
        if count < counts[owner] + 2:
            return None
        return next(reader for reader in self._readers if reader.owner == most)

    @contextmanager
    def reader(self, owner: str, opened: str | None = None) -> Iterator[Reader]:
        """Have the gateway looked at meanwhile, and the workers of the agent `opened`."""
        if len(self._readers) >= MOST_READERS:
            displaced = self._least_entitled(owner)
            if displaced is not None:
                displaced.displaced = True
                self._readers.remove(displaced)
        reader = Reader(owner, opened)
        self._readers.append(reader)
        if not self.current or (opened is not None and opened not in self.workers):
            self._wanted.set()
        try:
            yield reader
        finally:
            if not reader.displaced:
                self._readers.remove(reader)

    async def next_look(self) -> None:
        """Wait for the next look, or for `closed`, which may have come while a step was sent."""
        if self.closed:
            await trio.lowlevel.checkpoint()
        else:
            await self._looked.park()
