"""The files and folders behind mounts, compared at each start with what they were at the first.

bubblewrap finds a source by its name again each time. Nothing that an agent may change lies on the
way (`mounts` sees to that), but others of the machine may have changed it, or made it lead
elsewhere.

In a writable mount, what tools execute is read-only if it was there at the first start. What
appears later may be a worker's, for example hooks in a `.git` of its own. Nothing keeps an agent
from that, which may be its work, so that the operator is told before using such tools there.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from typing import TYPE_CHECKING

from gateway.sandbox.mounts import find_executed
from gateway.sandbox.uids import is_a_workers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.sandbox.mounts import Mount

_log = logging.getLogger(__name__)

_told: set[str] = set()
"""What has been logged by this process, for whichever agent."""

_Identity = tuple[int, ...]


class Sources:
    """What the sources of mounts were when this was made."""

    def __init__(self, mounts: Sequence[Mount], *, protected: Iterable[Mount] = ()) -> None:
        """`protected` is what is read-only within writable ones."""
        self._known = {mount.source: _identify(mount.source) for mount in mounts}
        self._mounts = mounts
        self._protected = {each.source for each in protected if not is_a_workers(each.source)}

    def check(self) -> None:
        """Compare with what they are now. Raises OSError for one that was replaced."""
        self.tell_what_appeared()
        for source, known in self._known.items():
            if known is not None and _identify(source) != known:
                raise OSError(
                    errno.ESTALE,
                    "replaced since the gateway started; restart it to show the new one",
                    source,
                )

    def tell_what_appeared(self) -> None:
        """Log, once, what tools execute and what was not there before."""
        for path in find_executed(self._mounts):
            if path not in self._protected | _told:
                _told.add(path)
                _log.warning(
                    "%s may have been made by a worker: look into it before any tool works in its "
                    "folder, which would execute what it says",
                    ascii(path),
                )


def _identify(source: str) -> _Identity | None:
    """What a resolved path is, or None if there is nothing, or it is not resolved any more.

    A folder is itself, by device and inode. A file may be written anew by its owner, as editors do,
    and is then still the same.
    """
    try:
        status = os.lstat(source)
    except OSError:
        return None
    if os.path.realpath(source) != source:
        return None
    if stat.S_ISREG(status.st_mode):
        return status.st_dev, status.st_uid
    return status.st_dev, status.st_ino, stat.S_IFMT(status.st_mode)
