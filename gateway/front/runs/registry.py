"""All runs of one gateway: which are kept, and which are forgotten when there are too many.

Pure: decisions over plain state. Time is running time (`gateway.clock`) and is handed in; a run is
known by what `Kept` says of it.

Theory of operation
-------------------

Three bounds hold together.

*Time.* A run is forgotten `ttl` seconds after its end. One that goes on is not: the agent's clocks
end it.

*Number.* At most `most_runs`. A new run beyond that takes the place of one that has ended, of the
caller (by the name of its key) that has the most of these: of the one that was read first, else of
the one that ended first. So whoever starts many displaces their own. But a run that was started
under an Idempotency-Key keeps its place for its time, because forgetting the key would let the
agent run a second time for the same request. Where all places are taken by those and by what goes
on, a new run is refused. Keys take at most three quarters of the places: callers that use up keys
refuse one another, and nobody who sends none.

*Memory.* What runs keep of their answers is at most `most_bytes`. Beyond that it is freed down to
seven eighths, so that looking for what to free is rare, however small the answers are that come. It
is taken from the *holder*, an agent for a caller, that holds the most at that moment, again and
again: one that holds less than its equal share loses nothing to one that floods. Of a holder's
runs, those that nobody reads at the moment come before those that somebody reads; those that have
ended before those that go on (of which only the oldest events are dropped); those that were read
before those that were not; and older ones before younger ones. A whole answer that is being sent is
left alone: it is bounded as the answers are that are no runs.

What a run under an Idempotency-Key kept may be freed like any other's; its record stays, and says
that the answer is gone.
"""

from __future__ import annotations

import math
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from gateway.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

KEYLESS_SHARE = 4
"""A quarter of the places is for runs without an Idempotency-Key."""

TRIMMED_EIGHTHS = 7
"""How much of the memory is kept when it was exceeded."""


class Kept(Protocol):
    """What is known of a run here."""

    @property
    def token(self) -> str:
        """Its id."""

    @property
    def agent(self) -> str:
        """The name of its agent."""

    @property
    def owner(self) -> str:
        """The name of the key that it was started with; empty where there are no keys."""

    @property
    def key(self) -> bytes | None:
        """A digest of the Idempotency-Key and all that it is bound to."""

    @property
    def keys(self) -> Collection[bytes]:
        """That one, and those of the runs whose place it has taken."""

    @property
    def ended_at(self) -> float:
        """Infinity while it goes on."""

    @property
    def attached(self) -> bool:
        """Whether anybody reads it."""

    @property
    def was_read(self) -> bool:
        """Whether anybody has read it to its end."""

    @property
    def cost(self) -> int:
        """The bytes that it keeps of its answer."""

    def shed(self, cost: int) -> None:
        """Free at least so much, or all that can be: everything, once it has ended."""

    def forget(self) -> None:
        """Free everything."""


K = TypeVar("K", bound=Kept)

Holder = tuple[str, str]
"""An agent, and the owner of runs of it."""


class _Evictable(Generic[K]):
    """One owner's runs that have ended and have no key, in the order in which their places are
    taken."""

    def __init__(self) -> None:
        self.read: dict[K, None] = {}
        self.unread: dict[K, None] = {}

    def __len__(self) -> int:
        return len(self.read) + len(self.unread)

    @property
    def first(self) -> K:
        return next(iter(self.read or self.unread))


