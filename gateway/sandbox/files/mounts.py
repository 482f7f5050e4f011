"""Which host paths a worker sees, and the refusal to show what must stay secret.

This module owns the rules that combine what was guessed with what was named, for one agent and
between agents. It decides from the file system as it is when the gateway starts, and does not know
how a mount is made.

Three parties are kept apart: the operator, who names mounts; an agent, which may change everything
in its writable mounts, and put a symbolic link in place of anything there; and the gateway, which
follows such a link at the next start unless nothing that it mounts or runs lies in a writable
mount.
"""

from __future__ import annotations

import functools
import os
import stat
import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import gateway
import protocol
from gateway.sandbox.files.keyfiles import find_secrets, looks_secret
from gateway.sandbox.files.places import CERTIFICATES, contains, is_system, is_wide_to_write
from gateway.sandbox.limits.uids import is_a_workers
from gateway.sandbox.refusals import SandboxError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

_OURS = ("/proc", "/sys", "/dev")
"""The sandbox has its own, or none."""

_PROTECTED = frozenset(
    (".envrc", ".git", ".hg", ".husky", ".idea", ".pre-commit-config.yaml", ".svn", ".vscode")
) | {"gateway.toml", "venv", ".venv"}
"""What tools of the operator's execute when they are used in a folder: read-only where an agent may
change the rest."""

_MOST_LOOKED_AT = 5_000
"""Files and folders of a mount, those further up first: a small part of a second. What a umask has
made private is private from the top on."""

_SHELL_FILES = (".bashrc", ".bash_profile", ".profile", ".zshrc")
"""What makes a folder somebody's home, whatever its name."""


@dataclass(frozen=True, slots=True, order=True)
class Mount:
    """A host path that is shown in the sandbox under the same name."""

    path: str
    source: str
    """`path` with every symbolic link resolved."""
    writable: bool = False

    def shows(self, source: str) -> str:
        """Under which path a file or folder in `source` is shown."""
        return self.path + source.removeprefix(self.source)


def plan_mounts(
    *,
    found: Sequence[str],
    mounts_ro: Sequence[str],
    mounts_rw: Sequence[str],
    secrets: Sequence[str],
    cwd: str,
) -> tuple[Mount, ...]:
    """The mounts in an order in which they can be made, none hiding or exposing another's.

    `found` are absolute paths that were guessed: what they would expose is left out. `mounts_ro`
    and `mounts_rw` were named by the operator, relative to `cwd`: what they would expose is
    refused. Raises SandboxError for a named mount that is not there or may not be shown.
    """
    secret = [each for path in secrets for each in _names(path)]
    for each in secret:
        if is_system(each) or any(contains(shown, each) for shown in CERTIFICATES):
            raise SandboxError(f"{each} is secret, and lies in what every sandbox shows: move it")
    named_rw = [_named("mounts_rw", path, cwd=cwd, secrets=secret) for path in mounts_rw]
    named_ro = [_named("mounts_ro", path, cwd=cwd, secrets=secret) for path in mounts_ro]
    _check_writable(named_rw, also=named_ro)

    wanted = [
        Mount(name, source, writable=True)
        for path, source in named_rw
        for name in dict.fromkeys((path, source))
    ]
    readable = [
        (name, source) for path, source in named_ro for name in dict.fromkeys((path, source))
    ]
    readable += [
        (path, os.path.realpath(path))
        for guess in found
        for path in _without(guess, secrets=secret)
    ]
    # What lies in a writable mount is visible there already. It must not be mounted again: the
    # agent could put a symbolic link in its place, which the next start would follow on the host.
    wanted += [
        Mount(path, source)
        for path, source in readable
        if not any(contains(rw.path, path) or contains(rw.source, source) for rw in wanted)
        and not is_system(path)
    ]
    return tuple(_parents_first(wanted))


def check_mounts_apart(
    mounts: Mapping[str, Sequence[Mount]], code: Mapping[str, Sequence[str]]
) -> None:
    """Check that no agent may change what another agent is shown or runs.

    Both are by the agent's name: its mounts, and the paths of its program and of what was guessed
    for it, as they are spelled and resolved: a link to a mount may be changed as well as the mount.
    Agents may share a writable folder as a whole. Raises SandboxError.
    """
    for writer, own in mounts.items():
        written = _both_names(mount for mount in own if mount.writable)
        for agent in mounts.keys() - {writer}:
            shown = _both_names(mounts[agent]) - written
            for path in sorted(shown.union(code[agent])):
                for folder in written:
                    if contains(folder, path):
                        raise SandboxError(
                            f"agent {agent!r}: {path} lies in {folder}, which agent {writer!r} may "
                            "change (mounts_rw), and so could have it lead anywhere at the next "
                            "start"
                        )


