"""The JavaScript runtimes, tools and frameworks of the tests: where they are.

`python -m tests.javascript` installs them with npm, as `package.json` in this folder lists them.
Without them the tests that need them are skipped, with the reason; in CI they are never skipped.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
MODULES = FOLDER / "node_modules"
INSTALL = ".venv/bin/python -m tests.javascript"

_X64 = platform.machine() == "x86_64"
_NODE = "x64" if _X64 else "arm64"
RUNTIMES = {
    **{f"node{major}": MODULES / f"node{major}-{_NODE}" / "bin" / "node" for major in (20, 22, 24)},
    "bun": MODULES / "@oven" / f"bun-linux-{'x64' if _X64 else 'aarch64'}" / "bin" / "bun",
    "deno": MODULES / "@deno" / f"linux-{_NODE}-glibc" / "deno",
}
"""The program of each runtime, by its name."""


def need_runtime(name: str) -> str:
    """The absolute path of a runtime's program. Skips the test where it was not installed."""
    return str(_needed(RUNTIMES[name]))


def need_package(name: str) -> Path:
    """The folder of an installed package. Skips the test where it was not installed."""
    return _needed(MODULES / name)


def _needed(path: Path) -> Path:
    if not path.exists():
        missing = f"{path.relative_to(FOLDER)} is missing: {INSTALL}"
        assert not os.environ.get("CI"), missing
        pytest.skip(missing)
    return path
