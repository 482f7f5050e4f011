"""A gateway in a container that forbids the sandbox does not start, and says what to allow.

What engines forbid is imitated: by a filter like Docker's default profile, and by a /proc of which
a part is covered. The words for the cure are those of `gateway/deploy/README.md`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import need
from tests.sandbox import filtered
from tests.sandbox.users import PROJECT, as_user, available_users

FILTERED = str(Path(filtered.__file__))
AGENT = "a=agent-worker worker.examples.echo:agent"
CHECK = [sys.executable, "-m", "gateway", "--check", "--agent", AGENT]
MASKED = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc/fs && exec "$@"', "sh"]
MANUAL = (PROJECT / "gateway" / "deploy" / "README.md").read_text(encoding="utf-8")


def refusal(*command: str) -> str:
    """The last line of a check that fails."""
    done = subprocess.run(
        command, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    line = done.stderr.splitlines()[-1]
    assert line.startswith("gateway: agent 'a': the sandbox cannot be put in force: ")
    return line


def said_in_the_manual(line: str, *words: str) -> None:
    assert [word for word in words if word not in line] == [], line
    assert [word for word in words if word not in MANUAL] == []


def test_an_ordinary_user_without_user_namespaces_is_told_of_the_profile_to_use() -> None:
    denied = f"{filtered.UNSHARE},{filtered.MOUNT}"
    line = refusal(*as_user("user", sys.executable, FILTERED, "--clone", denied, *CHECK))
    said_in_the_manual(line, "seccomp=", "systempaths=unconfined", "apparmor=unconfined")


def test_root_without_the_right_to_mount_is_told_of_the_capability() -> None:
    need("root" in available_users(), "only root can be refused what root may do")
    denied = f"{filtered.UNSHARE},{filtered.MOUNT}"
    line = refusal(sys.executable, FILTERED, denied, *CHECK)
    said_in_the_manual(line, "CAP_SYS_ADMIN", "apparmor=unconfined")


def test_a_proc_that_is_covered_in_part_is_named() -> None:
    need("root" in available_users(), "only root can cover a part of /proc")
    line = refusal(*MASKED, *as_user("user", *CHECK))
    said_in_the_manual(line, "systempaths=unconfined", "procMount: Unmasked")


def test_a_service_that_may_not_set_a_host_name_is_told_of_its_setting() -> None:
    denied = str(filtered.SETHOSTNAME)
    line = refusal(*as_user("user", sys.executable, FILTERED, denied, *CHECK))
    assert "ProtectHostname=" in line
    unit = (PROJECT / "gateway" / "deploy" / "agent-gateway.service").read_text(encoding="utf-8")
    assert re.search(r"^SystemCallFilter=.*\bsethostname\b", unit, re.MULTILINE)


def test_a_filter_that_forbids_nothing_of_the_sandbox_does_no_harm() -> None:
    done = subprocess.run(
        as_user("user", sys.executable, FILTERED, str(filtered.REBOOT), *CHECK),
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