def _both_names(mounts: Iterable[Mount]) -> set[str]:
    return {name for mount in mounts for name in (mount.path, mount.source)}


def find_protected(mounts: Sequence[Mount]) -> tuple[Mount, ...]:
    """What in writable mounts stays read-only: tools execute it when they are used there.

    Only entries of the folder itself: an agent can move a folder within it, and make new ones.
    Raises SandboxError for what cannot be kept so.
    """
    return tuple(
        Mount(mount.shows(source), source)
        for mount in mounts
        if mount.writable and os.path.isdir(mount.source)
        for source in _protected(mount.source)
    )


def find_executed(mounts: Sequence[Mount]) -> list[str]:
    """What tools execute, and is in writable mounts now, by its known names."""
    found = (f"{mount.source}/{name}" for mount in mounts if mount.writable for name in _PROTECTED)
    return sorted(path for path in found if os.path.lexists(path))


def find_masked(
    mounts: Sequence[Mount], *, projects: Sequence[str], named: Sequence[str]
) -> tuple[Mount, ...]:
    """What looks secret in the folders that were guessed: `path` is to be masked, `source` is it.

    `projects` are the guessed paths, and `named` the files that the operator named, which are
    shown. So is what lies in a folder of a writable mount: an agent can move that folder away from
    under the mask, and have its name lead the next one elsewhere.
    """
    movable = {mount.source for mount in mounts if mount.writable}
    roots = {os.path.realpath(path) for path in projects}
    exempt = {_spelled(path) for path in named}
    masked = {}
    for mount in mounts:
        if mount.writable or not any(contains(root, mount.source) for root in roots):
            continue
        for source in _secrets_in(mount.source):
            folder = os.path.dirname(source)
            if source not in exempt and not any(
                folder != each and contains(each, folder) for each in movable
            ):
                masked[mount.shows(source)] = Mount(mount.shows(source), source)
    return tuple(masked.values())


def find_private(mounts: Sequence[Mount], *, besides: Collection[str]) -> str | None:
    """Something in the mounts that others than its owner and its group cannot read, if there is any
    among the first `_MOST_LOOKED_AT` files and folders of a mount; `besides` are resolved paths
    that do not count. Nor does what is hidden in a folder: mostly the caches of tools, many of
    which are private, and nothing to an agent."""
    for mount in mounts:
        changed = os.lstat(mount.source).st_ctime_ns
        for path in _private_in(mount.source, changed):
            if path not in besides:
                return path
    return None


@functools.lru_cache(maxsize=256)
def _private_in(source: str, changed: int) -> tuple[str, ...]:
    """Cached, because agents share interpreters and projects."""
    del changed
    found: list[str] = []
    todo = deque([source])
    for _ in range(_MOST_LOOKED_AT):
        if not todo:
            break
        path = todo.popleft()
        try:
            mode = os.lstat(path).st_mode
            needed = 0o005 if stat.S_ISDIR(mode) else 0o004 if stat.S_ISREG(mode) else 0
            if mode & needed != needed:
                found.append(path)
            elif stat.S_ISDIR(mode):
                todo.extend(
                    entry.path
                    for entry in os.scandir(path)
                    if not entry.name.startswith(".") or entry.name == ".venv"
                )
        except FileNotFoundError:
            continue
        except OSError:
            found.append(path)
    return tuple(found)


def find_shown_secrets(mounts: Sequence[Mount], *, named: Sequence[str]) -> tuple[str, ...]:
    """What looks secret in what the operator named, and is therefore shown: by a mount of its own,
    or with the folder that it lies in."""
    roots = {os.path.realpath(path) for path in named}
    shown = (root for root in roots if any(contains(mount.source, root) for mount in mounts))
    return tuple(sorted({each for root in shown for each in _secrets_in(root)}))


def _secrets_in(source: str) -> Iterable[str]:
    if os.path.isdir(source):
        return find_secrets(source)
    return [source] if looks_secret(source) else []


def _spelled(path: str) -> str:
    """The path with its folder resolved: what it is itself a link to has another name."""
    folder, name = os.path.split(os.path.abspath(path))
    return os.path.join(os.path.realpath(folder), name)


