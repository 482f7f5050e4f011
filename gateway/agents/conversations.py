"""Which worker each conversation of one agent was last handed to.

A conversation is bound to its worker by memory alone: when the worker is gone, what it knew of the
conversation is gone too, and the client is told (`X-Agent-Session: lost`).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

    from gateway.exchange import Session

_REMEMBERED = 10_000
"""How many conversations are remembered, the longest silent forgotten first: about 1 MiB per agent,
and 4 MiB if callers choose the longest ids. A forgotten conversation that returns counts as new."""

_GONE = 0
"""Stands for every worker of an earlier pool; the ids of workers are greater."""


class Conversations:
    """A bounded map from conversations to the ids of their workers."""

    def __init__(self) -> None:
        self._workers: OrderedDict[Hashable, int] = OrderedDict()
        self._counts: dict[int, int] = {}
        """How many conversations each worker has. None of these counts is zero."""

    def worker_of(self, conversation: Hashable) -> int | None:
        """The worker that the conversation was last handed to; it may be gone."""
        return self._workers.get(conversation)

    def count(self, worker_id: int) -> int:
        """How many conversations were last handed to a worker."""
        return self._counts.get(worker_id, 0)

    def hand_over(self, conversation: Hashable, worker_id: int) -> Session:
        """Note that the conversation goes on at a worker; returns what it finds there."""
        before = self._workers.get(conversation)
        self._workers[conversation] = worker_id
        if before == worker_id:
            self._workers.move_to_end(conversation)
            return "kept"
        self._counts[worker_id] = self._counts.get(worker_id, 0) + 1
        if before is not None:
            self._workers.move_to_end(conversation)
            self._leave(before)
            return "lost"
        if len(self._workers) > _REMEMBERED:
            self._leave(self._workers.popitem(last=False)[1])
        return "new"

    def inherit(self, other: Conversations) -> None:
        """Know the conversations of a pool whose place this one takes. None of its workers has
        them: each that goes on here is lost to its worker there."""
        if other._workers:
            self._workers = OrderedDict.fromkeys(other._workers, _GONE)
            self._counts[_GONE] = len(self._workers)

    def displace(self, conversation: Hashable) -> int | None:
        """Another process has had the conversation since: to this one it is lost. Returns the
        worker that it was last handed to."""
        before = self._workers.get(conversation)
        if before != _GONE:
            self.hand_over(conversation, _GONE)
        return before

    def _leave(self, worker_id: int) -> None:
        self._counts[worker_id] -= 1
        if not self._counts[worker_id]:
            del self._counts[worker_id]
