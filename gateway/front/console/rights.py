"""What a caller may see. Pure; `gateway.front.auth` says what a caller is."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from gateway import clock
from gateway.front.console.lines import AGENTS_WORDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.front.auth import Caller
    from gateway.front.console.lines import Line

WORKERS = "gateway.worker"


class Moment(NamedTuple):
    """One moment on both clocks, in seconds."""

    running: float
    """Of `gateway.clock`."""
    day: float
    """Unix time."""

    @classmethod
    def now(cls) -> Moment:
        return cls(clock.now(), time.time())


ALWAYS = Moment(-math.inf, -math.inf)


class Rights(Struct, frozen=True):
    """Those of one caller."""

    caller: Caller
    keys: bool
    """Whether callers need keys."""
    since: Moment = ALWAYS
    """When the caller's key was made, if that was while the gateway runs. What was asked for with
    an earlier key of the same name was another's."""

    @property
    def owner(self) -> str | None:
        """Whose requests are shown; None: everybody's."""
        return self.caller.name if self.keys else None

    @property
    def may_call(self) -> Callable[[str], bool]:
        return self.caller.may_call

    def may_see(self, began: float) -> bool:
        """Whether a request of the caller's name that began then, in running time, is its own."""
        return began >= self.since.running

    def may_read(self, line: Line) -> bool:
        """Whether a line of the log concerns what the caller may see, and nobody else's words."""
        if not self.keys:
            return True
        if line.request is not None or line.key is not None:
            return line.key == self.caller.name and line.at >= self.since.day
        if line.agent is not None:
            quotes = line.logger == AGENTS_WORDS or (line.logger == WORKERS and line.level > _INFO)
            return not quotes and self.caller.may_call(line.agent)
        return self.caller.agents is None


_INFO = 20
"""Of `logging`. From here on a line about a worker may quote a wrong answer."""
