"""What a request takes of its quotas, from its head to its end."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

import trio

from gateway.config import LimitSettings
from gateway.errors import RateLimited, RequestTooLarge
from gateway.front.dialect import rate_limit_fields
from gateway.front.limits.places import Owner
from gateway.front.limits.quotas import Quota

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.errors import GatewayError
    from gateway.front.dialect import Headers
    from gateway.front.limits.places import Kind, Met, Places
    from gateway.front.limits.rates import Rate, Rates

ByName: TypeAlias = Mapping[str, LimitSettings]


class Limits:
    """The quotas of all agents and keys that have limits."""

    def __init__(self, agents: ByName, keys: ByName) -> None:
        self._quotas: dict[tuple[Kind, str], Quota] = {}
        self._counter: Rates | None = None
        self.change(agents, keys)

    def __repr__(self) -> str:
        return f"<Limits {[*self._quotas.values()]}>"

    def change(self, agents: ByName, keys: ByName) -> None:
        """These are the limits from now on. What was counted for those that stay goes on."""
        wanted = {Owner("agent", name): settings for name, settings in agents.items()}
        wanted |= {Owner("key", name): settings for name, settings in keys.items()}
        old, self._quotas = self._quotas, {}
        for owner, settings in wanted.items():
            quota = old.pop(owner, None)
            if quota is not None:
                quota.change(settings)
            elif settings.are_set:
                quota = Quota(owner, settings, self._rates_of)
            else:
                continue
            self._quotas[owner] = quota
        for quota in old.values():
            quota.change(LimitSettings())  # requests that have passed it may be in progress

    def _rates_of(self, owner: Owner, settings: LimitSettings) -> tuple[Rate, ...]:
        if not (settings.requests_per_second or settings.requests_per_minute):
            return ()
        if self._counter is None:
            from gateway.front.limits.rates import Rates  # noqa: PLC0415 - 90 ms

            self._counter = Rates()
        return tuple(self._counter.of(owner, settings))

    def enter(self, key: str, agent: str | None, *, resumes: bool = False) -> Permit:
        """Begin a request whose body was not read. Raises RateLimited.

        `key` is the name of its caller's, and `agent` None where only the body names it. A request
        that `resumes` a run takes no place among those in progress.
        """
        known = (self.find("key", key), None if agent is None else self.find("agent", agent))
        permit = Permit(self)
        permit.enter([quota for quota in known if quota is not None], in_progress=not resumes)
        return permit

    def find(self, kind: Kind, name: str) -> Quota | None:
        return self._quotas.get(Owner(kind, name))


class Permit:
    """What one request has taken. `leave` must be called at its end."""

    __slots__ = ("_counted", "_held", "_in_progress", "_kept", "_limits", "_quotas")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._quotas: list[Quota] = []
        """Those that are known yet."""
        self._held: list[Places] = []
        self._in_progress = False
        self._counted = False
        self._kept = False

    def __repr__(self) -> str:
        return f"<Permit {'' if self._counted else 'not '}counted, {self._quotas}>"

    def enter(self, quotas: list[Quota], *, in_progress: bool) -> None:
        """The first step: within these quotas, before the body is read. Raises RateLimited."""
        self._refuse_beyond(rates_of=quotas, places_of=quotas if in_progress else ())
        self._quotas = quotas
        self._in_progress = in_progress
        if in_progress:
            self._take_places(quotas)

    def most_body(self, most: float, setting: str) -> tuple[float, str]:
        """The largest body in bytes, and which setting says so, if `setting` allows `most`."""
        for quota in self._quotas:
            if quota.most_body < most:
                most, setting = quota.most_body, quota.body_setting
        return most, setting

    def admit(self, agent: str, size: int) -> None:
        """The second step: a body of so many bytes was read, and is for that agent.

        Raises RateLimited and RequestTooLarge.
        """
        quota = self._limits.find("agent", agent)
        new = [] if quota is None or quota in self._quotas else [quota]
        for each in new:
            if size > each.most_body:
                raise RequestTooLarge.beyond(each.most_body, each.body_setting)
        quotas = [*self._quotas, *new]
        self._refuse_beyond(rates_of=quotas, places_of=new if self._in_progress else ())
        self._quotas = quotas
        if self._in_progress:
            self._take_places(new)
        self._count()

    def start(self) -> None:
        """A run starts, though the request was to go on with one. Raises RateLimited."""
        if not self._in_progress:
            self._refuse_beyond(places_of=self._quotas)
            self._in_progress = True
            self._take_places(self._quotas)

    def keep(self) -> None:
        """The run that the request has started keeps its places, until it calls `release`."""
        self._kept = True

    def leave(self, error: GatewayError | None = None) -> None:
        """The request has ended, perhaps by this error. May be called again."""
        if isinstance(error, _BY_LIMITS):
            self._quotas = []  # of which nothing is counted or told
        if not self._counted:
            self._count()
        if not self._kept:
            self.release()

    def release(self) -> None:
        """Give the places back."""
        held, self._held = self._held, []
        for places in held:
            places.give_back(self)

    def fields(self) -> Headers:
        """What is left, as fields of a response."""
        limiting = [quota for quota in self._quotas if quota.policies]
        now = trio.current_time()
        left = [left for quota in limiting for left in quota.left(now)]
        return rate_limit_fields(", ".join([each.policies for each in limiting]), ", ".join(left))

    def _refuse_beyond(
        self, *, rates_of: Sequence[Quota] = (), places_of: Sequence[Quota] = ()
    ) -> None:
        now = trio.current_time()
        met = [rate.met(now) for quota in rates_of for rate in quota.rates]
        met += [quota.places.met() for quota in places_of if quota.places is not None]
        if any(met):
            raise _refusal([each for each in met if each is not None])

    def _take_places(self, quotas: Sequence[Quota]) -> None:
        for quota in quotas:
            if quota.places is not None:
                quota.places.take(self)
                self._held.append(quota.places)

    def _count(self) -> None:
        self._counted = True
        for quota in self._quotas:
            for rate in quota.rates:
                rate.count()


_BY_LIMITS = (RateLimited, RequestTooLarge)


def _refusal(met: Sequence[Met]) -> RateLimited:
    """One error for all limits that were met. It speaks of the one that lasts longest."""
    worst = max(met, key=lambda each: each.wait)
    return RateLimited(
        f"{worst.sentence}; try again in {max(1, math.ceil(worst.wait))} s",
        setting=worst.setting,
        retry_after=worst.wait,
        policies=", ".join(each.policy for each in met),
        left=", ".join(each.left for each in met),
    )
