"""What an operator gets: the distributions, built once for all tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import need

PROJECT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def tool(name: str) -> str:
    """A program of the environment that the tests run in."""
    path = BIN / name
    need(path.exists(), f"{name} is not installed in {BIN}")
    return str(path)


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution, and with the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [tool("uv"), "build", "-q", "--python", sys.executable, "--out-dir", str(folder)]
    subprocess.run([*command, str(PROJECT)], check=True, timeout=100)
    folder.chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def wheel(dist: Path) -> Path:
    [found] = dist.glob("*.whl")
    return found
