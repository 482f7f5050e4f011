"""Tables of limits, with what is taken of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gateway import clock
from gateway.front.dialect import rate_limit_fields
from gateway.front.limits.places import Places
from gateway.front.limits.rates import rates_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.config import LimitSettings
    from gateway.front.dialect import Headers
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
        return f"<Quota of {self.owner}: {self.rates}, {self.places}>"

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


class Terms:
    """The limits of some quotas together: what holds for one kind of request. Made once and looked
    at by each request, and made again when settings change."""

    def __init__(self, quotas: Sequence[Quota]) -> None:
        self.rates = [rate for quota in quotas for rate in quota.rates]
        self.places = [quota.places for quota in quotas if quota.places is not None]
        limits: list[Rate | Places] = [*self.rates, *self.places]
        strictest = min(quotas, key=lambda quota: quota.most_body, default=None)
        self.most_body = math.inf if strictest is None else strictest.most_body
        self.body_setting = "" if strictest is None else strictest.body_setting
        self.policies = ", ".join(each.policy for each in limits).encode()
        """As `RateLimit-Policy` lists them; empty where only sizes are limited."""
        self._left_form = ", ".join(each.left_form for each in limits).encode()

    def __repr__(self) -> str:
        return f"<Terms {self.policies.decode() or 'of sizes only'}>"

    def fields(self) -> Headers:
        """What is left, as fields of a response."""
        if not self.policies:
            return []
        now = clock.trio_now()
        left: list[int] = []
        for rate in self.rates:
            left += rate.left(now)
        for places in self.places:
            left.append(places.left)
        return rate_limit_fields(self.policies, self._left_form % tuple(left))


NO_TERMS = Terms(())
