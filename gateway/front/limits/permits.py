"""What a request takes of its quotas, from its head to its end."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

from gateway import clock
from gateway.errors import RateLimited, RequestTooLarge
from gateway.front.limits.places import Owner, Places
from gateway.front.limits.quotas import NO_TERMS, Quota, Terms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.config import LimitSettings
    from gateway.errors import GatewayError
    from gateway.front.dialect import Headers
    from gateway.front.limits.places import Kind, Met

ByName: TypeAlias = "Mapping[str, LimitSettings]"


class Limits:
    """The quotas of all agents and keys that have limits."""

    def __init__(self, agents: ByName, keys: ByName) -> None:
        self.of_agents: dict[str, Quota] = {}
        self.of_keys: dict[str, Quota] = {}
        self.version = 0
        """Changes with the settings and with each request that is counted: while it is the same,
        there is room where there was room."""
        self._terms: dict[tuple[str, str], Terms] = {}
        """By key and agent, as they were needed."""
        self.change(agents, keys)

    def __repr__(self) -> str:
        return f"<Limits {[*self.of_agents.values(), *self.of_keys.values()]}>"

    def change(self, agents: ByName, keys: ByName) -> None:
        """These are the settings from now on. What was counted for those that stay goes on."""
        self.version += 1
        self._terms.clear()
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
        return quotas

    def terms(self, key: str, agent: str) -> Terms:
        """What holds for requests with this key to this agent. Either may have no limits."""
        named = key if key in self.of_keys else "", agent if agent in self.of_agents else ""
        terms = self._terms.get(named)
        if terms is None:
            found = self.of_keys.get(key), self.of_agents.get(agent)
            terms = self._terms[named] = Terms([quota for quota in found if quota is not None])
        return terms

    def enter(self, key: str, agent: str | None, *, resumes: bool = False) -> Permit:
        """Begin a request whose body was not read. Raises RateLimited.

        `key` is the name of its caller's, and `agent` None where only the body names it. A request
        that `resumes` a run takes no place among those in progress.
        """
        return Permit(self, key, agent or "", in_progress=not resumes)


class Permit:
    """What one request has taken. `leave` must be called at its end."""

    __slots__ = (
        "_agent",
        "_counted",
        "_held",
        "_in_progress",
        "_kept",
        "_key",
        "_limits",
        "_looked_at",
        "_terms",
    )

    def __init__(self, limits: Limits, key: str, agent: str, *, in_progress: bool) -> None:
        """The first step: before the body is read; `agent` is empty if it is not known by then.
        Raises RateLimited."""
        self._limits = limits
        self._key, self._agent = key, agent
        self._terms = terms = limits.terms(key, agent)
        self._held: Sequence[Places] = ()
        self._in_progress = in_progress
        self._counted = self._kept = False
        self._look(terms.places if in_progress else ())

    def __repr__(self) -> str:
        return f"<Permit {'' if self._counted else 'not '}counted, {self._terms}>"

    def most_body(self, most: float, setting: str) -> tuple[float, str]:
        """The largest body in bytes, and which setting says so, if `setting` allows `most`."""
        terms = self._terms
        return (terms.most_body, terms.body_setting) if terms.most_body < most else (most, setting)

    def admit(self, agent: str, size: int) -> None:
        """The second step: a body of so many bytes was read, and is for that agent.

        Raises RateLimited and RequestTooLarge.
        """
        # Mostly the body was there at once, and no request came in between.
        if agent != self._agent or self._looked_at != self._limits.version:
            self._agent, self._terms = agent, self._limits.terms(self._key, agent)
            if size > self._terms.most_body:
                raise RequestTooLarge.beyond(self._terms.most_body, self._terms.body_setting)
            new = [each for each in self._terms.places if each not in self._held]
            self._look(new if self._in_progress else ())
        self._count()

    def start(self) -> None:
        """A call starts, though the request was not known to be one. Raises RateLimited."""
        if not self._in_progress:
            self._in_progress = True
            if met := [each.met() for each in self._terms.places if not each.has_room()]:
                raise _refusal(met)
            self._take(self._terms.places)

    def keep(self) -> None:
        """The run that the request has started keeps its places, until it calls `release`."""
        self._kept = True

    def leave(self, error: GatewayError | None = None) -> None:
        """The request has ended, perhaps by this error. May be called again."""
        if error is not None and isinstance(error, _BY_LIMITS):
            self._terms = NO_TERMS  # of which nothing is counted or told
        if not self._counted:
            self._count()
        if not self._kept:
            self.release()

    def release(self) -> None:
        """Give the places back."""
        for places in self._held:
            places.taken -= 1
        self._held = ()

    def fields(self) -> Headers:
        """What is left, as fields of a response."""
        return self._terms.fields()

    def _look(self, places: Sequence[Places]) -> None:
        """Take these places. Raises RateLimited if one is not free, or a rate has no room."""
        for rate in self._terms.rates:
            if len(rate.times) >= rate.most and not rate.has_room():
                self._refuse(places)
        for each in places:
            if each.taken >= each.most:
                self._refuse(places)
        self._take(places)
        self._looked_at = self._limits.version

    def _refuse(self, places: Sequence[Places]) -> None:
        now = clock.trio_now()
        met = [each.met(now) for each in self._terms.rates if not each.has_room()]
        met += [each.met() for each in places if not each.has_room()]
        if met:  # not if a window ended at this very moment
            raise _refusal(met)

    def _take(self, places: Sequence[Places]) -> None:
        for each in places:
            each.taken += 1
        self._held = [*self._held, *places] if self._held else places

    def _count(self) -> None:
        self._counted = True
        self._limits.version += 1
        now = clock.trio_now()
        for rate in self._terms.rates:
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
