"""What a worker attempts against the machine, the gateway and its neighbours comes to nothing.

Each attempt is made twice by the same program in the same surroundings: without the sandbox, where
it has to succeed, or it would show nothing, and in it.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox import escapes
from tests.sandbox.surroundings import MARKER, WORKER_TIMEOUT
from tests.sandbox.users import PROJECT, WITH_IDS, as_user, every_user, need_sandbox, uid_of

WRONGLY_MADE = [os.strerror(each) for each in (errno.EINVAL, errno.EFAULT, errno.EBADF)]
"""What an attempt fails with that is itself at fault: no sign that the machine lacks anything."""


@functools.cache
def outcomes(user: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Level to attempt to outcome, from one run of the surroundings as `user`."""
    # Not pytest's folder: that is private, and an ordinary user has to get there.
    with tempfile.TemporaryDirectory(prefix="escapes-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        if os.geteuid() == 0:
            (folder / "shared").mkdir()
            shutil.copy("/usr/bin/id", folder / "shared" / "id")
            (folder / "shared" / "id").chmod(0o4755)
            os.chown(folder, uid_of(user), uid_of(user))
            os.chown(folder / "shared", uid_of(user), uid_of(user))
        command = [
            sys.executable,
            "-m",
            "tests.sandbox.surroundings",
            name,
            "argument-nobody-knows",
        ]
        done = subprocess.run(
            as_user(user, *command, addresses=True),
            cwd=PROJECT,
            env={
                **os.environ,
                "WRITES": str(user != WITH_IDS),
                "HOME": f"{name}/home",
                "GATEWAY_KEY": MARKER,
            },
            capture_output=True,
            text=True,
            timeout=3 * WORKER_TIMEOUT,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    if user == WITH_IDS:
        assert "subordinate ids" in done.stderr
    found: dict[str, dict[str, dict[str, Any]]] = json.loads(done.stdout)
    return found


def cases() -> list[Any]:
    return [
        pytest.param(user, name, id=f"{name}-as-{user}")
        for user in every_user()
        for name in escapes.ATTEMPTS
        if not (user != "root" and name in escapes.NEEDS_ROOT)
        if not (name in escapes.ONLY_X86 and platform.machine() != "x86_64")
    ]


@pytest.mark.parametrize(("user", "name"), cases())
def test_a_worker_cannot(user: str, name: str) -> None:
    need_sandbox(user)
    found = outcomes(user)
    control, strict = found["off"][name], found["strict"][name]
    assert not strict["escaped"], strict["detail"]
    assert "defect" not in strict["detail"] + control["detail"], (strict, control)
    if not control["escaped"]:
        lacking = escapes.MACHINE_MAY_LACK.get(name)
        assert lacking is not None, f"the control failed: {control['detail']}"
        assert not any(each in control["detail"] for each in WRONGLY_MADE), control["detail"]
        # Not a failure in CI either: it is about the kernel, which nobody can install there.
        pytest.skip(f"not even without the sandbox ({lacking}): {control['detail']}")
