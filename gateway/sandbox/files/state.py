"""Folders that outlive workers: an agent's, or each conversation's, own place to keep files.

# Theory of operation

All of it lies in one folder, `[server] state_dir`, which belongs to the gateway's user alone:

    STATE_DIR/lock                                        held while a gateway serves with state
    STATE_DIR/allocation                                  held while a user id is chosen
    STATE_DIR/agents/NAME/home                            an agent's folder
    STATE_DIR/agents/NAME/conversations/SHA256/home       a conversation's, or that of a user or a
                                                          key (`gateway.call.session_key`)
    STATE_DIR/removed/N                                   what `remove` has not worked off yet

Every `home` is mounted by itself, so that a worker sees its own and no other. What a caller calls
its conversation becomes the hash of its name, and never a path. The folder around a `home` is the
gateway's: its time of modification is when the conversation was last at work, which the agent
cannot change. After `ttl`, those longest silent are removed, and beyond `MAX_CONVERSATIONS` those
of the key that has the most: whoever has conversations without end displaces their own.

With a gateway that root runs, a `home` belongs to a user id of its own, that of every worker that
works in it, so that a file of mode 0600 can be read by the next one. The register of these ids is
the owner of the folder itself: it survives restarts, and two folders never share one. They are
taken from the lower half of the ids that are free for workers; those of a single worker from the
upper half (`uids`).

Decisions are synchronous and belong to one thread. `remove` alone may run in another, and a new
agent's `AgentState` may be made there: the choice of a user id is the one thing that both do.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import fcntl
import hashlib
import itertools
import logging
import math
import os
import random
import stat
import threading
import time
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.sandbox.bwrap import STATE
from gateway.sandbox.files.trees import empty
from gateway.sandbox.refusals import SandboxError
from gateway.sandbox.symptoms import STATE_SIZE, LimitError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from gateway.config import StateSettings

_log = logging.getLogger(__name__)

MAX_CONVERSATIONS = 10_000
"""Folders that one agent's conversations have at most; one more takes the place of the one that has
been silent for longest, of the key that has the most."""

_HOLDER_DIGITS = 16

_PRIVATE = 0o700


@dataclass(frozen=True, slots=True)
class Home:
    """A folder that outlives the workers in it."""

    path: str
    uid: int | None = None
    """The host's user id of its workers; None for the gateway's own."""
    shown: bool = True
    """Whether workers see it. If not, it only stands for the user id of what `mounts_rw` names."""


def default_place(environ: Mapping[str, str]) -> str:
    """Where state is kept unless the settings say otherwise."""
    if given := environ.get("STATE_DIRECTORY", "").split(":")[0]:
        return given
    if os.geteuid() == 0:
        return "/var/lib/agent-gateway"
    states = environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(states, "agent-gateway")


class StateDir:
    """The folder of all agents' state. Raises SandboxError where it cannot be what it must be."""

    def __init__(self, path: str, *, ids: range | None, serving: bool) -> None:
        """Make the folder if there is none. `ids`: those that folders may belong to, if root's
        workers are to have them; `serving`: keep every other gateway out until `close`. Without it,
        nothing is removed, since another gateway may be at work in the folder.
        """
        self.path = path
        self.serving = serving
        self._ids = ids
        self._owners: set[int] | None = None
        self._removals = itertools.count()
        self._choosing = threading.Lock()  # the file's lock only keeps other processes out
        try:
            os.makedirs(path, _PRIVATE, exist_ok=True)
            _check_private(path)
            for name in ("agents", "removed"):
                os.makedirs(os.path.join(path, name), _PRIVATE, exist_ok=True)
            self._lock, self._allocation = (
                os.open(os.path.join(path, name), os.O_RDWR | os.O_CREAT, 0o600)
                for name in ("lock", "allocation")
            )
        except OSError as error:
            raise SandboxError(
                f"state_dir: {error.filename or path}: {error.strerror}: name another folder as "
                "[server] state_dir, or in a systemd unit set StateDirectory=agent-gateway"
            ) from error
        if serving:
            self.keep_others_out()

    def __repr__(self) -> str:
        return f"<StateDir {self.path}>"

    def keep_others_out(self) -> None:
        """From now on this gateway serves with the folder. Raises SandboxError, and then the folder
        is closed."""
        self.serving = True
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.close()
            raise SandboxError(
                f"state_dir: another gateway serves with {self.path}: each needs one of its own "
                "([server] state_dir)"
            ) from None

    def close(self) -> None:
        """Let another gateway have the folder."""
        os.close(self._lock)
        os.close(self._allocation)

    def agent(
        self,
        name: str,
        settings: StateSettings | None,
        *,
        per_conversation: bool = False,
        in_use: bool = False,
    ) -> AgentState:
        """The state of one agent. Without settings, it has no more than a user id. `in_use`: some
        of its workers are at work, and nothing of it is too old."""
        return AgentState(self, name, settings, per_conversation=per_conversation, in_use=in_use)

    def home(self, folder: str, *, shown: bool = True) -> Home:
        """The `home` in `folder`, made if there is none. Raises SandboxError and OSError."""
        path = os.path.join(folder, "home")
        os.makedirs(folder, _PRIVATE, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, _PRIVATE)
        status = os.lstat(path)
        if not stat.S_ISDIR(status.st_mode):
            raise SandboxError(f"state_dir: {path} is not a folder")
        if self._ids is None:
            if status.st_uid != os.geteuid():
                raise _belongs_to_another(path, status.st_uid)
            return Home(path, shown=shown)
        if status.st_uid == os.geteuid():
            status = self._give_owner(path)
        if status.st_uid not in self._ids:
            raise _belongs_to_another(path, status.st_uid)
        return Home(path, status.st_uid, shown)

    def _give_owner(self, path: str) -> os.stat_result:
        """Give an empty `home` to an id of its own, unless another gateway has just done so."""
        self._choosing.acquire()
        try:
            fcntl.flock(self._allocation, fcntl.LOCK_EX)
            if os.lstat(path).st_uid == os.geteuid() and not os.listdir(path):
                uid = self._new_owner()
                os.chown(path, uid, uid, follow_symlinks=False)
            return os.lstat(path)
        finally:
            fcntl.flock(self._allocation, fcntl.LOCK_UN)
            self._choosing.release()

    def _new_owner(self) -> int:
        assert self._ids is not None
        if self._owners is None:
            pattern = ("agents/*/home", "agents/*/conversations/*/home", "removed/*/home")
            found = itertools.chain.from_iterable(map(Path(self.path).glob, pattern))
            self._owners = set()
            for each in found:
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    self._owners.add(each.lstat().st_uid)
        if len(self._owners) * 2 > len(self._ids):
            raise SandboxError(
                f"state_dir: {len(self._owners)} folders are more than there are ids"
            )
        while True:
            uid = random.choice(self._ids)  # noqa: S311 - spreads gateways apart, secret from nobody
            if uid not in self._owners:
                self._owners.add(uid)
                return uid

    def set_aside(self, folder: str) -> None:
        """Take a folder out of use, for `remove`."""
        while True:
            place = os.path.join(self.path, "removed", f"{os.getpid()}-{next(self._removals)}")
            try:
                os.rename(folder, place)
            except OSError as error:
                if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
                    raise
            else:
                return

    def remove(self) -> None:
        """Remove what was set aside. Blocks for as long as that takes. Follows no link."""
        empty(os.path.join(self.path, "removed"))


