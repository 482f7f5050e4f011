"""The files and folders behind mounts, compared at each start with what they were at the first.

bubblewrap finds a source by its name again each time. Nothing that an agent may change lies on the
way (`mounts` sees to that), but others of the machine may have changed it, or made it lead
elsewhere.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.sandbox.mounts import Mount

_Identity = tuple[int, ...]


class Sources:
    """What the sources of mounts were when this was made."""

    def __init__(self, mounts: Iterable[Mount]) -> None:
        self._known = {mount.source: _identify(mount.source) for mount in mounts}

    def check(self) -> None:
        """Compare with what they are now. Raises OSError for one that was replaced."""
        for source, known in self._known.items():
            if known is not None and _identify(source) != known:
                raise OSError(
                    errno.ESTALE,
                    "replaced since the gateway started; restart it to show the new one",
                    source,
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
