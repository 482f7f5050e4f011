"""Limits on requests, asked without a front."""

from __future__ import annotations

from gateway.config import LimitSettings
from gateway.errors import RateLimited
from gateway.front.limits.permits import Limits, Permit


def limits_of(
    agent: LimitSettings | None = None, key: LimitSettings | None = None, name: str = "a"
) -> Limits:
    """On the agent `name`, and on a key named `k`."""
    none = LimitSettings()
    return Limits({name: agent or none}, {"k": key or none})


def ask(limits: Limits, key: str = "", agent: str = "a") -> Permit:
    """One whole admission. Raises RateLimited."""
    permit = limits.enter(key, agent)
    try:
        permit.admit(agent, 0)
    except RateLimited as error:
        permit.leave(error)
        raise
    return permit


def is_refused(limits: Limits, key: str = "", agent: str = "a") -> bool:
    try:
        ask(limits, key, agent).leave()
    except RateLimited:
        return True
    return False


def in_progress(limits: Limits) -> list[int]:
    """How many requests each quota with `concurrent` counts as in progress."""
    return [
        places.taken
        for quota in (*limits.of_agents.values(), *limits.of_keys.values())
        if (places := quota.places) is not None
    ]
