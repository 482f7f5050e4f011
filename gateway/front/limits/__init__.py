"""Limits on requests: of each agent, and of each key.

Theory of operation
-------------------

A *quota* is one table of settings, `[agents.NAME.limits]` or `[keys.NAME.limits]`, with what is
taken of it. A request must be within the quota of its agent and within that of its key, so that the
stricter one holds. What it takes of both is its *permit*.

A request is admitted in two steps, because some dialects name the agent in the body only:

1. `Limits.enter`, before the body is read: the quotas that are known by then are looked at, so that
   a request beyond them is refused before it costs anything. Its place among those in progress
   is taken now, so that bodies that are being read count.
2. `Permit.admit`, once the body was read: all quotas are looked at, again or for the first time,
   and only then the request is counted in all rates. What one limit refuses is therefore not
   counted by another, and nothing that was counted is ever given back. Other requests may have
   taken meanwhile what was left in the first step; then this one is refused now.

A request that ends between the two for another reason (its body is not JSON, or never comes) is
counted in the rates that are known, since it was a request. One that a limit on bodies refuses is
not, as none is that a limit refuses.

**Beyond `concurrent` is a refusal, not a wait.** How many requests may wait for an agent, and for
how long, is said by its `queue` and the clock of that name. A second queue in front of that one
would hold the connections and bodies of callers that have their share already, and would hide from
them what only they can mend. A client that is told so at once can wait by itself, and most do.

**A permit is held as long as what it is for**: a response, also a stream and one whose client
leaves; or the run that the request has started, with or without clients. A request that comes back
for its run by an Idempotency-Key starts nothing and takes no place: otherwise it could be refused
because of that very run.

**What clients are told.** Responses say what is left in `RateLimit-Policy` and `RateLimit`
(draft-ietf-httpapi-ratelimit-headers-10). A refusal lists only the limits that were met: its
`Retry-After` must not be earlier than a reset that is listed beside it.

**Bounds.** Quotas have the names of agents and keys, which are the configuration's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.config import AgentSettings, KeySettings
    from gateway.front.limits.permits import Limits


def make_limits(
    agents: Mapping[str, AgentSettings],
    keys: Mapping[str, KeySettings],
    old: Limits | None = None,
) -> Limits | None:
    """The limits of these agents and keys; None if they have none. `old` ones are changed, so that
    what they have counted stays."""
    of_agents = {name: agent.limits for name, agent in agents.items()}
    of_keys = {name: key.limits for name, key in keys.items()}
    if not any(each.are_set for each in (*of_agents.values(), *of_keys.values())):
        return None
    from gateway.front.limits.permits import Limits  # noqa: PLC0415 - only where it is used

    if old is None:
        return Limits(of_agents, of_keys)
    old.change(of_agents, of_keys)
    return old