class Registry(Generic[K]):
    """See the module's docstring."""

    def __init__(self, *, most_runs: int, most_bytes: int, ttl: float) -> None:
        self._bound(most_runs, most_bytes, ttl)
        self._runs: dict[str, K] = {}
        self._keys: dict[bytes, K] = {}
        self._held: list[bool] = []
        """The places that are held for runs that are about to begin: whether each has a key."""
        self._ended: dict[K, None] = {}
        """The runs that have ended, in the order of their ends."""
        self._evictable: dict[str, _Evictable[K]] = {}
        """By owner; none of them is empty."""
        self._costs: dict[K, int] = {}
        """What each run costs that keeps anything. Some are forgotten already, and still read."""
        self._sizes: dict[Holder, int] = {}
        """What each holder's runs cost."""
        self.size = 0
        """Bytes that all runs keep of their answers."""

    def _bound(self, most_runs: int, most_bytes: int, ttl: float) -> None:
        self._most_runs = most_runs
        self._most_keys = most_runs - most_runs // KEYLESS_SHARE
        self._most_bytes = most_bytes
        self._ttl = ttl

    def change(self, *, most_runs: int, most_bytes: int, ttl: float) -> None:
        """Hold other bounds from now on. Runs beyond a smaller number are forgotten in time."""
        self._bound(most_runs, most_bytes, ttl)
        self._trim()

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[K]:
        return iter(self._runs.values())

    def __repr__(self) -> str:
        return f"<Registry {len(self._runs)} runs, {len(self._ended)} ended, {self.size} bytes>"

    @property
    def ended_count(self) -> int:
        """How many of the runs have ended."""
        return len(self._ended)

    @property
    def next_expiry(self) -> float:
        """When the next run is to be forgotten; infinity if none has ended."""
        return next(iter(self._ended)).ended_at + self._ttl if self._ended else math.inf

    def expires_at(self, run: K) -> float:
        """When a run is forgotten; infinity while it goes on."""
        return run.ended_at + self._ttl

    def find(self, token: str) -> K | None:
        return self._runs.get(token)

    def find_by_key(self, key: bytes) -> K | None:
        return self._keys.get(key)

    def make_place(self, now: float, *, has_key: bool) -> None:
        """Make sure that one more run has a place, with a key or without. Raises Overloaded."""
        self.expire(now)
        if has_key and len(self._keys) + sum(self._held) >= self._most_keys:
            raise self._full("are kept for their Idempotency-Keys", self._most_keys, now)
        if len(self._runs) + len(self._held) < self._most_runs:
            return
        if self._evictable:
            self._remove(max(self._evictable.values(), key=len).first)
            return
        raise self._full("go on or are kept for their Idempotency-Keys", self._most_runs, now)

    @contextmanager
    def place(self, now: float, *, has_key: bool) -> Iterator[None]:
        """As `make_place`, for a run that does not begin at once: nobody else takes the place while
        the block goes on, at whose end the run must have been added, or none begins."""
        self.make_place(now, has_key=has_key)
        self._held.append(has_key)
        try:
            yield
        finally:
            self._held.remove(has_key)

    def _full(self, what: str, most: int, now: float) -> Overloaded:
        return Overloaded(
            f"{most} runs {what}, the most that [server.runs] max allows; "
            f"those that have ended are kept for {self._ttl:g} s ([server.runs] ttl)",
            retry_after=max(self.next_expiry - now, 1.0) if self._ended else 1.0,
        )

    def add(self, run: K) -> None:
        """A run begins, for which there is a place."""
        self._runs[run.token] = run
        for key in run.keys:
            self._keys[key] = run

    def keys_of(self, run: K) -> list[bytes]:
        """The keys that are kept for a run. Requests under them are not to be run again."""
        return [key for key in run.keys if self._keys.get(key) is run]

    def replace(self, run: K) -> None:
        """A run that has ended is forgotten, and another one takes its id, and has its keys."""
        if run.token in self._runs:  # it may have made place for the other one
            self._remove(run)

    def forget_key(self, run: K) -> None:
        """The run's key may be used again: no worker has read its request."""
        if run.key is not None and self._keys.get(run.key) is run:
            del self._keys[run.key]
            if run in self._ended and not self._holds_key(run):
                self._let_go(run)

    def ended(self, run: K) -> None:
        """A run has ended, and will not change any more."""
        self._ended[run] = None
        if not self._holds_key(run):
            self._let_go(run)
        self.note_cost(run)

    def note_read(self, run: K) -> None:
        """A run that has ended was read to its end."""
        evictable = self._evictable.get(run.owner)
        if evictable is not None and run in evictable.unread:
            del evictable.unread[run]
            evictable.read[run] = None

    def note_left(self, run: K) -> None:
        """The last reader of a run has left."""
        if self._runs.get(run.token) is not run:
            self._free(run)
        # An answer that was being sent could not be freed, and can be now.
        self._trim()

    def note_cost(self, run: K) -> None:
        """What a run keeps has changed. Frees what exceeds the memory, perhaps of this run."""
        self._account(run)
        self._trim()

    def expire(self, now: float) -> None:
        """Forget the runs whose time is over."""
        while self._ended and now >= self.next_expiry:
            self._remove(next(iter(self._ended)))

    def _holds_key(self, run: K) -> bool:
        return bool(self.keys_of(run))

    def _let_go(self, run: K) -> None:
        """The place of a run may be taken from now on."""
        evictable = self._evictable.setdefault(run.owner, _Evictable())
        (evictable.read if run.was_read else evictable.unread)[run] = None

    def _account(self, run: K) -> None:
        cost = run.cost
        change = cost - self._costs.get(run, 0)
        self.size += change
        if cost:
            self._costs[run] = cost
        else:
            self._costs.pop(run, None)
        holder = _holder_of(run)
        size = self._sizes.get(holder, 0) + change
        if size:
            self._sizes[holder] = size
        else:
            self._sizes.pop(holder, None)

    def _trim(self) -> None:
        if self.size <= self._most_bytes:
            return
        aim = self._most_bytes * TRIMMED_EIGHTHS // 8
        candidates = _by_holder(self._costs)
        while candidates and (excess := self.size - aim) > 0:
            holder = max(candidates, key=lambda each: self._sizes[each])
            run = candidates[holder].popleft()
            if not candidates[holder]:
                del candidates[holder]
            above = self._sizes[holder] - aim // len(self._sizes)
            if above <= 0:
                break  # what exceeds the memory is being sent
            run.shed(min(excess, above))
            self._account(run)
            if run in self._ended and not run.cost and not self._holds_key(run):
                self._remove(run)

    def _remove(self, run: K) -> None:
        """Forget a run. One that is being read keeps what it has until its readers leave."""
        del self._runs[run.token]
        for key in self.keys_of(run):
            del self._keys[key]
        self._ended.pop(run, None)
        evictable = self._evictable.get(run.owner)
        if evictable is not None:
            evictable.read.pop(run, None)
            evictable.unread.pop(run, None)
            if not evictable:
                del self._evictable[run.owner]
        if not run.attached:
            self._free(run)

    def _free(self, run: K) -> None:
        run.forget()
        self._account(run)


def _holder_of(run: Kept) -> Holder:
    return run.agent, run.owner


def _by_holder(runs: Iterable[K]) -> dict[Holder, deque[K]]:
    """Each holder's runs, in the order in which memory is taken from them."""
    found: dict[Holder, deque[K]] = {}
    for run in sorted(runs, key=_reluctance):
        found.setdefault(_holder_of(run), deque()).append(run)
    return found


def _reluctance(run: Kept) -> tuple[bool, bool, bool, float]:
    """Sorts what is freed first to the front. Of equal ones, the older come first."""
    return run.attached, run.ended_at == math.inf, not run.was_read, run.ended_at
