"""From an agent's command and settings to the launcher of its workers.

This module owns the checks that need a look at the machine, and the choice of level: the one that
was asked for, or SandboxError. It does not try the result (`trial` does).
"""

from __future__ import annotations

import functools
import logging
import os
import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gateway.sandbox.bwrap import HOME, Confinement, System, Tools
from gateway.sandbox.cgroups import find_cgroups
from gateway.sandbox.discover import (
    ALTERNATIVES,
    CERTIFICATES,
    SYSTEM_FOLDERS,
    discover,
    is_system,
    own_interpreter,
)
from gateway.sandbox.listener import PORT as PROXY_PORT
from gateway.sandbox.mounts import plan_mounts
from gateway.sandbox.plain import PlainLauncher
from gateway.sandbox.proxy import Proxy
from gateway.sandbox.refusals import SandboxError
from gateway.sandbox.seccomp import filter_program
from gateway.sandbox.strict import StrictLauncher
from gateway.sandbox.uids import UidBlock, free_range

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.config.sandbox import SandboxSettings
    from gateway.sandbox.launch import Launcher
    from gateway.sandbox.mounts import Mount

Level = Literal["strict", "off"]

_log = logging.getLogger(__name__)

_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LOADER_PREFIX = "LD_"
_LOADER = {"GCONV_PATH", "GLIBC_TUNABLES", "LOCPATH", "NLSPATH"}
"""Variables that make the C library load code and data from elsewhere."""
_OLDEST_BWRAP = (0, 8)
"""The first version with --disable-userns; --size and --perms are older."""
_VERSION_TIMEOUT = 10.0
"""Seconds for `bwrap --version`, which takes a millisecond."""
_PRIVATE_KEYS = "/etc/ssl/private"
"""The machine's own, beside its certificates."""
_PACKAGES = {"bwrap": "bubblewrap", "setpriv": "util-linux", "sh": "dash"}


def make_launcher(
    agent_name: str,
    argv: Sequence[str],
    settings: SandboxSettings,
    *,
    level: Level = "strict",
    environ: Mapping[str, str],
    cwd: str,
    secrets: Sequence[str] = (),
) -> Launcher:
    """The launcher of the workers of `agent_name`, at exactly the level that was asked for.

    `environ` is the gateway's environment, of which PATH finds the program; `cwd` is the absolute
    folder that relative paths start from; `secrets` are paths that no agent may see.
    Raises SandboxError, whose one line names the agent, when the sandbox cannot be made.
    """
    if settings.cwd is not None:
        cwd = os.path.join(cwd, os.path.expanduser(settings.cwd))
    cwd = os.path.abspath(cwd)
    try:
        if not os.path.isdir(cwd):
            raise SandboxError(f"cwd: the folder {cwd} does not exist")
        if level == "off":
            _log.warning(
                "agent %r runs WITHOUT a sandbox: it can do all that the gateway can", agent_name
            )
            return PlainLauncher(tuple(argv), {**environ, **settings.env}, cwd)
        return _make_strict(agent_name, argv, settings, environ=environ, cwd=cwd, secrets=secrets)
    except (SandboxError, OSError) as error:
        raise SandboxError(f"agent {agent_name!r}: {error}") from error


