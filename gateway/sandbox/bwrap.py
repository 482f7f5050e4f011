"""The command line of one worker's sandbox, from a description of it: no I/O, and no state.

Owns the order of namespaces, mounts, limits and the drop of privileges. Knows neither which paths
may be mounted (`mounts` does), nor what the machine has (`strict` asks it), nor how a process is
started.

# Theory of operation

A start is a chain of programs, each of which executes the next:

    sh        joins the control groups, and puts the worker's pipes out of bubblewrap's way
    bwrap     makes the namespaces, mounts the files, loads the system call filter
    sh        inside: sets the resource limits, and takes the worker's pipes back
    setpriv   inside, unless the worker keeps the gateway's user id: takes on its own, and drops
              every capability
    listener  inside, with a network only: opens the proxy's port
    COMMAND   the agent's own

There are three forms, because bubblewrap can be started by three kinds of user:

*Root* starts bubblewrap without a user namespace: inside one, the worker would still be root for
the host's files. The mounts are made as root, so that what lies in a private folder can be mounted
too, and `setpriv` then changes to a user id of the worker's own.

*An ordinary user with subordinate ids* has bubblewrap make a user namespace, and wait. The first
shell has forked before: that process reads from bubblewrap who waits, maps the user's own id to
root and the worker's to `WORKER_UID`, and lets bubblewrap go on by ending. `setpriv` changes to the
worker's id as with root. If a map is missing, that change fails, and the command is not run.

*An ordinary user without them* has a user namespace in which its own id is the worker's.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING

from gateway.sandbox.files.mounts import Mount
from gateway.sandbox.files.places import SYSTEM_FOLDERS, contains

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.config.sandbox import SandboxSettings
    from gateway.sandbox.limits.subordinate import Mappers

HOSTNAME = "worker"
HOME = "/tmp"  # noqa: S108 - the sandbox's own
STATE = "/state"
"""Where a worker sees the folder that outlives it, which is its HOME then."""
WORKER_UID = 1000
"""The worker's user and group id inside a user namespace."""
ULIMIT_BLOCK = 512
"""Bytes in which `ulimit -f` counts (POSIX)."""

_KEPT_CAPABILITIES = ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")
"""What `setpriv` needs for giving up everything, these included."""
_JOIN = 'while [ "$1" != -- ]; do echo 0 > "$1" || exit 126; shift; done; shift; '
_BECOME = 'exec "$@" 3<&0 4>&1 </dev/null >/dev/null'
"""A process that joins its groups before it becomes bubblewrap is never without limits. bubblewrap
outlives the start and keeps its standard streams open: were they the worker's, the gateway could
not see the worker close them. It closes every other descriptor that it inherits."""
INFO_FD, BLOCK_FD = 5, 8
"""Where bubblewrap says who waits for ids, and where it waits."""
_MAP = (
    "exec 7<<E 8<<E\nE\nE\n"
    "exec 5>/proc/self/fd/7 6>/proc/self/fd/8 || exit 126; "
    "( exec 5>&- 8<&-; while read -r key value; do "
    """case $key in '"child-pid":') pid=${{value%,}};; '}}') break;; esac; done <&7; """
    '{newuidmap} "$pid" {uid_map} && {nsenter} --user --preserve-credentials --target "$pid" '
    "{sh} -c 'echo 0 >/proc/sys/user/max_user_namespaces' "
    '&& {newgidmap} "$pid" {gid_map} ) </dev/null >/dev/null & '
    "exec 6>&- 7<&-; "
)
"""Maps ids for bubblewrap, beside it. A shell makes a pipe of an empty here-document, and opens its
other end by its path. Only bubblewrap holds the end at which it says who waits, and only this
process the one that bubblewrap waits for: whichever dies, the other sees the end. Further user
namespaces are disabled between the maps, because the second is what the worker cannot do without.
(bubblewrap's own way of disabling them does not go with ids from outside. It ignores children that
it does not know.)"""
_INSIDE = f'exec "$@" <&3 >&4 3<&- 4>&- {BLOCK_FD}<&-'
"""Once its limits are set, the worker takes its stdin and stdout back."""


@dataclass(frozen=True, slots=True)
class Tools:
    """The programs that a sandbox is made with, by absolute path."""

    bwrap: str
    setpriv: str
    sh: str


