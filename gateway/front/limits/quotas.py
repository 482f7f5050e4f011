"""One table of limits, with what is taken of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.front.limits.places import Places
from gateway.front.limits.rates import rates_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.config import LimitSettings
    from gateway.front.limits.places import Met, Owner
    from gateway.front.limits.rates import Rate


class Quota:
    """What one agent may be asked for, or what may be asked with one key."""

    def __init__(self, owner: Owner, settings: LimitSettings) -> None:
        self.owner = owner
        self.rates: Sequence[Rate] = ()
        self.places: Places | None = None
        self.change(settings)

    def __repr__(self) -> str:
        return f"<Quota of {self.owner}: {self.policies.decode() or 'of sizes only'}>"

    def change(self, settings: LimitSettings) -> None:
        """These are the limits from now on. What was counted for those that stay goes on."""
        counted = {rate.policy: rate for rate in self.rates}
        rates = rates_of(self.owner, settings)
        self.rates = [counted.get(rate.policy, rate) for rate in rates]
        if not settings.concurrent:
            self.places = None
        elif self.places is None:
            self.places = Places(self.owner, settings.concurrent)
        else:
            self.places.change(settings.concurrent)
        self.most_body = settings.max_body_bytes
        """Bytes; infinity for no limit."""
        self.body_setting = f"{self.owner.table}.max_body"
        limits: list[Rate | Places] = [*self.rates]
        if self.places is not None:
            limits.append(self.places)
        self.policies = ", ".join(each.policy for each in limits).encode()
        """As `RateLimit-Policy` lists them; empty where only sizes are limited."""
        self._left_form = ", ".join(each.left_form for each in limits).encode()

    def has_room(self, *, in_progress: bool) -> bool:
        """Whether one more request is allowed, which is to be one of those `in_progress`."""
        for rate in self.rates:
            if len(rate.times) >= rate.most and not rate.has_room():
                return False
        places = self.places
        return not in_progress or places is None or places.taken < places.most

    def met(self, now: float, *, in_progress: bool) -> list[Met]:
        """The limits that leave no room. `now` is on trio's clock."""
        met = [rate.met(now) for rate in self.rates if not rate.has_room()]
        places = self.places
        if in_progress and places is not None and places.taken >= places.most:
            met.append(places.met())
        return met

    def left(self, now: float) -> bytes:
        """What is left, as `RateLimit` lists it."""
        left: tuple[int, ...] = ()
        for rate in self.rates:
            left += rate.left(now)
        if self.places is not None:
            left += (self.places.left,)
        return self._left_form % left
