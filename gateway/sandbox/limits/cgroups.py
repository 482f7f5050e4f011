"""Control groups, version 1 or 2, where available: limits on a worker's whole tree of processes.

This module finds a group that the gateway may divide, makes one child group per worker, and removes
empty ones again. It does not know what a worker is.

The gateway divides only a group that was delegated to it: with root, any of a version 1 hierarchy;
in version 2, one that systemd delegated (`Delegate=yes`), the top group of a container, or one that
the user owns.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gateway.sandbox.limits.claims import OWN

CONTROLLERS = ("memory", "cpu")
"""Controllers in use. The limit on processes needs none: in a user namespace, or with a user id of
its own, a worker's rlimit counts only the worker's processes."""

CPU_PERIOD = 100_000
"""Microseconds of the period that a CPU quota applies to: the kernel's default."""
_USUAL_SHARES = 1024
"""The weight of a group in version 1, where none is set; in version 2 it is 100."""
_LEAF = "gateway"
"""The child group that the gateway itself moves to: version 2 divides no group with processes."""
_DELEGATED = ("user.delegate", "trusted.delegate")
"""The extended attributes by which systemd marks a delegated group."""


@dataclass(frozen=True, slots=True)
class Cgroups:
    """The groups that can be divided, by controller, and the reasons where none can."""

    version: int
    folders: Mapping[str, Path] = field(default_factory=dict)
    """Controller to the parent of the workers' groups."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Controller to the reason for its absence."""

    @property
    def join_file(self) -> str:
        """The file that a process with one thread writes 0 to in order to join a group.

        Moving a whole process takes a lock that waits for all CPUs, 5 to 15 ms; version 1 lets a
        thread move itself without that lock.
        """
        return "tasks" if self.version == 1 else "cgroup.procs"

    def new(
        self, name: str, *, memory: int = 0, cpu: float = 0, weight: int = 0
    ) -> tuple[Path, ...]:
        """Make the group `name` with these limits (bytes, CPUs; 0 for none), and with a share of
        busy CPUs in percent of what the gateway has (0 for the same).

        Returns the group's folders, one per hierarchy; a process joins by writing 0 to `join_file`
        in each. Raises OSError.
        """
        made: list[Path] = []
        try:
            for controller, files in (
                ("memory", self._memory_files(memory)),
                ("cpu", [*self._cpu_files(cpu), *self._weight_files(weight)]),
            ):
                if not files or controller not in self.folders:
                    continue
                folder = self.folders[controller] / name
                if folder not in made:
                    folder.mkdir()
                    made.append(folder)
                for file, text in files:
                    (folder / file).write_text(text)
            # Swap would let a worker exceed its memory limit. Not every kernel accounts for it.
            if memory and "memory" in self.folders:
                self._limit_swap(self.folders["memory"] / name, memory)
        except OSError:
            remove(made)
            raise
        return tuple(made)

    def _memory_files(self, memory: int) -> list[tuple[str, str]]:
        if not memory:
            return []
        if self.version == 1:
            return [("memory.limit_in_bytes", str(memory))]
        # Out of memory ends the worker as a whole: the remains of one would hang its requests.
        return [("memory.max", str(memory)), ("memory.oom.group", "1")]

    def _cpu_files(self, cpu: float) -> list[tuple[str, str]]:
        if not cpu:
            return []
        quota = max(1000, int(cpu * CPU_PERIOD))  # the kernel's minimum quota is 1 ms
        if self.version == 1:
            return [("cpu.cfs_period_us", str(CPU_PERIOD)), ("cpu.cfs_quota_us", str(quota))]
        return [("cpu.max", f"{quota} {CPU_PERIOD}")]

    def _weight_files(self, weight: int) -> list[tuple[str, str]]:
        if not weight:
            return []
        if self.version == 1:
            return [("cpu.shares", str(_USUAL_SHARES * weight // 100))]
        return [("cpu.weight", str(weight))]

    def _limit_swap(self, folder: Path, memory: int) -> None:
        file, text = (
            ("memory.memsw.limit_in_bytes", str(memory))
            if self.version == 1
            else ("memory.swap.max", "0")
        )
        with contextlib.suppress(FileNotFoundError, PermissionError):
            # Opened without O_CREAT: a missing file means a kernel without swap accounting.
            descriptor = os.open(folder / file, os.O_WRONLY)
            try:
                os.write(descriptor, text.encode())
            finally:
                os.close(descriptor)


def remove(folders: tuple[Path, ...] | list[Path]) -> bool:
    """Remove a group if it holds no process; returns whether the group is gone."""
    gone = True
    for folder in folders:
        try:
            folder.rmdir()
        except FileNotFoundError:
            continue
        except OSError:  # EBUSY: a process has not ended yet
            gone = False
    return gone


def out_of_memory(folders: Iterable[Path]) -> bool:
    """Whether the kernel has ended a process of a group because its memory limit was met."""
    for folder in folders:
        for file in ("memory.events", "memory.oom_control"):  # version 2, version 1
            with contextlib.suppress(OSError):
                counts = dict(line.split() for line in (folder / file).read_text().splitlines())
                return counts.get("oom_kill", "0") != "0"
    return False


def group_name(token: str, number: int) -> str:
    """The name of one of this gateway's groups, from the launcher's `token` and a number."""
    return f"{OWN}-{token}-{number}"


def find_cgroups(*, own: str | None = None, mounts: str | None = None) -> Cgroups:
    """The groups that this process may divide. May move this process into a child of its own group
    (version 2).

    `own` and `mounts` are the texts of /proc/self/cgroup and /proc/self/mounts, which tests
    replace.
    """
    points = _mount_points(Path("/proc/self/mounts").read_text() if mounts is None else mounts)
    paths = _own_paths(Path("/proc/self/cgroup").read_text() if own is None else own)
    if "cgroup2" in points and not any(each in points for each in CONTROLLERS):
        return _version_2(Path(points["cgroup2"]), paths.get("", "/"))
    return _version_1(points, paths)


def _mount_points(mounts: str) -> dict[str, str]:
    """Controller, or "cgroup2", to its mount point."""
    found: dict[str, str] = {}
    for line in mounts.splitlines():
        _, point, kind, options, *_ = line.split()
        if kind == "cgroup2":
            found["cgroup2"] = point
        elif kind == "cgroup":
            for option in options.split(","):
                if option in CONTROLLERS:
                    found[option] = point
    return found


def _own_paths(own: str) -> dict[str, str]:
    """Controller, or "" for version 2, to the path of this process's group in its hierarchy."""
    found: dict[str, str] = {}
    for line in own.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            found[controller] = path
    return found


def _version_1(points: Mapping[str, str], paths: Mapping[str, str]) -> Cgroups:
    folders: dict[str, Path] = {}
    reasons: dict[str, str] = {}
    for controller in CONTROLLERS:
        if controller not in points or controller not in paths:
            reasons[controller] = "this system has no such control group"
            continue
        # In a container the path may be the host's, which is not visible there: the container's
        # own group is then the top of the mount.
        top = Path(points[controller])
        own = top / paths[controller].lstrip("/")
        folder = own if own.is_dir() else top
        if _can_divide(folder):
            folders[controller] = folder
        else:
            reasons[controller] = (
                f"{folder} may not be divided by the user that the gateway runs as"
            )
    return Cgroups(1, folders, reasons)


def _version_2(top: Path, path: str) -> Cgroups:
    own = top / path.lstrip("/")
    parent = _handed_over(own, top)
    if parent is None:
        reason = f"the group {own} was not handed over to the gateway (systemd: Delegate=yes)"
        return Cgroups(2, {}, dict.fromkeys(CONTROLLERS, reason))
    available = (parent / "cgroup.controllers").read_text().split()
    reasons = {
        each: f"the group {parent} has no {each} controller"
        for each in CONTROLLERS
        if each not in available
    }
    wanted = [each for each in CONTROLLERS if each in available]
    try:
        _enable(parent, wanted)
    except OSError as error:
        reason = f"the group {parent} cannot be divided: {error.strerror or error}"
        return Cgroups(2, {}, dict.fromkeys(CONTROLLERS, reason))
    return Cgroups(2, dict.fromkeys(wanted, parent), reasons)


def _handed_over(own: Path, top: Path) -> Path | None:
    """The group to divide: the gateway's own, or its parent when the gateway is in a leaf
    already."""
    if own != top:
        in_leaf = own.name == _LEAF or _is_marked(own.parent)
        if in_leaf and _can_divide(own.parent):
            return own.parent
    # An ordinary user can write there only because somebody delegated it.
    handed_over = own == top or os.geteuid() != 0 or _is_marked(own)
    return own if handed_over and _can_divide(own) else None


def _is_marked(group: Path) -> bool:
    for name in _DELEGATED:
        with contextlib.suppress(OSError):
            if os.getxattr(group, name) == b"1":
                return True
    return False


def _enable(parent: Path, controllers: list[str]) -> None:
    enabled = (parent / "cgroup.subtree_control").read_text().split()
    if all(each in enabled for each in controllers):
        return
    leaf = parent / _LEAF
    leaf.mkdir(exist_ok=True)
    for pid in (parent / "cgroup.procs").read_text().split():
        if int(pid) == os.getpid():
            (leaf / "cgroup.procs").write_text(pid)
    (parent / "cgroup.subtree_control").write_text(" ".join(f"+{each}" for each in controllers))


def _can_divide(folder: Path) -> bool:
    """Whether a child group can be made here, found out by making one."""
    for attempt in itertools.count():
        trial = folder / group_name("trial", attempt)
        try:
            trial.mkdir()
        except FileExistsError:
            continue
        except OSError:
            return False
        trial.rmdir()
        return True
    return False
