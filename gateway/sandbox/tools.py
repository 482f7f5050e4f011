"""The programs that sandboxes are made with, as they are found on this machine."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess

from gateway.sandbox.bwrap import Tools
from gateway.sandbox.refusals import SandboxError

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_OLDEST_BWRAP = (0, 8)
"""The first version with --disable-userns; --size and --perms are older."""
_VERSION_TIMEOUT = 10.0
"""Seconds for `bwrap --version`, which takes a millisecond."""
_PACKAGES = {"bwrap": "bubblewrap", "setpriv": "util-linux", "sh": "dash"}


def find_tools() -> Tools:
    """The programs of this machine. Raises SandboxError, which says what to install."""
    if os.uname().sysname != "Linux":
        raise SandboxError("the sandbox needs Linux")
    found: dict[str, str] = {}
    for name, package in _PACKAGES.items():
        # Not the gateway's PATH: the tools that isolate must not come from a folder that others may
        # write to.
        path = shutil.which(name, path=SYSTEM_PATH)
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
