"""Which host paths a worker sees, and the refusal to show what must stay secret.

Owns the rules that combine what was guessed with what was named. Decides from the file system as it
is when the gateway starts; does not know how a mount is made.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import gateway
from gateway.sandbox.discover import CERTIFICATES, is_system
from gateway.sandbox.refusals import SandboxError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_OURS = ("/proc", "/sys", "/dev")
"""The sandbox has its own, or none."""


@dataclass(frozen=True, slots=True, order=True)
class Mount:
    """A host path that is shown in the sandbox under the same name."""

    path: str
    source: str
    """`path` with every symbolic link resolved."""
    writable: bool = False


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


def contains(folder: str, path: str) -> bool:
    """Whether `path` is `folder` or lies in it, by name."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


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
    code = [os.path.realpath(path) for path in (*gateway.__path__, sys.prefix, sys.base_prefix)]
    for path, real in named:
        if is_system(real):
            raise SandboxError(f"mounts_rw: {path!r} is the system's and may not be writable")
        for each in code:
            if contains(real, each) or contains(each, real):
                raise SandboxError(
                    f"mounts_rw: {path!r} would let the agent change {each}, which the gateway runs"
                )
        for other, other_real in (*named, *also):
            if other_real != real and contains(real, other_real):
                raise SandboxError(
                    f"{other!r} lies in {path!r}, which the agent may change, and so could have it "
                    "lead anywhere at the next start: mount one or the other"
                )


def _without(path: str, *, secrets: Sequence[str]) -> Iterable[str]:
    """`path`, or, where it holds a secret, everything beside the secret that is in it now."""
    real = os.path.realpath(path)
    if any(contains(secret, real) for secret in secrets):
        return
    if not any(contains(real, secret) for secret in secrets):
        yield path
        return
    for entry in sorted(os.listdir(path)):
        each = os.path.join(path, entry)
        target = os.path.realpath(each)
        if not any(contains(target, secret) or contains(secret, target) for secret in secrets):
            yield each


def _parents_first(mounts: Iterable[Mount]) -> list[Mount]:
    """In order of depth, leaving out what an earlier mount shows already."""
    kept: list[Mount] = []
    # Where one path was wanted twice, for writing comes first.
    for mount in sorted(
        mounts, key=lambda each: (each.path.count(os.sep), each.path, not each.writable)
    ):
        if not any(contains(above.path, mount.path) for above in kept if not mount.writable):
            if any(each.path == mount.path for each in kept):
                continue
            kept.append(mount)
    return kept
