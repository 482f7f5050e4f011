"""What a request takes of its quotas, from its head to its end."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

from gateway import clock
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

ByName: TypeAlias = Mapping[str, LimitSettings]


class Limits:
    """The quotas of all agents and keys that have limits."""

    def __init__(self, agents: ByName, keys: ByName) -> None:
        self.of_agents: dict[str, Quota] = {}
        self.of_keys: dict[str, Quota] = {}
        self.version = 0
        """Changes with the settings and with each request that is counted: while it is the same,
        there is room where there was room."""
        self.change(agents, keys)

    def __repr__(self) -> str:
        return f"<Limits {[*self.of_agents.values(), *self.of_keys.values()]}>"

    def change(self, agents: ByName, keys: ByName) -> None:
        """These are the settings from now on. What was counted for those that stay goes on."""
        self.version += 1
        self.of_agents = self._changed("agent", self.of_agents, agents)
        self.of_keys = self._changed("key", self.of_keys, keys)

    def _changed(self, kind: Kind, old: dict[str, Quota], settings: ByName) -> dict[str, Quota]:
        quotas = {}
        for name, each in settings.items():
            quota = old.pop(name, None)
            if quota is not None:
                quota.change(each)
            elif each.are_set:
                quota = Quota(Owner(kind, name), each)
            if quota is not None:
                quotas[name] = quota
        for quota in old.values():
            quota.change(LimitSettings())  # permits may know it
        return quotas

    def enter(self, key: str, agent: str | None, *, resumes: bool = False) -> Permit:
        """Begin a request whose body was not read. Raises RateLimited.

        `key` is the name of its caller's, and `agent` None where only the body names it. A request
        that `resumes` a run takes no place among those in progress.
        """
        known = []
        if (quota := self.of_keys.get(key)) is not None:
            known.append(quota)
        if agent is not None and (quota := self.of_agents.get(agent)) is not None:
            known.append(quota)
        return Permit(self, known, in_progress=not resumes)


class Permit:
    """What one request has taken. `leave` must be called at its end."""

    __slots__ = ("_counted", "_held", "_in_progress", "_kept", "_limits", "_looked_at", "_quotas")

    def __init__(self, limits: Limits, quotas: list[Quota], *, in_progress: bool) -> None:
        """The first step: before the body is read. Raises RateLimited."""
        self._limits = limits
        self._quotas = quotas
        """Those that are known yet."""
        self._held: list[Places] = []
        self._in_progress = in_progress
        self._counted = False
        self._kept = False
        for quota in quotas:
            if not quota.has_room(in_progress=in_progress):
                self._refuse_beyond((), quotas)
        if in_progress:
            self._take_places(quotas)
        self._looked_at = limits.version

    def __repr__(self) -> str:
        return f"<Permit {'' if self._counted else 'not '}counted, {self._quotas}>"

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
        quota = self._limits.of_agents.get(agent)
        if quota is None or quota in self._quotas:
            # Mostly the body was there at once, and no request came in between.
            if self._looked_at != self._limits.version:
                self._refuse_beyond(self._quotas, ())
        else:
            if size > quota.most_body:
                raise RequestTooLarge.beyond(quota.most_body, quota.body_setting)
            self._refuse_beyond(self._quotas, (quota,))
            if self._in_progress:
                self._take_places((quota,))
            self._quotas.append(quota)
        self._count()

    def start(self) -> None:
        """A call starts, though the request was not known to be one. Raises RateLimited."""
        if not self._in_progress:
            self._in_progress = True
            places = [quota.places for quota in self._quotas if quota.places is not None]
            if met := [each.met() for each in places if each.taken >= each.most]:
                raise _refusal(met)
            self._take_places(self._quotas)

    def keep(self) -> None:
        """The run that the request has started keeps its places, until it calls `release`."""
        self._kept = True

    def leave(self, error: GatewayError | None = None) -> None:
        """The request has ended, perhaps by this error. May be called again."""
        if error is not None and isinstance(error, _BY_LIMITS):
            self._quotas = []  # of which nothing is counted or told
        if not self._counted:
            self._count()
        if not self._kept:
            self.release()

    def release(self) -> None:
        """Give the places back."""
        for places in self._held:
            places.taken -= 1
        self._held = []

    def fields(self) -> Headers:
        """What is left, as fields of a response."""
        now = clock.trio_now()
        policies = left = b""
        for quota in self._quotas:
            if not quota.policies:
                continue
            if policies:
                policies, left = policies + b", ", left + b", "
            policies, left = policies + quota.policies, left + quota.left(now)
        return rate_limit_fields(policies, left)

    def _refuse_beyond(self, known: Sequence[Quota], new: Sequence[Quota]) -> None:
        """Raises RateLimited if the rates of one of these quotas have no room, or the places of a
        new one."""
        in_progress = self._in_progress
        if all(quota.has_room(in_progress=False) for quota in known) and all(
            quota.has_room(in_progress=in_progress) for quota in new
        ):
            return
        now = clock.trio_now()
        met = [each for quota in known for each in quota.met(now, in_progress=False)]
        met += [each for quota in new for each in quota.met(now, in_progress=in_progress)]
        if met:  # not if a window ended at this very moment
            raise _refusal(met)

    def _take_places(self, quotas: Sequence[Quota]) -> None:
        for quota in quotas:
            if (places := quota.places) is not None:
                places.taken += 1
                self._held.append(places)

    def _count(self) -> None:
        self._counted = True
        self._limits.version += 1
        now = clock.trio_now()
        for quota in self._quotas:
            for rate in quota.rates:
                if len(rate.times) < rate.most or rate.has_room():
                    rate.times.append(now)


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
