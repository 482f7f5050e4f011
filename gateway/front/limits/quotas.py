"""Tables of limits, with what is taken of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gateway import clock
from gateway.front.limits.places import Places
from gateway.front.limits.rates import rates_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.config import LimitSettings
    from gateway.front.limits.places import Owner
    from gateway.front.limits.rates import Rate


class Quota:
    """What one agent may be asked for, or what may be asked with one key."""

    def __init__(self, owner: Owner, settings: LimitSettings) -> None:
        self.owner = owner
        self.rates: Sequence[Rate] = ()
        self.places: Places | None = None
        self.change(settings)

    def __repr__(self) -> str:
        return f"<Quota of {self.owner}: {self.limits or 'of sizes only'}>"

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
        self.limits: list[Rate | Places] = [*self.rates]
        """Those on numbers of requests, in the order in which they are listed."""
        if self.places is not None:
            self.limits.append(self.places)


class Terms:
    """The limits of some quotas together: what holds for one kind of request. Made once and looked
    at by each request, and made again when settings change."""

    def __init__(self, quotas: Sequence[Quota]) -> None:
        self.limits = [each for quota in quotas for each in quota.limits]
        self.rates = [rate for quota in quotas for rate in quota.rates]
        self.places = [quota.places for quota in quotas if quota.places is not None]
        strictest = min(quotas, key=lambda quota: quota.most_body, default=None)
        self.most_body = math.inf if strictest is None else strictest.most_body
        self.body_setting = "" if strictest is None else strictest.body_setting
        self.policies = ", ".join(each.policy for each in self.limits).encode()
        """As `RateLimit-Policy` lists them; empty where only sizes are limited."""
        self._left_form = ", ".join(each.left_form for each in self.limits).encode()

    def __repr__(self) -> str:
        return f"<Terms {self.policies.decode() or 'of sizes only'}>"

    def left(self) -> bytes:
        """What is left, as `RateLimit` lists it."""
        now = clock.trio_now()
        left: tuple[int, ...] = ()
        for each in self.limits:
            left += each.left(now)
        return self._left_form % left


NO_TERMS = Terms(())