@dataclass(frozen=True, slots=True)
class IdMapping:
    """What maps a worker's ids into a user namespace."""

    mappers: Mappers
    uid_map: tuple[str, ...]
    gid_map: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class System:
    """What every sandbox shows of the machine, under the same paths."""

    links: tuple[tuple[str, str], ...] = ()
    """Symbolic links: path and target."""
    shown: tuple[str, ...] = ()
    """Files and folders, read-only."""
    hidden: tuple[str, ...] = ()
    """Folders within these that are covered with an empty one."""
    hidden_files: tuple[str, ...] = ()
    """Files within these that cannot be opened."""


@dataclass(frozen=True, slots=True)
class Confinement:
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
    system: System = System()
    home: Mount | None = None
    """The folder that outlives the worker."""
    protected: tuple[Mount, ...] = ()
    """What is read-only within writable mounts."""
    masked: tuple[Mount, ...] = ()
    """Files within mounts that cannot be opened: `path` in the sandbox, `source` on the host."""
    exposed: tuple[str, ...] = ()
    """Files that look secret and are shown, because the operator named what holds them."""
    not_shown: tuple[str, ...] = ()
    """Paths of the command that are shown only if the operator names them."""
    code: tuple[str, ...] = ()
    """The paths of the program and of everything that was guessed, as spelled and resolved."""
    subordinate: bool = False
    """Whether each worker has a subordinate id of the user that runs the gateway."""
    why_shared: str = ""
    """Why the workers have the gateway's own user id on the host, if they do."""

    @property
    def changes_user(self) -> bool:
        """Whether each worker has a user id of its own on the host."""
        return self.as_root or self.subordinate

    def with_home(self, source: str) -> Confinement:
        """The same, with a folder that outlives the worker as its HOME, unless `env` sets that."""
        env = self.env if "HOME" in self.settings.env else {**self.env, "HOME": STATE}
        return replace(self, env=env, home=Mount(STATE, source, writable=True))


def outside_command(
    tools: Tools,
    join_files: Sequence[str],
    *,
    mapping: IdMapping | None = None,
    most_processes: int | None = None,
) -> tuple[str, ...]:
    """What stands before bubblewrap: it writes 0 to each of `join_files`, which joins that group.

    Its stdin and stdout become the descriptors 3 and 4 of what runs inside. `most_processes` of the
    gateway's user may run, the gateway's own among them, for a worker to start another one.
    """
    script = _JOIN
    if most_processes is not None:
        script += _limit_processes("-S ", most_processes) + " || exit 126; "
    if mapping is not None:
        script += _MAP.format(
            sh=shlex.quote(tools.sh),
            nsenter=shlex.quote(mapping.mappers.nsenter),
            newuidmap=shlex.quote(mapping.mappers.newuidmap),
            newgidmap=shlex.quote(mapping.mappers.newgidmap),
            uid_map=" ".join(mapping.uid_map),
            gid_map=" ".join(mapping.gid_map),
        )
    return (tools.sh, "-c", script + _BECOME, "join-cgroup", *join_files, "--")


def _limit_processes(kind: str, number: int) -> str:
    # The letter is p in dash and ash, and u in bash and ksh.
    return f"{{ ulimit {kind}-p {number} 2>/dev/null || ulimit {kind}-u {number}; }}"


def inside_command(
    tools: Tools, confinement: Confinement, *, uid: int, rlimits: Mapping[str, int], mark: str
) -> tuple[str, ...]:
    """What stands inside before the agent's command: limits, and the change to the worker's user.

    `rlimits` are the kernel's numbers by the names "nofile", "fsize" and "nproc"; what is absent is
    not limited here. The limit on processes must be set inside: outside, it would count all
    processes of the gateway's user.
    `mark` stands on the command line of every process of the start, and of bubblewrap to the end.
    """
    words = [f": {mark}", "ulimit -c 0"]
    if "nofile" in rlimits:
        words.append(f"ulimit -n {rlimits['nofile']}")
    if "fsize" in rlimits:
        words.append(f"ulimit -f {rlimits['fsize'] // ULIMIT_BLOCK}")
    if "nproc" in rlimits:
        words.append(_limit_processes("", rlimits["nproc"]))
    script = f"{{ {' && '.join(words)}; }} || exit 126; {_INSIDE}"
    limited = (tools.sh, "-c", script, "set-limits")
    if not confinement.changes_user:
        return limited
    groups = ",".join(map(str, confinement.groups))
    return (
        *limited,
        tools.setpriv,
        *(f"--reuid={uid}", f"--regid={uid}"),
        f"--groups={groups}" if groups else "--clear-groups",
        *("--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", "--no-new-privs"),
        "--",
    )


