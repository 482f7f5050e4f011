"""Requests in progress, counted by trio; and what all limits have in common."""

from __future__ import annotations

from typing import Literal, NamedTuple

import trio

Kind = Literal["agent", "key"]

FULL_SECONDS = 1.0
"""After which to try again where too many requests are in progress: nobody knows when one ends."""


class Met(NamedTuple):
    """A limit that leaves no room for one more request."""

    sentence: str
    setting: str
    """Its path in the configuration."""
    wait: float
    """Seconds until it is worth trying again."""
    policy: str
    """As `RateLimit-Policy` lists it."""
    left: str
    """As `RateLimit` lists it."""


class Owner(NamedTuple):
    """Whose limits they are."""

    kind: Kind
    name: str

    @property
    def table(self) -> str:
        """The path of the settings."""
        return f"{self.kind}s.{self.name}.limits"

    def __str__(self) -> str:
        return f"the {self.kind} {self.name!r}"


def requests(number: int) -> str:
    return "1 request" if number == 1 else f"{number} requests"


class Places:
    """For requests in progress, to one agent or with one key."""

    def __init__(self, owner: Owner, most: int) -> None:
        self._owner = owner
        self._name = f'"{owner.kind}-concurrent"'
        self._limiter = trio.CapacityLimiter(most)
        self.left_form = f"{self._name};r=%d"
        """What is left, as `RateLimit` lists it, for the number that `left` is."""

    @property
    def policy(self) -> str:
        """As `RateLimit-Policy` lists it."""
        return f'{self._name};q={self._limiter.total_tokens};qu="concurrent-requests"'

    def change(self, most: int) -> None:
        """So many there are from now on. Who has one keeps it."""
        self._limiter.total_tokens = most

    @property
    def has_room(self) -> bool:
        """Whether one is free."""
        return self._limiter.available_tokens >= 1

    def met(self) -> Met:
        """The limit, where it has no room."""
        sentence = f"{self._owner} allows {requests(int(self._limiter.total_tokens))} at a time"
        setting = f"{self._owner.table}.concurrent"
        return Met(sentence, setting, FULL_SECONDS, self.policy, self.left_form % self.left)

    @property
    def left(self) -> int:
        """How many are free."""
        # Fewer than none, once there are fewer places than were taken before.
        return max(0, int(self._limiter.available_tokens))

    def take(self, permit: object) -> None:
        self._limiter.acquire_on_behalf_of_nowait(permit)

    def give_back(self, permit: object) -> None:
        self._limiter.release_on_behalf_of(permit)