def _belongs_to_another(path: str, uid: int) -> SandboxError:
    return SandboxError(
        f"state_dir: {path} belongs to user id {uid}, and no worker of this gateway may be that: "
        "it was made by another user's gateway, or with --sandbox off; move it away, or name "
        "another folder as [server] state_dir"
    )


def _check_private(path: str) -> None:
    status = os.stat(path)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise SandboxError(f"state_dir: {path} is not a folder of the gateway's own user")
    if status.st_mode & 0o077:
        raise SandboxError(
            f"state_dir: others may look into {path}, which is to be private: chmod 0700 {path}"
        )


def _folder_name(conversation: str) -> str:
    """Never a path. The names of one key's folders begin alike (`gateway.call.session_key`)."""
    owner, *rest = conversation.split("\0", 2)
    holder = _digest(owner)[:_HOLDER_DIGITS] if owner and len(rest) == 2 else ""
    return holder + _digest(conversation)


def _holder_of(folder: str) -> str:
    """Whose folder it is: the beginning of its name, nothing where there were no keys."""
    return os.path.basename(folder)[: -2 * hashlib.sha256().digest_size]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class AgentState:
    """The folders of one agent: one for all of its workers, or one for each conversation."""

    def __init__(
        self,
        whole: StateDir,
        name: str,
        settings: StateSettings | None,
        *,
        per_conversation: bool,
        in_use: bool = False,
    ) -> None:
        self.whole = whole
        self.folder = os.path.join(whole.path, "agents", name)
        self.settings = settings
        self.per_conversation = per_conversation and settings is not None
        self._used: Counter[str] = Counter()
        self._too_large: set[str] = set()
        self._since: set[str] = set()
        self._known: OrderedDict[str, float] = OrderedDict()
        """Conversations' folders, and when each was last at work, the longest silent first."""
        if self.per_conversation:
            self._known.update(sorted(self._on_disk(), key=lambda each: each[1]))
            self._remove_superfluous(time.time())
        else:
            if not in_use:
                self._expire_whole(time.time())
            self.home = self._home(self.folder)

    def __repr__(self) -> str:
        return f"<AgentState {self.folder} {len(self._known)} conversations>"

    def with_settings(self, settings: StateSettings | None) -> AgentState:
        """The same folders under other settings. Who is in them is known to both."""
        other = copy.copy(self)
        other.settings = settings
        if not other.per_conversation:
            other.home = other._home(other.folder)
        return other

    def _home(self, folder: str) -> Home:
        return self.whole.home(folder, shown=self.settings is not None)

    def _on_disk(self) -> Iterator[tuple[str, float]]:
        folder = os.path.join(self.folder, "conversations")
        os.makedirs(folder, _PRIVATE, exist_ok=True)
        with os.scandir(folder) as entries:
            for entry in entries:
                yield entry.path, entry.stat(follow_symlinks=False).st_mtime

    def take(self, conversation: str | None) -> Home | None:
        """The folder of one more worker, or None: where each conversation has one, and there is no
        conversation. To be given back with `give_back`. Raises OSError.
        """
        if not self.per_conversation:
            home = self.home
        elif conversation is None:
            return None
        else:
            name = _folder_name(conversation)
            try:
                home = self._home(os.path.join(self.folder, "conversations", name))
            except SandboxError as error:
                raise OSError(errno.EPERM, str(error)) from error
        if home.path in self._too_large:
            self._since.add(home.path)  # somebody may have made room in it
            raise LimitError(STATE_SIZE)
        self._note_use(home.path)
        self._used[home.path] += 1
        if self.per_conversation:
            self._remove_superfluous(time.time())
        return home

    def give_back(self, home: Home) -> None:
        """A worker that was in the folder has ended."""
        self._used[home.path] -= 1
        if not self._used[home.path]:
            del self._used[home.path]
            self._since.add(home.path)
        with contextlib.suppress(OSError):  # then it only seems to be older
            self._note_use(home.path)

    def note_use(self) -> None:
        """Note that workers are in the folders that they are in: the next gateway is to know it,
        whatever becomes of this one."""
        for path in self._used:
            with contextlib.suppress(OSError):  # then it only seems to be older
                self._note_use(path)

    def _note_use(self, path: str) -> None:
        folder = os.path.dirname(path)
        os.utime(folder, follow_symlinks=False)
        if self.per_conversation:
            self._known[folder] = time.time()
            self._known.move_to_end(folder)

    def remove_expired(self) -> None:
        """Set aside the folders of conversations that have been silent for longer than `ttl`."""
        self._remove_superfluous(time.time())

    def _remove_superfluous(self, now: float) -> None:
        if not self.whole.serving:
            return
        ttl = float("inf") if self.settings is None else self.settings.ttl_seconds
        superfluous: list[str] = []
        for folder, last in self._known.items():
            if now - last < ttl:
                break
            if not self._is_used(folder):
                superfluous.append(folder)
        excess = len(self._known) - len(superfluous) - MAX_CONVERSATIONS
        if excess > 0:
            superfluous += self._displaced(excess, {*superfluous})
        for folder in superfluous:
            try:
                self.whole.set_aside(folder)
            except OSError as error:
                _log.warning("%s cannot be removed: %s", folder, error)
                continue
            del self._known[folder]
            self._too_large.discard(os.path.join(folder, "home"))

    def _is_used(self, folder: str) -> bool:
        return os.path.join(folder, "home") in self._used

    def _displaced(self, count: int, gone: set[str]) -> list[str]:
        """Folders that make room besides those that are `gone`: each of the holder that has the
        most then, the one that has been silent for longest."""
        left: Counter[str] = Counter()
        idle: dict[str, deque[str]] = {}
        for folder in self._known:
            if folder not in gone:
                left[_holder_of(folder)] += 1
                if not self._is_used(folder):
                    idle.setdefault(_holder_of(folder), deque()).append(folder)
        found: list[str] = []
        while idle and len(found) < count:
            holder = max(idle, key=lambda each: left[each])
            found.append(idle[holder].popleft())
            left[holder] -= 1
            if not idle[holder]:
                del idle[holder]
        return found

    def _expire_whole(self, now: float) -> None:
        """At the start: an agent that was not served for longer than `ttl` begins anew."""
        if not self.whole.serving or self.settings is None or not os.path.isdir(self.folder):
            return
        if now - os.stat(self.folder).st_mtime >= self.settings.ttl_seconds:
            self.whole.set_aside(self.folder)

    def describe(self) -> dict[str, Any]:
        """For `GET /agent/{name}` and `--check`: plain values; nothing without settings."""
        if self.settings is None:
            return {}
        ttl = self.settings.ttl_seconds
        size = self.settings.size_bytes
        return {
            "state": {
                "home": STATE,
                "folder": self.folder if self.per_conversation else self.home.path,
                "of": "each conversation" if self.per_conversation else "the agent",
                "ttl": None if math.isinf(ttl) else ttl,
                "size": {"value": size, "enforced": True, "by": "watch"}
                if size
                else {"value": None, "enforced": False, "reason": "no limit was set"},
            }
        }

    def used_since(self) -> list[str]:
        """The folders that workers are in, or were to be in since this was last asked."""
        used = list(self._since | self._used.keys())
        self._since.clear()
        return used

    def too_large(self, home: Home) -> Callable[[], bool] | None:
        """Whether a folder was found to hold more than it may; None where there is no limit."""
        if self.settings is None or not self.settings.size_bytes:
            return None
        return lambda: home.path in self._too_large

    def judge_size(self, path: str, size: float) -> bool:
        """Whether a folder that holds `size` bytes is too large; then no worker starts in it."""
        limit = 0 if self.settings is None else self.settings.size_bytes
        too_large = 0 < limit < size
        (self._too_large.add if too_large else self._too_large.discard)(path)
        return too_large
