"""Where conversations are, as one front knows it. It may be wrong: hosts own them, and say so
(`ownership`). Pure."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from gateway.fleet.subjects import digest_of

if TYPE_CHECKING:
    from gateway.fleet.subjects import Peer

REMEMBERED = 10_000
"""Conversations of one agent; the longest unused is forgotten first. As many as an agent's pool
remembers."""

MOST_ANNOUNCED = 64
"""Conversations in one announcement: a host says of each when it has come to own it."""

_DIGEST_BYTES = 16


def digests(data: bytes) -> list[bytes]:
    """Those of an announcement (`Subjects.owned`); none if it is not one."""
    if len(data) % _DIGEST_BYTES or len(data) > MOST_ANNOUNCED * _DIGEST_BYTES:
        return []
    return [data[at : at + _DIGEST_BYTES] for at in range(0, len(data), _DIGEST_BYTES)]


class Lookup:
    """The conversations of a fleet as one front knows them."""

    def __init__(self) -> None:
        self._agents: dict[str, OrderedDict[bytes, Peer]] = {}

    def heard(self, agent: str, host: Peer, data: bytes) -> None:
        """A host that may serve the agent has said what it has come to own (`Subjects.owned`)."""
        for digest in digests(data):
            self._note(agent, digest, host)

    def note(self, agent: str, session: str, host: Peer) -> None:
        """A host has given a request of the conversation to a worker, or may have. That a host is
        said to own it (`Refused.owner`) is no reason."""
        self._note(agent, digest_of(session), host)

    def last(self, agent: str, session: str) -> Peer | None:
        """The host that had it last, which may be gone: `Submit.had`, and whom to ask first."""
        known = self._agents.get(agent)
        return None if known is None else known.get(digest_of(session))

    def forget(self, agent: str) -> None:
        """Nobody has the agent any more."""
        self._agents.pop(agent, None)

    def _note(self, agent: str, digest: bytes, host: Peer) -> None:
        known = self._agents.setdefault(agent, OrderedDict())
        known[digest] = host
        known.move_to_end(digest)
        if len(known) > REMEMBERED:
            known.popitem(last=False)
