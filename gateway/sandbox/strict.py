"""The strict sandbox: how one worker is started under bubblewrap.

Owns the command line: namespaces, mounts, the system call filter, resource limits, the drop of
privileges. Knows neither which paths are fit to be mounted (`mounts` does) nor how a process is
run.

Two forms, because bubblewrap can be started by two kinds of user. For an ordinary one it makes a
user namespace, in which the worker has no rights. For root it makes none: inside one, the worker
would still be root for the host's files; instead the mounts are made as root, so that what lies in
a private folder can be mounted too, and the worker drops to a user id of its own as the last step.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import resource
import secrets
import signal
import weakref
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from gateway.sandbox import cgroups as groups
from gateway.sandbox import listener
from gateway.sandbox.discover import ALTERNATIVES, CERTIFICATES, SYSTEM_FOLDERS
from gateway.sandbox.launch import Launch
from gateway.sandbox.mounts import contains
from gateway.sandbox.refusals import explain_refusal
from gateway.sandbox.uids import UidBlock

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gateway.config.sandbox import SandboxSettings
    from gateway.sandbox.mounts import Mount
    from gateway.sandbox.proxy import Proxy

HOSTNAME = "worker"
HOME = "/tmp"  # noqa: S108 - the sandbox's own
WORKER_UID = 1000
"""The worker's user and group id inside a user namespace."""

_ETC_SECRET = "/etc/ssl/private"  # noqa: S105 - a path; the machine's private keys
_COPIED = ("/etc/ld.so.cache", "/etc/localtime")
_KEPT_CAPABILITIES = ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")
"""What `setpriv` needs for giving up everything, itself included."""
_OUTSIDE = (
    'while [ "$1" != -- ]; do echo 0 > "$1" || exit 126; shift; done; shift; '
    'exec "$@" 3<&0 4>&1 </dev/null >/dev/null'
)
"""A process that joins its groups before it becomes bubblewrap leaves no moment without limits.
bubblewrap stays, and holds its standard streams open: it must not have the worker's, or nobody
would see the worker close them. What else it inherits it closes."""
_INSIDE = 'exec "$@" <&3 >&4 3<&- 4>&-'
"""With its limits set, the worker takes its stdin and stdout back."""
_BLOCK = 512
"""Bytes in which `ulimit -f` counts, as POSIX has it."""
_FIRST_FREE = 10
"""Descriptors below it are the shell's to name, which takes one digit."""

_SIGNALS = frozenset(signal.valid_signals())
_UNLIMITED = {"value": None, "enforced": False, "reason": "no limit was set"}


@dataclass(frozen=True, slots=True)
class Tools:
    """The programs that a sandbox is made with, by absolute path."""

    bwrap: str
    setpriv: str
    sh: str


@dataclass(frozen=True, slots=True)
class Plan:
    """All that is the same for every worker of an agent."""

    argv: tuple[str, ...]
    """The agent's command; its program is an absolute path."""
    env: Mapping[str, str]
    """The whole environment of the worker."""
    cwd: str
    mounts: tuple[Mount, ...]
    settings: SandboxSettings
    seccomp: bytes
    as_root: bool
    """Whether the gateway runs as root."""
    groups: tuple[int, ...] = ()
    """With root: the groups, besides its own, of a worker; they own its writable mounts."""


