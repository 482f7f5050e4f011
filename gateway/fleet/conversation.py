"""A conversation as a host knows it: the state of `ownership`, which alone changes it."""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.fleet.subjects import Peer


class Elsewhere(NamedTuple):
    """A claim has failed."""

    owner: Peer | None
    """Who has the conversation, or is about to; None: somebody who does not answer."""


class State(Enum):
    AWAY = "away"
    CLAIMING = "claiming"
    OWNED = "owned"


class Conversation:
    """One that this host has, had, or claims. For others it is what `Claims.leave` needs."""

    __slots__ = (
        "agent",
        "asked",
        "beats",
        "digest",
        "had",
        "known",
        "rank",
        "session",
        "state",
        "subscription",
        "sure",
        "token",
        "users",
        "waiters",
    )

    def __init__(self, agent: str, session: str, digest: bytes) -> None:
        self.agent = agent
        self.session = session
        self.digest = digest
        self.state = State.AWAY
        self.users = 0
        """Requests that were told that the host has it, and have not left."""
        self.waiters: list[Callable[[Conversation | Elsewhere], None]] = []
        self.known = False
        """Whether it was owned before: the pool may know it."""
        self.sure = False
        """Whether everything that others said of it since was heard."""
        self.had: str | None = None
        self.subscription = 0
        self.token = ""
        """Of the claim; answers to another one do not count."""
        self.rank = 0
        self.asked = 0
        self.beats = 0

    def __repr__(self) -> str:
        return f"<Conversation of {self.agent} {self.state.value}, {self.users} requests>"


class Agent:
    """The conversations of one agent."""

    def __init__(self) -> None:
        self.subscription = 0
        self.ours: OrderedDict[bytes, Conversation] = OrderedDict()
        """Those that no other host has had since, as far as is known; the last used is last."""
        self.elsewhere: OrderedDict[bytes, Peer] = OrderedDict()
