"""The resource limits (setrlimit(2)) of the processes of a worker."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

from gateway.sandbox.bwrap import ULIMIT_BLOCK

if TYPE_CHECKING:
    from gateway.config.sandbox import SandboxSettings


def rlimits_of(settings: SandboxSettings, *, sharing: int, own_user: bool) -> dict[str, int]:
    """The limits by their names, in the kernel's units; unlimited ones are absent.

    `sharing`: how many workers may have one user id; `own_user`: whether a worker's is another one
    than bubblewrap's.
    """
    found = {"nofile": _capped(resource.RLIMIT_NOFILE, settings.nofile)}
    if settings.fsize_bytes:
        whole = -(-settings.fsize_bytes // ULIMIT_BLOCK) * ULIMIT_BLOCK
        found["fsize"] = _capped(resource.RLIMIT_FSIZE, whole) // ULIMIT_BLOCK * ULIMIT_BLOCK
    if settings.pids:
        # bubblewrap's init counts as well, if it has the same user id; and with root, what all
        # processes of that id have.
        own = 0 if own_user else 1
        found["nproc"] = _capped(resource.RLIMIT_NPROC, settings.pids * sharing + own)
    return found


def _capped(limit: int, wanted: int) -> int:
    """`wanted`, or the gateway's own hard limit if that is lower: it cannot be raised."""
    hard = resource.getrlimit(limit)[1]
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
