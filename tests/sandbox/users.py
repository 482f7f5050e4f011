"""Running a part of a test as another user: the suites hold for root and for an ordinary user
alike.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
ORDINARY_UID = 54321
"""Nobody's; it has no entry in /etc/passwd."""
WITH_IDS_UID = 54322
SUBORDINATE = range(1_300_000_000, 1_300_001_000)
"""Far above what is given to users, and below what gateways of root's take."""

# The private folders that lie above what the user needs are covered with public ones that hold that
# alone, in a mount namespace of its own. Addresses that a worker must not reach are put on the
# loopback device of a network namespace of its own, so that they can be reached without a sandbox.
_ENTER = r"""
set -e
if [ "$1" = addresses ] && ip link set lo up 2>/dev/null; then
    ip addr add 169.254.169.254/32 dev lo
    ip addr add 192.0.2.1/32 dev lo
fi
shift
closed=$1; kept=$2; uid=$3; ids=$4; shift 4
if [ -n "$ids" ]; then
    own=$(mktemp -d)
    { cat /etc/passwd; echo "with-ids:x:$uid:$uid::/:/bin/sh"; } > "$own/passwd"
    echo "with-ids:$ids" > "$own/ids"
    chmod 644 "$own"/*
    mount --bind "$own/passwd" /etc/passwd
    mount --bind "$own/ids" /etc/subuid
    mount --bind "$own/ids" /etc/subgid
    rm -r "$own"
fi
if [ -n "$closed" ]; then
    stash=$(mktemp -d)
    mount --rbind "$closed" "$stash"
    mount -t tmpfs -o mode=755 none "$closed"
    for each in $kept; do
        mkdir -p "$closed/$each"
        mount --rbind "$stash/$each" "$closed/$each"
    done
    umount -l "$stash"; rmdir "$stash"
fi
if [ "$uid" != 0 ]; then
    set -- setpriv --reuid "$uid" --regid "$uid" --clear-groups --inh-caps=-all -- "$@"
fi
exec "$@"
"""


def available_users() -> list[str]:
    """Whom this test run can be: root can be both, anybody else only an ordinary user."""
    return ["root", "user"] if os.geteuid() == 0 else ["user"]


WITH_IDS = "user-with-ids"
"""An ordinary user that has subordinate ids, for what runs as it alone: no file of the machine is
changed."""


def every_user() -> list[str]:
    """The same, and an ordinary user with subordinate ids."""
    return [*available_users(), *([WITH_IDS] if os.geteuid() == 0 else [])]


def as_user(
    user: str, *argv: str, addresses: bool = False, own_uid: int | None = None
) -> list[str]:
    """The command that runs `argv` as `user`, with root's help under the id `own_uid`.

    With `addresses`, and by root, in a network of its own that has addresses of other machines.
    """
    if os.geteuid() != 0:
        assert user == "user"
        return list(argv)
    closed, kept = ("", "") if user == "root" else _closed_folder()
    uid = str(uid_of(user) if own_uid is None else own_uid)
    ids = f"{SUBORDINATE.start}:{len(SUBORDINATE)}" if user == WITH_IDS else ""
    # The word that the script looks for stands only where the network is not the machine's.
    network, word = (["--net"], "addresses") if addresses else ([], "")
    script = ["sh", "-c", _ENTER, "sh", word]
    return ["unshare", "--mount", *network, *script, closed, kept, uid, ids, *argv]


def run_as(
    user: str, *argv: str, cwd: Path = PROJECT, timeout: float = 60, **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run a command as `user`, to its end, which must be a good one; with more variables."""
    done = subprocess.run(
        as_user(user, *argv),
        cwd=cwd,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def uid_of(user: str) -> int:
    if os.geteuid() != 0:
        return os.geteuid()
    return {"root": 0, "user": ORDINARY_UID, WITH_IDS: WITH_IDS_UID}[user]


@functools.cache
def _closed_folder() -> tuple[str, str]:
    """The one private folder above the interpreter and the project, and what is needed of it."""
    needed = {
        os.path.realpath(each)
        for each in (sys.prefix, sys.base_prefix, str(PROJECT), *_package_folders())
    }
    closed: dict[str, set[str]] = {}
    for path in needed:
        for parent in reversed(Path(path).parents):
            if not parent.stat().st_mode & 0o001:
                closed.setdefault(str(parent), set()).add(os.path.relpath(path, parent))
                break
    assert len(closed) <= 1, f"more than one private folder: {closed}"
    return next(((folder, " ".join(sorted(kept))) for folder, kept in closed.items()), ("", ""))


def _package_folders() -> list[str]:
    import msgspec

    return [str(Path(msgspec.__file__).parent)]


def need(*programs: str) -> None:
    """Skip the test where a program is missing; in CI, where it has to be there, fail."""
    for program in programs:
        if shutil.which(program) is None:
            if os.environ.get("CI"):
                pytest.fail(f"{program} is missing, and CI has to have it")
            pytest.skip(f"{program} is not installed")


def publicly(*argv: str, uid: str = "0") -> list[str]:
    """The command that root runs where what a test needs is not hidden from other users."""
    closed, kept = _closed_folder()
    return ["unshare", "--mount", "sh", "-c", _ENTER, "sh", "", closed, kept, uid, "", *argv]


def in_user_namespace(id_map: str, *argv: str) -> subprocess.Popen[str]:
    """Run `argv` as root of a new user namespace with this map, as a rootless container does."""
    assert os.geteuid() == 0
    waiting = ["unshare", "--user", "sh", "-c", 'echo there; read go; exec "$@"', "sh", *argv]
    process = subprocess.Popen(
        publicly(*waiting, uid=id_map.split()[1]),
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    for kind in ("uid", "gid"):
        Path(f"/proc/{process.pid}/{kind}_map").write_text(id_map)
    process.stdin.write("\n")
    process.stdin.flush()
    return process


@functools.cache
def why_no_sandbox(user: str) -> str | None:
    """Why this machine cannot have the sandbox, in the gateway's own words; None when it can."""
    said = subprocess.run(
        as_user(user, sys.executable, "-c", TRY),
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return None if said.returncode == 0 else (said.stdout + said.stderr).strip()


TRY = """
import os, sys
from gateway.sandbox import SandboxSettings, make_launcher, try_sandbox
try:
    try_sandbox(make_launcher("trial", ["true"], SandboxSettings(), environ=os.environ, cwd="/"))
except Exception as error:
    sys.exit(str(error))
"""


def need_sandbox(user: str) -> None:
    """Skip the test where no sandbox can be had; in CI, where it has to be, fail."""
    if user == WITH_IDS:
        need("newuidmap", "newgidmap")
    if (why := why_no_sandbox(user)) is not None:
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
