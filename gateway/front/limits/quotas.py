"""One table of limits, with what is taken of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.front.limits.places import Places

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.config import LimitSettings
    from gateway.front.limits.places import Owner
    from gateway.front.limits.rates import Rate


class Quota:
    """What one agent may be asked for, or what may be asked with one key."""

    def __init__(
        self,
        owner: Owner,
        settings: LimitSettings,
        rates_of: Callable[[Owner, LimitSettings], tuple[Rate, ...]],
    ) -> None:
        """`rates_of` makes rates of which nothing was counted yet."""
        self.owner = owner
        self._rates_of = rates_of
        self.rates: tuple[Rate, ...] = ()
        self.places: Places | None = None
        self.change(settings)

    def __repr__(self) -> str:
        return f"<Quota of {self.owner}: {self.policies or 'of sizes only'}>"

    def change(self, settings: LimitSettings) -> None:
        """These are the limits from now on. What was counted for those that stay goes on."""
        counted = {rate.policy: rate for rate in self.rates}
        rates = self._rates_of(self.owner, settings)
        self.rates = tuple(counted.pop(rate.policy, rate) for rate in rates)
        for rate in counted.values():
            rate.forget()
        if not settings.concurrent:
            self.places = None
        elif self.places is None:
            self.places = Places(self.owner, settings.concurrent)
        else:
            self.places.change(settings.concurrent)
        self.most_body = settings.max_body_bytes
        """Bytes; infinity for no limit."""
        self.body_setting = f"{self.owner.table}.max_body"
        places = () if self.places is None else (self.places,)
        self.policies = ", ".join(each.policy for each in (*self.rates, *places))
        """As `RateLimit-Policy` lists them; empty where only sizes are limited."""

    def left(self, now: float) -> list[str]:
        """What is left of each policy, as `RateLimit` lists it. `now` is on trio's clock."""
        left = [rate.left(now) for rate in self.rates]
        if self.places is not None:
            left.append(self.places.left())
        return left
