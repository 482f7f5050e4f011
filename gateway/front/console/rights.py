"""What a caller may see. Pure; `gateway.front.auth` says what a caller is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from gateway.front.console.lines import AGENTS_WORDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.front.auth import Caller
    from gateway.front.console.lines import Line

WORKERS = "gateway.worker"


class Rights(Struct, frozen=True):
    """Those of one caller."""

    caller: Caller
    keys: bool
    """Whether callers need keys."""

    @property
    def owner(self) -> str | None:
        """Whose requests are shown; None: everybody's."""
        return self.caller.name if self.keys else None

    @property
    def may_call(self) -> Callable[[str], bool]:
        return self.caller.may_call

    def may_read(self, line: Line) -> bool:
        """Whether a line of the log concerns what the caller may see, and nobody else's words."""
        if not self.keys:
            return True
        if line.request is not None or line.key is not None:
            return line.key == self.caller.name
        if line.agent is not None:
            quotes = line.logger == AGENTS_WORDS or (line.logger == WORKERS and line.level > _INFO)
            return not quotes and self.caller.may_call(line.agent)
        return self.caller.agents is None


_INFO = 20
"""Of `logging`. From here on a line about a worker may quote a wrong answer."""
