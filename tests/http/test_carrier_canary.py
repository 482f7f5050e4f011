"""Does the carrier still work on the newest Hypercorn, where that is not the one that is pinned?

`gateway/front/asgi.py` builds on parts of Hypercorn that are not its public interface, so
the project pins one minor release. This test runs the carrier's tests against the newest release of
the package index and *tells*: a failure is an expected one (XFAIL, with the reason in the summary),
because a release by somebody else must not turn this project's CI red.

What to do when it tells:

- XFAIL: read Hypercorn's changelog and the failures in the captured output, adapt the carrier, and
  raise the pin in `pyproject.toml`. Until then nothing is broken: the pin holds.
- PASSED: the carrier works on the newer release. Raise the pin.
- SKIPPED: the newest release is the pinned one, or the index could not be reached.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--retries", "0"]
SECONDS = 35
"""For each of three commands, which take a few each; together less than a test may."""


def pip(*arguments: str) -> str:
    """The output of one pip command; skips the test when it fails."""
    command = [*PIP, "install", "--quiet", *arguments, "hypercorn"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"pip could not get the newest Hypercorn within {SECONDS} s")
    if done.returncode:
        pytest.skip(f"pip could not get the newest Hypercorn: {done.stderr.strip()[-200:]}")
    return done.stdout


def test_the_carrier_works_on_the_newest_hypercorn(tmp_path: Path) -> None:
    report = json.loads(pip("--dry-run", "--ignore-installed", "--no-deps", "--report", "-"))
    newest, pinned = report["install"][0]["metadata"]["version"], version("hypercorn")
    if newest == pinned:
        pytest.skip(f"the newest Hypercorn is the pinned one, {pinned}")
    pip("--target", str(tmp_path))
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_carrier.py"],
        cwd=Path(__file__).parent,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    print(done.stdout[-10_000:], done.stderr[-2_000:])
    if done.returncode:
        pytest.xfail(f"the carrier's tests fail on Hypercorn {newest}; {pinned} is pinned")
