"""The exchange of a request that came from a front: nobody waits for it in a task of its own.

`gateway.exchange.Exchange` wakes the one who waits for it. A host has thousands of requests and one
task per front, which is told which of them have changed, and looks at them together.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from gateway.exchange import CHUNK_COST, Exchange

if TYPE_CHECKING:
    from collections.abc import Callable


MOST_SPILLED = 16 * 1024 * 1024
"""Bytes of one stream's words that wait here while its front is asked to take them. A worker writes
some 100 MB/s, so this is more than a tenth of a second."""


class ForwardedExchange(Exchange):
    """See the module's docstring.

    `changed` is called when there are words, and at the end; `see` with each deadline that may be
    earlier than the ones before; `hurry` when others need the worker, see `spill`. They are called
    from within a step of the agent's supervisor, and so must not call it. None is called before
    `watch`.
    """

    __slots__ = ("_changed", "_hurries", "_hurry", "_see")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._changed: Callable[[], None] | None = None
        self._see: Callable[[float], None] | None = None
        self._hurry: Callable[[], object] | None = None
        self._hurries = False

    def watch(
        self,
        changed: Callable[[], None],
        see: Callable[[float], None],
        hurry: Callable[[], object] | None = None,
    ) -> None:
        """Call these from now on, and for what has happened until now."""
        self._changed, self._see, self._hurry = changed, see, hurry
        if self.ended or self.buffered_bytes:
            changed()
        if not self.ended:
            see(self.deadline)

    @property
    def deadline(self) -> float:
        """When the next of its clocks runs out, in running time; infinity once it has ended."""
        return math.inf if self.ended else self._deadline()[1]

    def spill(self) -> bool:
        """As `Exchange.spill`: only the front knows whether the words can be taken soon. It is
        asked once, and has `MOST_SPILLED` bytes of time for its answer."""
        if self._hurry is None or self.buffered_bytes > MOST_SPILLED:
            return False
        if not self._hurries:
            self._hurries = True
            self._hurry()
        return True

    async def judge(self) -> None:
        """End the exchange if a clock has run out, once what happened in time is known."""
        if not self.ended:
            await self._judge()

    @property
    def has_to_be_checked(self) -> bool:
        """Whether `check_late` is due. Not while a worker only has it: what that one declares, and
        the input is checked against, comes before its first word."""
        return self.late_check is not None and (self.buffered_bytes > 0 or self.ended)

    async def check_late(self) -> None:
        """Do what is to be done before the answer is given: an error of it ends the exchange."""
        if self.late_check is not None:
            await self._check_late()

    def take_within(self, most: int) -> list[bytes]:
        """Take words that cost at most so many bytes, each with `CHUNK_COST`, in order."""
        if self.buffered_bytes <= most:
            return self.take()
        size = count = 0
        for word in self._words:
            size += len(word) + CHUNK_COST
            if size > most:
                break
            count += 1
        return self._take_first(count)

    def take_one(self) -> list[bytes]:
        """Take the first word, whatever it costs."""
        return self._take_first(1)

    def _take_first(self, count: int) -> list[bytes]:
        taken = self._words[:count]
        del self._words[:count]
        self._joined = 0
        self.buffered_bytes -= sum(map(len, taken)) + CHUNK_COST * len(taken)
        if not self.full:
            self._make_room()
        return taken

    def _enter(self, *args: Any) -> None:
        super()._enter(*args)
        if self._see is not None and not self.ended:
            self._see(self.deadline)
            if self.call.stream and self._changed is not None:
                self._changed()  # a worker has it: it may be long until its first word

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed()
