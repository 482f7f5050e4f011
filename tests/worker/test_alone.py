"""The SDK as a distribution of its own, in an agent's environment, without the gateway's stack."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.harness import running_gateway
from tests.sandbox.users import PROJECT, need_sandbox

AGENT = """
import sys
from worker import Agent
agent = Agent("alone")
@agent.invoke
async def run(input):
    return [input, sys.prefix, sorted({name.partition(".")[0] for name in sys.modules})]
"""


pytestmark = pytest.mark.timeout(300)  # pip has 100 s for each of its runs


def test_it_is_the_same_version_with_two_of_the_dependencies() -> None:
    whole = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    alone = tomllib.loads((PROJECT / "worker/pyproject.toml").read_text())["project"]
    for key in ("version", "requires-python"):
        assert alone[key] == whole[key]
    assert set(alone["dependencies"]) <= set(whole["dependencies"])
    assert [each.partition(">")[0] for each in alone["dependencies"]] == ["anyio", "msgspec"]
    assert alone["scripts"].items() <= whole["scripts"].items()


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A fresh virtual environment in a project, with the SDK and what that needs."""
    if importlib.util.find_spec("pip") is None:
        assert not os.environ.get("CI")
        pytest.skip("pip is not installed")
    for folder in (tmp_path, tmp_path / "project"):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
    environment = tmp_path / "project/.venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    run_pip(environment, "install", "--quiet", str(PROJECT / "worker"))
    (tmp_path / "project/agent.py").write_text(AGENT)
    shutil.copy(PROJECT / "worker/examples/frameworks/sqlite_notes.py", tmp_path / "project")
    return environment


def run_pip(environment: Path, *arguments: str) -> str:
    pip = [sys.executable, "-m", "pip", "--python", str(environment / "bin/python")]
    return subprocess.run(
        [*pip, *arguments], stdout=subprocess.PIPE, text=True, check=True, timeout=100
    ).stdout


async def test_an_agent_is_served_from_an_environment_that_has_nothing_else_of_ours(
    environment: Path, tmp_path: Path
) -> None:
    need_sandbox("root" if os.geteuid() == 0 else "user")
    toml = f"""
[agents.alone]
command = "{environment}/bin/agent-worker {environment.parent}/agent.py:agent"
[agents.notes]
command = "{environment}/bin/agent-worker {environment.parent}/sqlite_notes.py:agent"
"""
    async with running_gateway(toml=toml, folder=tmp_path) as gateway:
        answer = await gateway.post("/agent/alone/invoke", input=5)
        asked, prefix, modules = answer.json()["output"]
        noted = await gateway.post("/agent/notes/invoke", input={"note": "milk"})
        assert noted.json() == {"output": ["milk"]}
    assert (asked, prefix) == (5, str(environment))
    assert {"worker", "protocol", "anyio", "msgspec"} <= set(modules)
    found = run_pip(environment, "freeze")
    names = {line.partition("==")[0].partition(" @")[0] for line in found.splitlines()}
    assert {"agent-gateway-worker", "anyio", "msgspec"} <= names
    needed = {"anyio", "idna", "msgspec", "sniffio", "typing_extensions"}
    assert names <= {"agent-gateway-worker"} | needed
