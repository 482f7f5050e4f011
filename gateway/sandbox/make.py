"""From an agent's command and settings to the launcher of its workers.

This module owns the checks that need a look at the machine, and the choice of level: the one that
was asked for, or SandboxError. It does not try the result (`trial` does).
"""

from __future__ import annotations

import functools
import logging
import os
import stat
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gateway.sandbox.bwrap import STATE, Confinement, System
from gateway.sandbox.environment import worker_environment
from gateway.sandbox.files import node
from gateway.sandbox.files.commands import UNBUFFERED, unshadowed
from gateway.sandbox.files.discover import discover, own_interpreter
from gateway.sandbox.files.mounts import (
    check_mounts_apart,
    find_masked,
    find_private,
    find_protected,
    find_shown_secrets,
    plan_mounts,
)
from gateway.sandbox.files.places import (
    ALTERNATIVES,
    CERTIFICATES,
    SYSTEM_FOLDERS,
    is_system,
    overlap,
)
from gateway.sandbox.limits.cgroups import find_cgroups
from gateway.sandbox.limits.guard import Guard
from gateway.sandbox.limits.seccomp import filter_program
from gateway.sandbox.limits.shared import keep_half_of_the_signals
from gateway.sandbox.limits.subordinate import (
    NoSubordinateIds,
    SubordinateIds,
    find_subordinate_ids,
)
from gateway.sandbox.limits.uids import UidBlock, free_range, split_ids
from gateway.sandbox.network.metering import Meter
from gateway.sandbox.network.proxy import DOOR, Proxy
from gateway.sandbox.plain import PlainLauncher
from gateway.sandbox.refusals import SandboxError
from gateway.sandbox.strict import StrictLauncher
from gateway.sandbox.tools import SYSTEM_PATH, find_tools

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.config.sandbox import SandboxSettings
    from gateway.config.services import Service
    from gateway.sandbox.files.mounts import Mount
    from gateway.sandbox.files.state import AgentState
    from gateway.sandbox.launch import Launcher

Level = Literal["strict", "off"]

_log = logging.getLogger(__name__)

_TOLD = 10
"""Paths that one line of the log names. `--check` shows all."""
_PRIVATE_KEYS = "/etc/ssl/private"
"""The machine's own, beside its certificates."""
_HIDDEN_FOLDERS = ("/proc/acpi", "/proc/asound", "/proc/scsi")
_HIDDEN_FILES = tuple(
    f"/proc/{name}"
    for name in (
        *("cmdline", "config.gz", "interrupts", "kcore", "keys", "latency_stats", "sched_debug"),
        *("sys/kernel/random/boot_id", "timer_list", "timer_stats"),
    )
)
"""What tells of the machine and not of the worker: Docker's masked paths, and what identifies the
machine. What programs adapt to (cpuinfo, meminfo, stat) stays. Each mask takes 0.3 ms of a start,
so that only what others may read is masked."""


def make_launcher(
    agent_name: str,
    argv: Sequence[str],
    settings: SandboxSettings,
    *,
    level: Level = "strict",
    environ: Mapping[str, str],
    cwd: str,
    secrets: Sequence[str] = (),
    state: AgentState | None = None,
    workers: int = 1,
    services: Sequence[Service] = (),
    meter: Meter | None = None,
) -> Launcher:
    """The launcher of the workers of `agent_name`, at exactly the level that was asked for.

    `environ` is the gateway's environment, of which PATH finds the program; `cwd` is the absolute
    folder that relative paths start from; `secrets` are paths that no agent may see. `state` is
    what the agent has that outlives its workers, of which there are at most `workers` at a time;
    `services` are what it may use; `meter` is what the agent has had, if it was served before.
    Raises SandboxError, whose one line names the agent, when the sandbox cannot be made.
    """
    cwd = working_folder(settings, cwd)
    try:
        if not os.path.isdir(cwd):
            raise SandboxError(f"cwd: the folder {cwd} does not exist")
        if level == "off":
            if services:
                raise SandboxError(
                    f"services: {services[0].name} needs the strict sandbox, without which the "
                    "agent could take the key from the gateway"
                )
            _log.warning(
                "agent %r runs WITHOUT a sandbox: it can do all that the gateway can", agent_name
            )
            env = {**UNBUFFERED, **environ, **settings.env}
            return PlainLauncher(unshadowed(argv), env, cwd, state)
        return _make_strict(
            agent_name,
            argv,
            settings,
            environ=environ,
            cwd=cwd,
            secrets=secrets,
            state=state,
            workers=workers,
            services=services,
            meter=Meter() if meter is None else meter,
        )
    except (SandboxError, OSError) as error:
        raise SandboxError(f"agent {agent_name!r}: {error}") from error


