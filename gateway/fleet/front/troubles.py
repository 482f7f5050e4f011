"""What the log is told of hosts: each kind of trouble now and then, and their coming and going so
often at most, since a host that was broken into can cause either as often as it likes. It can speak
for hosts of its own name alone, so those of other names are told of whatever it does."""

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

MOST_NEWS = 64
"""Lines about the coming and going of hosts of one name, within `REMIND_SECONDS`: a name has 32
hosts at most, which may all be replaced."""

MOST_NAMES = 1000
"""That are remembered. The one that was first told of is forgotten for another."""

MOST_SHOWN = 140
"""Characters of what should be a host's name."""


class Troubles:
    """See the module's docstring."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}
        """When the log was last told of each kind, in running time."""
        self._news: dict[str, tuple[float, int]] = {}
        """By the name of hosts: since when lines are counted, in running time, and how many."""

    def __repr__(self) -> str:
        return f"<Troubles {list(self._told)}>"

    def warn(self, kind: str, peer: Peer, message: str, **fields: str) -> None:
        """Log a warning about a host, unless one of this kind was logged a moment ago."""
        now = clock.now()
        if now - self._told.get(kind, -math.inf) > REMIND_SECONDS:
            self._told[kind] = now
            logs.event(log, logging.WARNING, message, host=str(peer)[:MOST_SHOWN], **fields)

    def news(self, level: int, peer: Peer, message: str) -> None:
        """Log that a host has come or gone, unless hosts of its name do so all the time."""
        now = clock.now()
        since, count = self._news.get(peer.name, (now, 0))
        if now - since > REMIND_SECONDS:
            since, count = now, 0
            del self._news[peer.name]
        if count >= MOST_NEWS:
            message = f"hosts of one name come and go: more than {MOST_NEWS} times is not logged"
            self.warn("news", peer, message)
            return
        self._news[peer.name] = (since, count + 1)
        if len(self._news) > MOST_NAMES:
            del self._news[next(iter(self._news))]
        logs.event(log, level, message, host=str(peer))
