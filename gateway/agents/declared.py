"""What an agent's workers have declared of themselves, and which requests that rules out.

Every worker of an agent runs the same command, so what the last one declared counts for the next.
Where that turns out to be wrong, the worker's link says the same of its own worker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.errors import HandlerNotImplemented
from gateway.needs import unmet_needs

if TYPE_CHECKING:
    from gateway.call import Call
    from protocol import Ready


class Declared:
    """The last declaration of one agent's workers."""

    def __init__(self) -> None:
        self.ready: Ready | None = None
        """None before the first worker has spoken, and if the last one has no handshake."""
        self._known = False
        """Whether any worker has spoken."""

    def heard(self, ready: Ready | None) -> None:
        """A worker's first line has come."""
        self.ready, self._known = ready, True

    def check(self, call: Call) -> None:
        """Raises HandlerNotImplemented and InvalidRequest."""
        if self.ready is not None and call.method not in self.ready.handlers:
            raise HandlerNotImplemented(f"agent {call.agent!r} has no {call.method} handler")
        if call.needs and self._known:
            error = unmet_needs(call.agent, call.needs, self.ready)
            if error is not None:
                raise error
