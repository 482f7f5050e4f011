"""Where conversations are, as one front knows it, and where new ones go. It may be wrong: hosts own
them (`ownership`), and say so. Pure."""

from __future__ import annotations

import math
from collections import OrderedDict
from hashlib import sha256
from typing import TYPE_CHECKING

from gateway.fleet.subjects import digest_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.fleet.subjects import Peer

REMEMBERED = 10_000
"""Conversations of one agent; the longest unused is forgotten first. As many as an agent's pool
remembers."""

_DIGEST_BYTES = 16


def digests(data: bytes) -> list[bytes]:
    """Those of an announcement (`Subjects.owned`); none if it is not one."""
    if len(data) % _DIGEST_BYTES:
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


def ranked(session: str, hosts: Mapping[Peer, int]) -> list[Peer]:
    """Which of these hosts is to get a conversation that nobody has, the first before the others:
    every front finds the same (weighted rendezvous hashing). The weights are capacities."""
    digest = digest_of(session)

    def score(host: Peer) -> float:
        drawn = int.from_bytes(sha256(digest + str(host).encode()).digest()[:6], "big")
        return -max(hosts[host], 1) / math.log((drawn + 0.5) / 2**48)

    return sorted(hosts, key=score, reverse=True)