def _names(path: str) -> tuple[str, str]:
    return os.path.abspath(path), os.path.realpath(path)


def _named(key: str, path: str, *, cwd: str, secrets: Sequence[str]) -> tuple[str, str]:
    absolute, real = _names(os.path.join(cwd, Path(path).expanduser()))
    if not os.path.exists(real):
        raise SandboxError(f"{key}: {path!r} does not exist (looked for {absolute})")
    if not os.access(real, os.R_OK):
        raise SandboxError(f"{key}: {path!r} cannot be read by the user that the gateway runs as")
    if real == os.sep or any(contains(ours, each) for ours in _OURS for each in (absolute, real)):
        raise SandboxError(f"{key}: {path!r} may not be mounted, the sandbox has its own")
    for secret in secrets:
        if contains(real, secret) or contains(secret, real):
            raise SandboxError(
                f"{key}: {path!r} would show the agent {secret}, which is the gateway's secret; "
                f"keep it outside of {real}"
            )
    return absolute, real


def _check_writable(named: Sequence[tuple[str, str]], *, also: Sequence[tuple[str, str]]) -> None:
    code = [each for path in _own_code() for each in _names(path)]
    for path, real in named:
        if is_system(real):
            raise SandboxError(f"mounts_rw: {path!r} is the system's and may not be writable")
        for each in code:
            if contains(real, each) or contains(each, real):
                raise SandboxError(
                    f"mounts_rw: {path!r} would let the agent change {each}, which the gateway runs"
                )
        if is_wide_to_write(real) or any(os.path.exists(f"{real}/{name}") for name in _SHELL_FILES):
            raise SandboxError(
                f"mounts_rw: {path!r} is a home, or a place of keys or of unrelated things: "
                "name a folder in it that is for the agent"
            )
        if not _PROTECTED.isdisjoint(real.split(os.sep)):
            raise SandboxError(
                f"mounts_rw: what is in {path!r} is executed when its project is worked with, "
                "and may not be writable"
            )
        for other, other_real in (*named, *also):
            # Also by a link in it: the agent could have that lead elsewhere.
            if other_real != real and (contains(real, other_real) or contains(real, other)):
                raise SandboxError(
                    f"{other!r} lies in {path!r}, which the agent may change, and so could have it "
                    "lead anywhere at the next start: mount one or the other"
                )


def _own_code() -> list[str]:
    """What the gateway and its helpers import or execute, now or later.

    That includes every folder of the import path: `sitecustomize` and modules that are not there
    yet are looked for in all of them.
    """
    prefixes = (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix)
    imported = (path or os.getcwd() for path in sys.path)
    return [*gateway.__path__, *protocol.__path__, *prefixes, sys.executable, *imported]


def _protected(folder: str) -> Iterable[str]:
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if name in _PROTECTED or os.path.exists(f"{path}/pyvenv.cfg"):
            if os.path.islink(path):
                if is_a_workers(path):
                    continue  # or an agent could keep the gateway from starting
                raise SandboxError(
                    f"mounts_rw: {path} is a link, which cannot be kept from being replaced, and "
                    f"what it leads to is executed: name a folder in {folder}"
                )
            yield path


def _without(path: str, *, secrets: Sequence[str]) -> Iterable[str]:
    """`path`, or, if it holds a secret, everything beside the secret that is in it now.

    Links that lead out of it are left out: they would show more than the folder itself does.
    """
    real = os.path.realpath(path)
    if any(contains(secret, real) for secret in secrets):
        return
    if not any(contains(real, secret) for secret in secrets):
        yield path
        return
    for entry in sorted(os.listdir(path)):
        beside = os.path.join(path, entry)
        target = os.path.realpath(beside)
        secret = any(contains(target, each) or contains(each, target) for each in secrets)
        if contains(real, target) and not secret:
            yield beside


def _parents_first(mounts: Iterable[Mount]) -> list[Mount]:
    """The mounts in order of depth, without those that an earlier one shows already."""
    kept: list[Mount] = []
    # Of two mounts under one path, the writable one counts.
    for mount in sorted(
        mounts, key=lambda each: (each.path.count(os.sep), each.path, not each.writable)
    ):
        if not any(contains(above.path, mount.path) for above in kept if not mount.writable):
            if any(each.path == mount.path for each in kept):
                continue
            kept.append(mount)
    return kept
