"""Requests in progress; and what all limits have in common."""

from __future__ import annotations

from typing import Literal, NamedTuple

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
    """For requests in progress, to one agent or with one key.

    A number, and no `trio.CapacityLimiter`: nobody waits for a place, and permits know whose it is.
    """

    def __init__(self, owner: Owner, most: int) -> None:
        self._owner = owner
        self._name = f'"{owner.kind}-concurrent"'
        self.most = most
        self.taken = 0
        """`Permit` counts who takes one, and who gives it back."""
        self.left_form = f"{self._name};r=%d"
        """What is left, as `RateLimit` lists it, for `left`."""

    def __repr__(self) -> str:
        return f"<Places of {self._owner}: {self.taken} of {self.most}>"

    @property
    def policy(self) -> str:
        """As `RateLimit-Policy` lists it."""
        return f'{self._name};q={self.most};qu="concurrent-requests"'

    def change(self, most: int) -> None:
        """So many there are from now on. Who has one keeps it."""
        self.most = most

    def has_room(self) -> bool:
        """Whether one more request is allowed now."""
        return self.taken < self.most

    def met(self) -> Met:
        """The limit, where it has no room."""
        sentence = f"{self._owner} allows {requests(self.most)} at a time"
        setting = f"{self._owner.table}.concurrent"
        return Met(sentence, setting, FULL_SECONDS, self.policy, self.left_form % self.left)

    @property
    def left(self) -> int:
        """How many are free."""
        # More are taken than there are, once there are fewer than before.
        return self.most - self.taken if self.taken < self.most else 0
