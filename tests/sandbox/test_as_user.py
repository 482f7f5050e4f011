"""What root's run of the suites found holds for an ordinary user's gateway as well.

These suites make mounts, look for what a command needs, and start sandboxes and gateways as whoever
runs them. Where that is root, they run once more as an ordinary user: all in one process, whose
start takes longer than most of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

import pytest

from tests.sandbox.users import PROJECT, as_user

SUITES = (
    *("mounts", "discover", "protected", "trial", "egress", "proxy_log"),
    *("symptoms", "memory_watch", "node_limits", "services"),
)
"""In this folder."""
FAULTS = ("memory", "attribution", "forged_lines")
"""In `tests/faults/`."""
HTTP = ("room",)
"""In `tests/http/`."""
FUZZ = "test_whatever_a_client_says_is_refused_in_one_status_line_and_is_no_defect"
"""The same for every user, and as long as all the others."""


@pytest.mark.timeout(600)
@pytest.mark.skipif(os.geteuid() != 0, reason="the suites themselves run as an ordinary user")
def test_the_suites_on_mounts_and_sandboxes_pass_as_an_ordinary_user_too() -> None:
    with tempfile.TemporaryDirectory(prefix="as-user-") as home:
        os.chmod(home, 0o777)
        files = [f"tests/sandbox/test_{name}.py" for name in SUITES]
        files += [f"tests/faults/test_{name}.py" for name in FAULTS]
        files += [f"tests/http/test_{name}.py" for name in HTTP]
        options = (
            "-q",
            "-p",
            "no:cacheprovider",
            "--basetemp",
            f"{home}/tests",
            "-k",
            f"not {FUZZ}",
        )
        # Without CI: what only root can have is skipped.
        environ = {name: value for name, value in os.environ.items() if name != "CI"}
        done = subprocess.run(
            as_user("user", sys.executable, "-B", "-m", "pytest", *options, *files),
            cwd=PROJECT,
            env={**environ, "HOME": home},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
