"""What the log is told of trouble with hosts: each kind of it now and then, since a host that was
broken into could cause it as often as it likes."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

from gateway import clock
from gateway.observe import logs

if TYPE_CHECKING:
    from gateway.fleet.subjects import Peer

log = logging.getLogger("gateway.fleet")

REMIND_SECONDS = 30.0
"""Between two lines about one kind of trouble."""

MOST_SHOWN = 140
"""Characters of what should be a host's name."""


class Troubles:
    """See the module's docstring."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}
        """When the log was last told of each kind, in running time."""

    def __repr__(self) -> str:
        return f"<Troubles {list(self._told)}>"

    def warn(self, kind: str, peer: Peer, message: str, **fields: str) -> None:
        """Log a warning about a host, unless one of this kind was logged a moment ago."""
        now = clock.now()
        if now - self._told.get(kind, -math.inf) > REMIND_SECONDS:
            self._told[kind] = now
            logs.event(log, logging.WARNING, message, host=str(peer)[:MOST_SHOWN], **fields)
