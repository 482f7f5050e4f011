"""The distributions: what is in them, and that the tools which run them without installing do."""

from __future__ import annotations

import email
import os
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.deploy.conftest import BIN, PROJECT, tool
from tests.deploy.serving import served

ECHO = "echo=agent-worker worker.examples.echo:agent"
VERSION = f"gateway, version {version('agent-gateway')}\n"

pytestmark = pytest.mark.timeout(300)  # an installation alone has 100 s


def sources(*folders: str) -> set[str]:
    """The project's own files in these folders."""
    found = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *folders],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    return {line for line in found.stdout.splitlines() if (PROJECT / line).is_file()}


def test_the_wheel_holds_the_three_packages_and_what_they_need(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        [entry_points] = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        scripts = archive.read(entry_points).decode()
        [metadata] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        described = email.message_from_bytes(archive.read(metadata))
    left_out = {"worker/pyproject.toml"}
    wanted = sources("gateway", "worker", "protocol") - left_out
    assert {
        name for name in wanted - names if not name.startswith("worker/typescript/test/")
    } == set()
    assert names - wanted == set()
    assert {name.partition("/")[0] for name in names} == {"gateway", "worker", "protocol"}
    assert "gateway = gateway.cli:main" in scripts
    assert "agent-gateway = gateway.cli:main" in scripts
    assert "agent-worker = worker.command:script" in scripts
    assert described["Name"] == "agent-gateway"
    # On a package index, a link must lead somewhere from there, too: none is needed to start.
    assert "# agent-gateway" in str(described.get_payload())


def test_the_source_distribution_holds_the_project_and_nothing_of_the_machine(dist: Path) -> None:
    [path] = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "CHANGELOG.md", "pyproject.toml"} <= names
    wanted = sources("gateway", "worker", "protocol", "tests")
    assert wanted - names == set()
    assert names - wanted - {"README.md", "CHANGELOG.md", "pyproject.toml", "PKG-INFO"} <= {
        ".gitignore"
    }


def clean(folder: Path) -> dict[str, str]:
    """The environment of somebody who has nothing installed."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("VIRTUAL_")},
        "PATH": "/usr/sbin:/usr/bin:/bin",
        "UV_CACHE_DIR": str(folder / "uv"),
        "PIPX_HOME": str(folder / "pipx"),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For what the tools keep."""
    return tmp_path_factory.mktemp("tools")


def test_uvx_serves_in_the_strict_sandbox_by_the_distributions_name_alone(
    dist: Path, wheel: Path, folder: Path
) -> None:
    uvx = [tool("uvx"), "--python", sys.executable, "--find-links", str(dist)]
    command = [*uvx, "agent-gateway", "--port", "0", "--agent", ECHO]
    with served(command, env=clean(folder)) as gateway:
        answer = gateway.post("/agent/echo/invoke", input="from uvx")
        assert answer == {"output": "from uvx"}
        sandbox = gateway.get("/agent/echo")["sandbox"]
        assert sandbox["level"] == "strict"
    shown = subprocess.run(
        [
            tool("uvx"),
            "--python",
            sys.executable,
            "--from",
            str(wheel),
            "agent-gateway",
            "--version",
        ],
        env=clean(folder),
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert shown.stdout == VERSION


def test_pipx_serves_in_the_strict_sandbox(dist: Path, folder: Path) -> None:
    pipx = [tool("pipx"), "run", "--python", sys.executable, f"--pip-args=--find-links={dist}"]
    command = [*pipx, "agent-gateway", "--port", "0", "--agent", ECHO]
    with served(command, env=clean(folder)) as gateway:
        assert gateway.post("/agent/echo/invoke", input="from pipx") == {"output": "from pipx"}
        assert gateway.get("/agent/echo")["sandbox"]["level"] == "strict"


@pytest.mark.parametrize("script", ["gateway", "agent-gateway"])
def test_the_gateway_answers_to_the_distributions_name_too(script: str) -> None:
    path = BIN / script
    shown = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout == VERSION
