"""How much of agents' descriptions the hosts may have a front read and hold. Pure.

A front holds one description of each agent, and what is made of its schemas for `/openapi.json`,
MCP and the console: up to twenty times their bytes, and 0.4 s of work for each MiB. A host may have
a thousand agents, describe each with half a MiB, and describe them differently with every beat. So
there is a bound on what is held, and one on what is read:

- Descriptions *held* are counted for the host that gave them: `MOST_OF_NAME`, and `MOST_IN_ALL`
  for everybody. What does not fit is not taken: the agent stays as it was described before.
- Descriptions *read* are paid from a credit, which is refilled with `REFILL` bytes a second.
  Without credit nothing is read. Nothing breaks meanwhile: a host checks inputs itself where the
  front does not know its revision.

Both are counted by the hosts' name, which is what a user of NATS may speak for: a process that
starts over is another one.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

MOST_OF_NAME = 16 * 1024 * 1024
"""Bytes of the descriptions of hosts of one name: 1,000 agents with 16 KiB each."""

MOST_IN_ALL = 64 * 1024 * 1024

MOST_AGENTS_OF_NAME = 1000
"""Agents that were described by hosts of one name: half of what a front has room for."""

CREDIT = 2 * MOST_OF_NAME
"""Bytes that are read at once: of hosts of one name, one may replace the other."""

REFILL = 256 * 1024
"""Bytes a second."""

COST = 4 * 1024
"""Bytes that reading a description counts beside its own: 0.1 ms."""

MOST_NAMES = 1000
"""That are remembered because they have spent credit."""


class _Held(NamedTuple):
    name: str
    """Of the host that gave it."""
    size: int


class Budget:
    """See the module's docstring. Times are running time in seconds."""

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}
        self._sizes: Counter[str] = Counter()
        """Bytes that are held, by the names of hosts."""
        self._agents: Counter[str] = Counter()
        self._credits: dict[str, tuple[float, float]] = {}
        """What names had, and when; the last that was spent is last. Who is not here has all."""

    def __repr__(self) -> str:
        return f"<Budget: {len(self._held)} descriptions, {self._sizes.total()} bytes>"

    # Reading

    def has_credit(self, name: str, now: float) -> bool:
        """Whether a description of a host of this name may be read."""
        return self._credit(name, now) > 0

    def spend(self, name: str, size: int, now: float) -> bool:
        """Pay for reading so many bytes; False: they must not be read."""
        credit = self._credit(name, now)
        if credit <= 0:
            return False
        self._credits.pop(name, None)
        self._credits[name] = (credit - size - COST, now)
        if len(self._credits) > MOST_NAMES:
            del self._credits[next(iter(self._credits))]
        return True

    def _credit(self, name: str, now: float) -> float:
        had, at = self._credits.get(name, (CREDIT, now))
        return min(CREDIT, had + (now - at) * REFILL)

    # Holding

    def hold(self, agent: str, name: str, size: int) -> str | None:
        """Hold a description of an agent instead of the one before, if there is room; else why
        there is none: a sentence."""
        before = self._held.get(agent)
        freed = 0 if before is None else before.size
        own = before is not None and before.name == name
        if self._sizes[name] - (freed if own else 0) + size > MOST_OF_NAME:
            return f"hosts of one name describe their agents with {MOST_OF_NAME >> 20} MiB at most"
        if self._agents[name] - own >= MOST_AGENTS_OF_NAME:
            return f"hosts of one name have {MOST_AGENTS_OF_NAME} agents at most"
        if self._sizes.total() - freed + size > MOST_IN_ALL:
            return f"all agents are described with {MOST_IN_ALL >> 20} MiB at most"
        self.forget(agent)
        self._held[agent] = _Held(name, size)
        self._sizes[name] += size
        self._agents[name] += 1
        return None

    def forget(self, agent: str) -> None:
        """The agent is not served any more."""
        held = self._held.pop(agent, None)
        if held is not None:
            for counted, size in ((self._sizes, held.size), (self._agents, 1)):
                counted[held.name] -= size
                if not counted[held.name]:
                    del counted[held.name]
