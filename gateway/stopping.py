"""Ends, when the gateway stops, what waits for no agent: a body that is being read, or a stream of
whatever news there are.

MCP's streams end earlier, when the gateway begins to drain, so that their clients go elsewhere.
Requests that agents have been given end with their agents. Whatever else would wait for longer than
a response takes to be written must be in a scope of `UntilStop`: otherwise it is cut together with
its connection, without an end that its client could tell from a failure.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator


class UntilStop:
    """Scopes that last until the gateway stops. One that is entered later is cancelled at once."""

    def __init__(self) -> None:
        self.stopped = False
        self._scopes: set[trio.CancelScope] = set()

    def __repr__(self) -> str:
        return f"<UntilStop {'stopped' if self.stopped else f'{len(self._scopes)} scopes'}>"

    @contextmanager
    def scope(self, deadline: float = math.inf) -> Iterator[trio.CancelScope]:
        """A scope that is cancelled by the stop, or at a deadline on trio's clock."""
        with trio.CancelScope(deadline=deadline) as scope:
            if self.stopped:
                scope.cancel()
            self._scopes.add(scope)
            try:
                yield scope
            finally:
                self._scopes.discard(scope)

    def stop(self) -> None:
        """Cancel every scope, now and from now on."""
        self.stopped = True
        for scope in self._scopes:
            scope.cancel()
