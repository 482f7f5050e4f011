"""The files and folders behind mounts, compared at each start with what they were at the first.

bubblewrap finds a source by its name again each time. Nothing that an agent may change lies on the
way (`mounts` sees to that), but others of the machine may have changed it, or made it lead
elsewhere.

In a writable mount, what tools execute is read-only if it was there at the first start. What
appears later may be a worker's, for example hooks in a `.git` of its own. Nothing keeps an agent
from that, which may be its work, so that the operator is told before using such tools there.

Once its owner has removed or replaced what was mounted over a place in a writable mount, workers
may put a link there, which bubblewrap would follow on the host, and change it between a look at it
and the mount. So nothing is mounted there any more for as long as the gateway runs, even if what is
there looks right. Until then no worker can move it, since each has it as a mount of its own.
Between the last look and the mount, its owner may still remove it: a bubblewrap that can is given a
descriptor, and does not start if it finds something else under the name.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import stat
import subprocess
import weakref
from typing import TYPE_CHECKING

from gateway.sandbox.files.mounts import find_executed
from gateway.sandbox.files.places import contains
from gateway.sandbox.limits.uids import is_a_workers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.sandbox.files.mounts import Mount

_log = logging.getLogger(__name__)

_told: set[str] = set()
"""What has been logged by this process, for whichever agent."""

_left: set[str] = set()
"""Places that nothing is mounted over any more, for whichever agent: several may write there."""

_Identity = tuple[int, ...]


class Sources:
    """What the sources of mounts were when this was made."""

    def __init__(
        self,
        mounts: Sequence[Mount],
        *,
        protected: Sequence[Mount] = (),
        masked: Sequence[Mount] = (),
    ) -> None:
        """`protected` is what is read-only within writable ones, `masked` what cannot be opened.

        Raises OSError.
        """
        self._known = {mount.source: _identify(mount.source) for mount in mounts}
        self._mounts = mounts
        self._protected = tuple(protected)
        self._masked = tuple(masked)
        self._executed = {each.source for each in protected if not is_a_workers(each.source)}
        writable = [mount.source for mount in mounts if mount.writable]
        # Descriptors, because the inode of what was removed would soon be that of something else.
        self._held: dict[str, int] = {}
        self._let_go = weakref.finalize(self, _close, self._held)
        for mount in protected:
            self._hold(mount.source)
        for mount in masked:
            if any(contains(each, mount.source) for each in writable):
                self._hold(mount.source)

    def _hold(self, source: str) -> None:
        if source not in self._held:
            try:
                self._held[source] = os.open(source, os.O_PATH | os.O_NOFOLLOW)
            except FileNotFoundError:
                _leave(source)

    def close(self) -> None:
        """Tell what has appeared, and let go of what is held. May be called again."""
        if self._let_go.alive:
            self.tell_what_appeared()
            self._let_go()

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

    def protected(self) -> tuple[Mount, ...]:
        """What can still be mounted over its place."""
        return tuple(mount for mount in self._protected if self._is_the_same(mount.source))

    def descriptors(self, bwrap: str) -> dict[str, int]:
        """Of what is protected, by its source, if this bubblewrap can use them. They stay open for
        as long as this object lives."""
        held = {each.source: self._held[each.source] for each in self.protected()}
        return held if held and _binds_descriptors(bwrap) else {}

    def masked(self) -> tuple[Mount, ...]:
        """What can still be masked; elsewhere than in writable mounts, whatever is there now."""
        return tuple(
            mount
            for mount in self._masked
            if os.path.lexists(mount.source) and self._is_the_same(mount.source)
        )

    def _is_the_same(self, source: str) -> bool:
        """Whether what workers might have replaced never was, as far as any start has seen."""
        if source in self._held and not _is_at(source, self._held[source]):
            _leave(source)
        return source not in _left

    def tell_what_appeared(self) -> None:
        """Log, once, what tools execute and what was not there before."""
        known = {path for path in self._executed if self._is_the_same(path)}
        for path in find_executed(self._mounts):
            if path not in known | _told:
                _told.add(path)
                _log.warning(
                    "%s may have been made by a worker: look into it before any tool works in its "
                    "folder, which would execute what it says",
                    ascii(path),
                )


@functools.cache
def _binds_descriptors(bwrap: str) -> bool:
    """Whether this bubblewrap mounts what a descriptor is of: 0.10 does, and patched older ones."""
    said = subprocess.run([bwrap, "--help"], capture_output=True, text=True, check=False)
    return "--ro-bind-fd" in said.stdout + said.stderr


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


def _is_at(source: str, held: int) -> bool:
    try:
        status = os.lstat(source)
    except OSError:
        return False
    return (
        os.path.samestat(status, os.fstat(held))
        and not stat.S_ISLNK(status.st_mode)
        and os.path.realpath(source) == source
    )


def _leave(source: str) -> None:
    if source not in _left:
        _left.add(source)
        _log.warning(
            "%s was removed or replaced: until the gateway is restarted, workers may change what "
            "is there",
            ascii(source),
        )


def _close(held: dict[str, int]) -> None:
    for descriptor in held.values():
        os.close(descriptor)