def working_folder(settings: SandboxSettings, cwd: str) -> str:
    """The absolute folder that the agent's command starts in; `cwd` is the gateway's."""
    return os.path.abspath(os.path.join(cwd, os.path.expanduser(settings.cwd or "")))


def _make_strict(
    agent_name: str,
    argv: Sequence[str],
    settings: SandboxSettings,
    *,
    environ: Mapping[str, str],
    cwd: str,
    secrets: Sequence[str],
    state: AgentState | None,
    workers: int,
    services: Sequence[Service],
    meter: Meter,
) -> StrictLauncher:
    tools = find_tools()
    needs = discover(argv, cwd=cwd, search_path=environ.get("PATH", os.defpath))
    mounts = plan_mounts(
        found=[
            *needs.paths,
            *(own_interpreter() if settings.network_hosts or services else ()),
            *((node.PROXIED,) if settings.network_hosts else ()),
        ],
        mounts_ro=settings.mounts_ro if settings.cwd is None else (*settings.mounts_ro, cwd),
        mounts_rw=settings.mounts_rw,
        secrets=secrets,
        cwd=cwd,
    )
    cgroups = find_cgroups()
    for name in settings.require:
        value = settings.memory_bytes if name == "memory" else getattr(settings, name)
        if not value:
            raise SandboxError(f"require names {name!r}, for which no limit is set")
        if name not in cgroups.folders and name != "pids":
            raise SandboxError(
                f"require names {name!r}, which cannot be enforced here: {cgroups.reasons[name]}"
            )
    ids = _worker_ids()
    as_root = ids is not None
    if as_root:
        shown = [mount.source for mount in mounts if not mount.writable]
        _check_readable([*shown, *(path for path in needs.files if not is_system(path))])
    named = [
        os.path.join(cwd, os.path.expanduser(path))
        for path in (*settings.mounts_ro, *settings.mounts_rw)
    ]
    masked = find_masked(
        mounts,
        projects=needs.projects if settings.cwd is None else [*needs.projects, cwd],
        named=[*needs.files, *named],
    )
    subordinate, why_shared = None, ""
    if not as_root:
        keep_half_of_the_signals()
        subordinate, why_shared = _subordinate_ids(mounts, masked, state)
    watched = bool(settings.memory_bytes) and "memory" not in cgroups.folders
    confinement = Confinement(
        argv=(needs.program, *unshadowed(argv)[1:]),
        env=worker_environment(settings, environ, bin_dirs=needs.bin_dirs, services=services),
        cwd=cwd,
        mounts=mounts,
        settings=settings,
        seccomp=filter_program(shares_limits=not as_root, watches_memory=watched),
        as_root=as_root,
        subordinate=subordinate is not None,
        why_shared=why_shared,
        groups=_writing_groups(mounts) if as_root else (),
        system=_find_system(network=bool(settings.network_hosts)),
        protected=find_protected(mounts),
        masked=masked,
        exposed=find_shown_secrets(mounts, named=named),
        not_shown=tuple(dict.fromkeys(needs.not_shown)),
        code=(
            *(needs.program, *needs.paths),
            *(os.path.realpath(path) for path in (needs.program, *needs.paths)),
        ),
    )
    _tell(agent_name, confinement)
    if state is not None and any(overlap(mount.path, STATE) for mount in mounts):
        raise SandboxError(f"{STATE} is where the agent sees its own folder: mount nothing there")
    uids = None if ids is None else UidBlock(split_ids(ids)[1])
    make_process = partial(Proxy, agent_name, meter=meter, tools=tools, seccomp=confinement.seccomp)
    proxy = door = None
    if settings.network_hosts:
        uid = None if uids is None else uids.take()
        proxy = make_process(settings.network_rules, uid=uid)
    if services:
        uid = None if uids is None else uids.take()
        rules = {"services": {each.name: each.rules() for each in services}}
        door = make_process(rules, program=DOOR, uid=uid, trust=True)
    return StrictLauncher(
        confinement,
        tools=tools,
        cgroups=cgroups,
        uids=uids,
        subordinate=subordinate,
        guard=_guard(),
        proxy=proxy,
        door=door,
        services=services,
        meter=meter,
        state=state,
        # Of a conversation's folder, one worker at a time.
        sharing=workers if as_root and state is not None and not state.per_conversation else 1,
    )


@functools.cache
def _guard() -> Guard:
    """The one guard of this process, for all of its agents."""
    return Guard()


@functools.cache
def _all_subordinate_ids() -> SubordinateIds | NoSubordinateIds:
    """Those of the user that runs this process, for all of its agents; or why there are none."""
    try:
        return find_subordinate_ids(search_path=SYSTEM_PATH)
    except NoSubordinateIds as error:
        return error


