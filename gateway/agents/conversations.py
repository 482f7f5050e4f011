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
"""How many conversations are remembered, the longest silent forgotten first: about 1 MiB per agent.
A forgotten conversation that returns counts as new."""


class Conversations:
    """A bounded map from conversations to the ids of their workers."""

    def __init__(self) -> None:
        self._workers: OrderedDict[Hashable, int] = OrderedDict()

    def worker_of(self, conversation: Hashable) -> int | None:
        """The worker that the conversation was last handed to; it may be gone."""
        return self._workers.get(conversation)

    def hand_over(self, conversation: Hashable, worker_id: int) -> Session:
        """Note that the conversation goes on at a worker; returns what it finds there."""
        before = self._workers.pop(conversation, None)
        self._workers[conversation] = worker_id
        if len(self._workers) > _REMEMBERED:
            self._workers.popitem(last=False)
        if before is None:
            return "new"
        return "kept" if before == worker_id else "lost"