class StrictLauncher:
    """Starts the workers of one agent, each in a sandbox of its own."""

    def __init__(
        self,
        plan: Plan,
        *,
        tools: Tools,
        cgroups: groups.Cgroups,
        uids: UidBlock | None,
        proxy: Proxy | None = None,
    ) -> None:
        """`uids` are given where the gateway is root, `proxy` where the agent has a network."""
        self.plan = plan
        self._tools = tools
        self._cgroups = cgroups
        self._uids = uids
        self._proxy = proxy
        self._token = secrets.token_hex(4)
        self._numbers = itertools.count()
        self._made: list[tuple[Path, ...]] = []
        self._ended: list[tuple[Path, ...]] = []
        # Also at the end of the interpreter; what is left after a kill, the next gateway sweeps.
        weakref.finalize(self, _remove, self._made)
        groups.sweep(cgroups)

    def __repr__(self) -> str:
        return f"<StrictLauncher {self.plan.argv[0]} {len(self._made)} groups>"

    def with_plan(self, plan: Plan) -> StrictLauncher:
        """A launcher for another plan with the same tools, groups, user ids and proxy."""
        return StrictLauncher(
            plan, tools=self._tools, cgroups=self._cgroups, uids=self._uids, proxy=self._proxy
        )

    @contextlib.contextmanager
    def launch(self) -> Iterator[Launch]:
        """As `gateway.sandbox.launch.Launcher.launch`."""
        self.remove_groups()
        plan = self.plan
        uid = WORKER_UID if self._uids is None else self._uids.take()
        with contextlib.ExitStack() as stack:
            # bubblewrap reads each to its end and moves the offset that all copies share: every
            # start has its own.
            files = {
                path: _memory_file(stack, content) for path, content in _etc_files(uid).items()
            }
            seccomp = _memory_file(stack, plan.seccomp)
            options = [*_bwrap_options(plan, files=files), "--seccomp", str(seccomp)]
            inherited = [*files.values(), seccomp]
            before: tuple[str, ...] = ()
            if self._proxy is not None:
                # The proxy serves the worker for as long as this is open: bubblewrap holds a copy,
                # the worker's own is closed when the agent starts.
                handed_out = stack.enter_context(self._proxy.announce())
                handed_out = _inheritable(stack, handed_out)
                held = _inheritable(stack, handed_out)
                options += ["--sync-fd", str(held)]
                inherited += [handed_out, held]
                before = listener.command(handed_out)
            # Not on the command line, which the worker can read in /proc/1/cmdline.
            arguments = _memory_file(stack, b"".join(os.fsencode(each) + b"\0" for each in options))
            group = self._new_group()
            # Not when it is empty: it is so until its worker has joined it, too.
            release = partial(self._ended.append, group)
            try:
                yield Launch(
                    argv=(
                        *self._outside(group),
                        *(self._tools.bwrap, "--args", str(arguments), "--"),
                        *self._inside(uid),
                        *before,
                        *plan.argv,
                    ),
                    # What bubblewrap itself is given can be read in /proc/1/environ.
                    env={},
                    cwd="/",
                    pass_fds=(*inherited, arguments),
                    uid=uid if plan.as_root else None,
                    release=release,
                )
            except BaseException:
                release()  # nothing was started in it
                raise

    def exit_status(self, returncode: int) -> int:
        """As `gateway.sandbox.launch.Launcher.exit_status`.

        bubblewrap ends with 128 and the number when a signal ended the command, as shells do.
        """
        number = returncode - 128
        return -number if number in _SIGNALS else returncode

    def explain(self, exit_status: int, stderr_tail: Sequence[str]) -> str | None:
        """As `gateway.sandbox.launch.Launcher.explain`."""
        return explain_refusal(stderr_tail) if exit_status > 0 else None

    def describe(self) -> dict[str, Any]:
        """As `gateway.sandbox.launch.Launcher.describe`: plain values, ready for JSON."""
        plan, settings, rlimits = self.plan, self.plan.settings, self.rlimits()
        return {
            "level": "strict",
            "user": "an own user id for each worker"
            if plan.as_root
            else "the gateway's own, without its rights, in a user namespace",
            "network": list(settings.network_hosts) or False,
            "limits": {name: self._limit(name) for name in groups.CONTROLLERS}
            | {
                "pids": _enforced(settings.pids, "rlimit") if settings.pids else _UNLIMITED,
                "tmp": _enforced(settings.tmp_bytes, "tmpfs"),
                "nofile": _enforced(rlimits["nofile"], "rlimit"),
                "fsize": _enforced(rlimits["fsize"], "rlimit")
                if "fsize" in rlimits
                else _UNLIMITED,
            },
            "mounts": {
                mount.path: "read-write" if mount.writable else "read-only" for mount in plan.mounts
            },
            "env": sorted(plan.env),
            "cwd": plan.cwd,
        }

    def remove_groups(self) -> None:
        """Remove the control groups of the workers that have ended."""
        _remove(self._ended)
        self._made[:] = [group for group in self._made if group and group[0].exists()]

    def processes(self) -> Sequence[int]:
        """As `gateway.sandbox.launch.Launcher.processes`."""
        pid = None if self._proxy is None else self._proxy.pid
        return () if pid is None else (pid,)

    def close(self) -> None:
        """Give back what the launcher holds, when its workers have ended. Blocks for a moment."""
        _remove(self._made)
        if self._proxy is not None:
            self._proxy.close()

    def _limit(self, name: str) -> dict[str, Any]:
        settings = self.plan.settings
        value = settings.memory_bytes if name == "memory" else getattr(settings, name)
        if not value:
            return _UNLIMITED
        if name in self._cgroups.folders:
            return _enforced(value, f"cgroup v{self._cgroups.version}")
        return {"value": value, "enforced": False, "reason": self._cgroups.reasons[name]}

    def _new_group(self) -> tuple[Path, ...]:
        settings = self.plan.settings
        group = self._cgroups.new(
            groups.group_name(self._token, next(self._numbers)),
            memory=settings.memory_bytes,
            cpu=settings.cpu,
        )
        if group:
            self._made.append(group)
        return group

    def _outside(self, group: tuple[Path, ...]) -> tuple[str, ...]:
        files = (str(folder / self._cgroups.join_file) for folder in group)
        return (self._tools.sh, "-c", _OUTSIDE, "join-cgroup", *files, "--")

    def _inside(self, uid: int) -> tuple[str, ...]:
        """What runs inside before the agent's command: limits, and with root the drop of it.

        The limit of processes must be set here: outside it would count all of the user's.
        """
        limits = self.rlimits()
        words = ["ulimit -c 0", f"ulimit -n {limits['nofile']}"]
        if "fsize" in limits:
            words.append(f"ulimit -f {limits['fsize'] // _BLOCK}")
        if "nproc" in limits:
            # The letter is p in dash and ash, and u in bash and ksh.
            number = limits["nproc"]
            words.append(f"{{ ulimit -p {number} 2>/dev/null || ulimit -u {number}; }}")
        script = f"{{ {' && '.join(words)}; }} || exit 126; {_INSIDE}"
        limited = (self._tools.sh, "-c", script, "set-limits")
        if not self.plan.as_root:
            return limited
        return (
            *limited,
            self._tools.setpriv,
            *(f"--reuid={uid}", f"--regid={uid}"),
            f"--groups={','.join(map(str, self.plan.groups))}"
            if self.plan.groups
            else "--clear-groups",
            *("--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", "--no-new-privs"),
            "--",
        )

    def rlimits(self) -> dict[str, int]:
        """What a process inside is held to, in the kernel's numbers; without what has no limit."""
        settings = self.plan.settings
        found = {"nofile": _capped(resource.RLIMIT_NOFILE, settings.nofile)}
        if settings.fsize_bytes:
            whole = -(-settings.fsize_bytes // _BLOCK) * _BLOCK
            found["fsize"] = _capped(resource.RLIMIT_FSIZE, whole) // _BLOCK * _BLOCK
        if settings.pids:
            # In the user namespace bubblewrap's init counts as well.
            own = 0 if self.plan.as_root else 1
            found["nproc"] = _capped(resource.RLIMIT_NPROC, settings.pids + own)
        return found


def _remove(made: list[tuple[Path, ...]]) -> None:
    made[:] = [group for group in made if not groups.remove(group)]


def _bwrap_options(plan: Plan, *, files: Mapping[str, int]) -> list[str]:
    """bubblewrap's options but for the filter; `files` are texts for the sandbox's own /etc."""
    tmp = str(plan.settings.tmp_bytes)
    options = [
        "--unshare-pid",
        "--unshare-ipc",
        "--unshare-uts",
        "--unshare-net",
        "--unshare-cgroup",
    ]
    if plan.as_root:
        options += ["--cap-drop", "ALL"]
        for capability in _KEPT_CAPABILITIES:
            options += ["--cap-add", capability]
    else:
        options += ["--unshare-user", "--disable-userns", "--cap-drop", "ALL"]
        options += ["--uid", str(WORKER_UID), "--gid", str(WORKER_UID)]
    options += ["--die-with-parent", "--new-session", "--hostname", HOSTNAME, "--clearenv"]
    for name, value in plan.env.items():
        options += ["--setenv", name, value]

    options += ["--proc", "/proc", "--dev", "/dev"]
    for folder in ("/tmp", "/dev/shm"):  # noqa: S108 - the sandbox's own
        options += ["--perms", "1777", "--size", tmp, "--tmpfs", folder]
    for folder in _folders(plan):
        options += ["--perms", "0755", "--dir", folder]
    options += ["--symlink", "../tmp", "/var/tmp"]  # noqa: S108 - the sandbox's own
    options += _system_mounts(network=bool(plan.settings.network_hosts))
    for path, descriptor in files.items():
        options += ["--perms", "0444", "--file", str(descriptor), path]
    for mount in plan.mounts:
        options += ["--bind" if mount.writable else "--ro-bind", mount.source, mount.path]
    # Last, when nothing has to be created any more. Not recursive: /tmp and /dev/shm stay writable.
    for folder in ("/proc", "/dev", "/"):
        options += ["--remount-ro", folder]
    return [*options, "--chdir", plan.cwd]


def _folders(plan: Plan) -> list[str]:
    """What has to be made for mounts to be put on, parents first.

    bubblewrap would make it as private as what is mounted, and then keep the worker's user out.
    """
    leaves = ["/etc/x", "/run/x", "/var/x", f"{plan.cwd}/x", *(mount.path for mount in plan.mounts)]
    above = {str(parent) for leaf in leaves for parent in PurePath(leaf).parents}
    shown = [*SYSTEM_FOLDERS, *(mount.path for mount in plan.mounts)]
    return sorted(
        each
        for each in above - {"/", "/tmp"}  # noqa: S108 - both are there already
        if not any(contains(path, each) for path in shown)
    )


def _system_mounts(*, network: bool) -> list[str]:
    options: list[str] = []
    for folder in SYSTEM_FOLDERS:
        if os.path.islink(folder):
            options += ["--symlink", os.readlink(folder), folder]
        elif os.path.isdir(folder):
            options += ["--ro-bind", folder, folder]
    for path in (ALTERNATIVES, *(CERTIFICATES if network else ())):
        if os.path.exists(path):
            options += ["--ro-bind", path, path]
    if network and os.path.isdir(_ETC_SECRET):
        options += ["--perms", "0000", "--tmpfs", _ETC_SECRET, "--remount-ro", _ETC_SECRET]
    return options


def _etc_files(uid: int) -> dict[str, bytes]:
    """What programs look for in /etc: names for the users and the host that there are, libraries
    and the time zone. Copied, because a file costs a start less than a mount.
    """
    files = {
        "/etc/passwd": f"root:x:0:0::/:/bin/false\n{HOSTNAME}:x:{uid}:{uid}::{HOME}:/bin/sh\n",
        "/etc/group": f"root:x:0:\n{HOSTNAME}:x:{uid}:\n",
        "/etc/hosts": f"127.0.0.1 localhost {HOSTNAME}\n::1 localhost\n",
    }
    found = {path: text.encode() for path, text in files.items()}
    for path in _COPIED:
        with contextlib.suppress(FileNotFoundError):
            found[path] = Path(path).read_bytes()
    return found


def _memory_file(stack: contextlib.ExitStack, content: bytes) -> int:
    with open(os.memfd_create("sandbox"), "wb") as file:
        descriptor = _inheritable(stack, file.fileno())
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _inheritable(stack: contextlib.ExitStack, descriptor: int) -> int:
    """A copy whose number a worker can inherit."""
    copy = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)
    stack.callback(os.close, copy)
    return copy


def _capped(limit: int, wanted: int) -> int:
    """`wanted`, or the gateway's own hard limit where that is lower: it cannot be raised."""
    hard = resource.getrlimit(limit)[1]
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)


def _enforced(value: float, by: str) -> dict[str, Any]:
    return {"value": value, "enforced": True, "by": by}