def _make_strict(
    agent_name: str,
    argv: Sequence[str],
    settings: SandboxSettings,
    *,
    environ: Mapping[str, str],
    cwd: str,
    secrets: Sequence[str],
) -> StrictLauncher:
    seccomp = filter_program()
    tools = _find_tools()
    needs = discover(argv, cwd=cwd, search_path=environ.get("PATH", os.defpath))
    mounts = plan_mounts(
        found=[*needs.paths, *own_interpreter()] if settings.network_hosts else needs.paths,
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
    confinement = Confinement(
        argv=(needs.program, *argv[1:]),
        env=_environment(settings, environ, bin_dirs=needs.bin_dirs),
        cwd=cwd,
        mounts=mounts,
        settings=settings,
        seccomp=seccomp,
        as_root=as_root,
        groups=_writing_groups(mounts) if as_root else (),
        system=_find_system(network=bool(settings.network_hosts)),
    )
    uids = None if ids is None else UidBlock(ids)
    proxy = None
    if settings.network_hosts:
        uid = os.geteuid() if uids is None else uids.take()
        proxy = Proxy(agent_name, settings.network_hosts, uid=uid)
    return StrictLauncher(confinement, tools=tools, cgroups=cgroups, uids=uids, proxy=proxy)


def _worker_ids() -> range | None:
    """The user ids for workers, if the gateway is root; None for an ordinary user.

    Root of a user namespace in which nobody else is mapped is an ordinary user outside.
    """
    if os.geteuid() != 0:
        return None
    return free_range(
        Path("/proc/self/uid_map").read_text(), Path("/proc/self/gid_map").read_text()
    )


def _environment(
    settings: SandboxSettings, environ: Mapping[str, str], *, bin_dirs: Sequence[str]
) -> dict[str, str]:
    loaded = [
        name for name in (*settings.env, *settings.env_allow) if name.startswith(_LOADER_PREFIX)
    ]
    if loaded or (loaded := sorted(_LOADER.intersection((*settings.env, *settings.env_allow)))):
        raise SandboxError(
            f"env: {loaded[0]} would act on the sandbox's own programs, before they give up their "
            f'rights: put it into the command ("env {loaded[0]}=... PROGRAM")'
        )
    missing = [name for name in settings.env_allow if name not in environ]
    if missing:
        raise SandboxError(
            f"env_allow: {', '.join(missing)} is not set in the gateway's environment"
        )
    path = ":".join(dict.fromkeys([*bin_dirs, *_SYSTEM_PATH.split(":")]))
    own = {"PATH": path, "HOME": HOME, "LANG": "C.UTF-8"}
    if settings.network_hosts:
        proxy = f"http://127.0.0.1:{PROXY_PORT}"
        for name in ("http_proxy", "https_proxy"):
            own |= {name: proxy, name.upper(): proxy}
        own |= {"no_proxy": "127.0.0.1,localhost", "NO_PROXY": "127.0.0.1,localhost"}
        own |= {"NODE_USE_ENV_PROXY": "1"}
    return {**own, **{name: environ[name] for name in settings.env_allow}, **settings.env}


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
    return System(
        links=tuple((each, os.readlink(each)) for each in SYSTEM_FOLDERS if os.path.islink(each)),
        shown=(*folders, *files),
        hidden=(_PRIVATE_KEYS,) if network and os.path.isdir(_PRIVATE_KEYS) else (),
    )


def _find_tools() -> Tools:
    if os.uname().sysname != "Linux":
        raise SandboxError("the sandbox needs Linux")
    found: dict[str, str] = {}
    for name, package in _PACKAGES.items():
        # Not the gateway's PATH: the tools that isolate must not come from a folder that others may
        # write to.
        path = shutil.which(name, path=_SYSTEM_PATH)
        if path is None:
            raise SandboxError(f"{name} is missing: install {package} (apt install {package})")
        found[name] = path
    _check_version(found["bwrap"])
    return Tools(**found)


@functools.cache
def _check_version(bwrap: str) -> None:
    try:
        said = subprocess.run(
            [bwrap, "--version"],
            capture_output=True,
            text=True,
            timeout=_VERSION_TIMEOUT,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        raise SandboxError(f"{bwrap} --version failed: {error}") from error
    match = re.search(r"(\d+)\.(\d+)", said)
    if not match or (int(match[1]), int(match[2])) < _OLDEST_BWRAP:
        oldest = ".".join(map(str, _OLDEST_BWRAP))
        raise SandboxError(f"{bwrap} is {said!r}: bubblewrap {oldest} or newer is needed")
