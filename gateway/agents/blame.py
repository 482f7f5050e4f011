"""Blame: what the end of a worker is counted against.

A failure is counted where it was caused. A worker that could not start says something about its
agent. One that had started and died with a request says something about that request.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from gateway.workers.events import Reason

if TYPE_CHECKING:
    from gateway.workers.events import Ended


class Blame(Enum):
    """Who is to blame."""

    NOBODY = "nobody"
    """The worker was asked to end, or left when its work was done."""
    AGENT = "agent"
    """The worker could not be started, or ended before it had done anything."""
    REQUEST = "request"
    """The worker had started, and died with a request that it had read."""


_NO_FAILURE = {Reason.STDIN_CLOSED, Reason.OVER_MEMORY, Reason.OVER_STATE}
"""A worker that has served may want no more requests, and may have grown too large in time, as may
its folder."""


def blame_of(end: Ended, *, served: bool) -> Blame:
    """Who is to blame for the end of a worker, which has `served` a request before or has not.

    Requests that it had not read are set aside first: they are served by another worker.
    """
    if end.reason in {Reason.ASKED, Reason.UNRESPONSIVE}:
        return Blame.NOBODY
    if len(end.lost) > len(end.unread):
        return Blame.REQUEST
    left_in_order = end.error.details.get("exit_status") == 0 or end.reason in _NO_FAILURE
    return Blame.NOBODY if served and left_in_order else Blame.AGENT