def bwrap_options(
    confinement: Confinement, *, files: Mapping[str, int], held: Mapping[str, int] | None = None
) -> list[str]:
    """bubblewrap's options, without the filter's; `files` are descriptors of texts by their paths
    in the sandbox's own /etc, and `held` of what is protected by its sources.
    """
    return [
        *_namespaces(confinement),
        *_environment(confinement.env),
        *_own_folders(confinement),
        *_shown(confinement, files=files, held=held or {}),
        # Last, when nothing has to be created any more. Not recursive: /tmp and /dev/shm stay
        # writable.
        *(option for folder in ("/proc", "/dev", "/") for option in ("--remount-ro", folder)),
        *("--chdir", confinement.cwd),
    ]


def _namespaces(confinement: Confinement) -> list[str]:
    options = [f"--unshare-{each}" for each in ("pid", "ipc", "uts", "net", "cgroup")]
    if not confinement.as_root:
        options.append("--unshare-user")
    if confinement.changes_user:
        options += ["--cap-drop", "ALL"]
        for capability in _KEPT_CAPABILITIES:
            options += ["--cap-add", capability]
    else:
        options += ["--disable-userns", "--cap-drop", "ALL"]
        options += ["--uid", str(WORKER_UID), "--gid", str(WORKER_UID)]
    return [*options, "--die-with-parent", "--new-session", "--hostname", HOSTNAME]


def _environment(env: Mapping[str, str]) -> list[str]:
    options = ["--clearenv"]
    for name, value in env.items():
        options += ["--setenv", name, value]
    return options


def _own_folders(confinement: Confinement) -> list[str]:
    options = ["--proc", "/proc", "--dev", "/dev"]
    for folder in ("/tmp", "/dev/shm"):  # noqa: S108 - the sandbox's own
        options += ["--perms", "1777", "--size", str(confinement.settings.tmp_bytes)]
        options += ["--tmpfs", folder]
    for folder in _mount_points(confinement):
        options += ["--perms", "0755", "--dir", folder]
    return [*options, "--symlink", "../tmp", "/var/tmp"]  # noqa: S108 - the sandbox's own


def _shown(
    confinement: Confinement, *, files: Mapping[str, int], held: Mapping[str, int]
) -> list[str]:
    options: list[str] = []
    for path, target in confinement.system.links:
        options += ["--symlink", target, path]
    for path in confinement.system.shown:
        options += ["--ro-bind", path, path]
    for path in confinement.system.hidden:
        options += ["--perms", "0000", "--tmpfs", path, "--remount-ro", path]
    for path in confinement.system.hidden_files:
        options += _mask(path)
    for path, descriptor in files.items():
        options += ["--perms", "0444", "--file", str(descriptor), path]
    for mount in confinement.mounts:
        options += ["--bind" if mount.writable else "--ro-bind", mount.source, mount.path]
    if confinement.home is not None:
        options += ["--bind", confinement.home.source, confinement.home.path]
    for mount in confinement.protected:
        if mount.source in held:
            # Fails unless this very file or folder is found under its name, and then mounted.
            options += ["--ro-bind-fd", str(held[mount.source]), mount.path]
        else:
            options += ["--ro-bind", mount.source, mount.path]
    for mount in confinement.masked:
        options += _mask(mount.path)
    return options


def _mask(path: str) -> tuple[str, ...]:
    """Put a device over a file, in a mount that allows no devices: every attempt to open it
    fails."""
    return ("--ro-bind", os.devnull, path)


def _mount_points(confinement: Confinement) -> list[str]:
    """The folders that have to be made before anything is mounted on or in them, parents first.

    bubblewrap would make them as private as what is mounted, and so keep the worker's user out.
    """
    homes = () if confinement.home is None else (confinement.home,)
    mounted = [mount.path for mount in (*confinement.mounts, *homes)]
    leaves = ["/etc/x", "/run/x", "/var/x", f"{confinement.cwd}/x", *mounted]
    above = {str(parent) for leaf in leaves for parent in PurePath(leaf).parents}
    shown = [*SYSTEM_FOLDERS, *mounted]
    return sorted(
        each
        for each in above - {"/", "/tmp"}  # noqa: S108 - both are there already
        if not any(contains(path, each) for path in shown)
    )