def _subordinate_ids(
    mounts: Sequence[Mount], masked: Sequence[Mount], state: AgentState | None
) -> tuple[SubordinateIds | None, str]:
    """Where an agent's workers get user ids from, or why they have to have the gateway's own.

    A worker with another id could not change what is the user's (`mounts_rw`, `state`), nor read
    what only the user may.
    """
    if state is not None:
        return None, "state is the user's own, and nobody else could write there"
    if any(mount.writable for mount in mounts):
        return None, "mounts_rw is the user's own, and nobody else could write there"
    found = _all_subordinate_ids()
    if isinstance(found, NoSubordinateIds):
        return None, str(found)
    private = find_private(mounts, besides={mount.source for mount in masked})
    if private is not None:
        return None, f"only its owner can read {private} (chmod -R o+rX)"
    return found, ""


def check_apart(launchers: Mapping[str, Launcher]) -> None:
    """Check that no agent's workers may change what another agent's are shown or run.

    Raises SandboxError, whose one line names both agents.
    """
    strict = {
        name: launcher.confinement
        for name, launcher in launchers.items()
        if isinstance(launcher, StrictLauncher)
    }
    check_mounts_apart(
        {name: confinement.mounts for name, confinement in strict.items()},
        {name: confinement.code for name, confinement in strict.items()},
    )


def _tell(agent_name: str, confinement: Confinement) -> None:
    """Log what an operator may not expect of what the agent's workers see."""
    for remark, paths in (
        ("cannot open what looks like a secret, unless mounts_ro names it", _masked(confinement)),
        ("is shown what looks like a secret, since a mount names it", confinement.exposed),
        ("is not shown, unless mounts_ro names it", confinement.not_shown),
    ):
        if paths:
            more = f" and {len(paths) - _TOLD} more" if len(paths) > _TOLD else ""
            listed = ", ".join(map(ascii, paths[:_TOLD]))
            _log.warning("agent %r %s: %s%s", agent_name, remark, listed, more)


def _masked(confinement: Confinement) -> tuple[str, ...]:
    return tuple(mount.path for mount in confinement.masked)


def lasting_ids() -> range | None:
    """The user ids for what outlives workers, if the gateway is root; empty if there are few."""
    ids = _worker_ids()
    return None if ids is None else split_ids(ids)[0]


def _worker_ids() -> range | None:
    """The user ids for workers, if the gateway is root; None for an ordinary user.

    Root of a user namespace in which nobody else is mapped is an ordinary user outside.
    """
    if os.geteuid() != 0:
        return None
    return free_range(
        Path("/proc/self/uid_map").read_text(), Path("/proc/self/gid_map").read_text()
    )


def _check_readable(paths: Sequence[str]) -> None:
    """Check, with root, that workers can read these paths, since they run as other users.

    Checks the paths themselves, not the contents of folders. Raises SandboxError.
    """
    for path in paths:
        mode = os.stat(path).st_mode
        needed = 0o005 if stat.S_ISDIR(mode) else 0o004
        if mode & needed != needed:
            raise SandboxError(
                f"{path} can be read by its owner only, and each worker has a user id of its own: "
                f"let others read it (chmod -R o+rX {path})"
            )


def _writing_groups(mounts: Sequence[Mount]) -> tuple[int, ...]:
    """The groups through which workers, each with a new user id, may write.

    Raises SandboxError for a mount that no such worker could write to.
    """
    found: set[int] = set()
    for mount in mounts:
        if mount.writable:
            status = os.stat(mount.source)
            if status.st_mode & 0o020 and status.st_gid != 0:
                found.add(status.st_gid)
            elif not status.st_mode & 0o002:
                raise SandboxError(
                    f"mounts_rw: {mount.path} could not be written to, since each worker has a "
                    f"user id of its own: give it a group other than root's and let that write "
                    f"(chgrp GROUP {mount.path}; chmod g+rwxs {mount.path})"
                )
    return tuple(sorted(found))


def _find_system(*, network: bool) -> System:
    folders = [each for each in SYSTEM_FOLDERS if not os.path.islink(each) and os.path.isdir(each)]
    files = [
        each for each in (ALTERNATIVES, *(CERTIFICATES if network else ())) if os.path.exists(each)
    ]
    keys = (_PRIVATE_KEYS,) if network and os.path.isdir(_PRIVATE_KEYS) else ()
    return System(
        links=tuple((each, os.readlink(each)) for each in SYSTEM_FOLDERS if os.path.islink(each)),
        shown=(*folders, *files),
        hidden=(*keys, *(each for each in _HIDDEN_FOLDERS if _has_entries(each))),
        hidden_files=tuple(each for each in _HIDDEN_FILES if _may_others_read(each)),
    )


def _has_entries(folder: str) -> bool:
    return os.path.isdir(folder) and bool(os.listdir(folder))


def _may_others_read(path: str) -> bool:
    return os.path.exists(path) and bool(os.stat(path).st_mode & stat.S_IROTH)
