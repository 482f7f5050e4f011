"""A project may have files with the names of our packages, or of those that the SDK needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.sandbox.files.commands import unshadowed
from tests.harness import running_gateway
from tests.sandbox.users import need_sandbox

AGENT_WORKER = str(Path(sys.executable).with_name("agent-worker"))
AGENT = """
from worker import Agent
agent = Agent("mine")
@agent.invoke
async def run(input):
    import neighbour
    return [input, neighbour.NAME]
"""


@pytest.mark.parametrize(
    "command",
    [
        "python -m worker agent.py:agent",
        "python -m worker agent:agent",
        "agent-worker agent.py:agent",
        "agent-worker agent:agent",
    ],
)
@pytest.mark.parametrize("name", ["worker", "protocol", "gateway", "msgspec", "anyio"])
async def test_a_file_of_that_name_beside_the_agent_does_not_stand_in_its_way(
    tmp_path: Path, name: str, command: str
) -> None:
    need_sandbox("root" if os.geteuid() == 0 else "user")
    project = tmp_path / "project"
    project.mkdir()
    os.chmod(tmp_path, 0o755)
    os.chmod(project, 0o755)
    (project / f"{name}.py").write_text("raise ImportError('this is not what was meant')")
    (project / "neighbour.py").write_text("NAME = 'next door'")
    (project / "agent.py").write_text(AGENT)
    toml = f"""
[agents.mine]
command = "{command}"
sandbox = {{ cwd = "{project}" }}
"""
    async with running_gateway(toml=toml, folder=tmp_path) as gateway:
        answer = await gateway.post("/agent/mine/invoke", input=5)
        assert answer.json() == {"output": [5, "next door"]}


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("python -m worker a.py:agent", "python -P -m worker a.py:agent"),
        ("/x/python3.12 -u -m worker.examples.echo", "/x/python3.12 -u -P -m worker.examples.echo"),
        ("python -X dev -W ignore -m worker a:b", "python -X dev -W ignore -P -m worker a:b"),
        ("python -um worker a:b", "python -P -um worker a:b"),
        ("env A=1 B=2 python -m worker a:b", "env A=1 B=2 python -P -m worker a:b"),
        ("sh -c python -m worker", "sh -c python -m worker"),
        ("python -m workers", "python -m workers"),
        ("python agent.py -m worker", "python agent.py -m worker"),
        ("python -m", "python -m"),
        ("pythonic -m worker", "pythonic -m worker"),
        ("node -m worker", "node -m worker"),
    ],
)
def test_only_a_run_of_the_sdk_is_changed(command: str, expected: str) -> None:
    assert unshadowed(command.split()) == tuple(expected.split())


def test_no_command_is_no_command() -> None:
    assert unshadowed([]) == ()


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_file_of_an_agent_may_itself_have_such_a_name(tmp_path: Path) -> None:
    for name in ("worker.py", "protocol.py", "json.py"):
        (tmp_path / name).write_text(AGENT)
        done = run(AGENT_WORKER, f"{name}:agent", cwd=tmp_path)
        assert '"method":"ready"' in done.stdout, done.stderr


def test_the_module_of_such_a_name_is_the_sdk_and_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(AGENT)
    done = run(AGENT_WORKER, "worker:agent", cwd=tmp_path)
    assert done.returncode == 1
    assert f"worker is the SDK's package: name {tmp_path}/worker.py instead" in done.stderr


@pytest.mark.parametrize("command", [[AGENT_WORKER], [sys.executable, "-P", "-m", "worker"]])
@pytest.mark.parametrize(
    ("asks", "package"),
    [
        ("from worker import helper", "worker"),
        ("import worker.tasks", "worker"),
        ("import protocol\nprotocol.helper", "protocol"),
        ("from protocol.parts import x", "protocol"),
    ],
)
def test_a_project_that_asks_for_its_own_file_is_told_whose_name_it_has(
    tmp_path: Path, command: list[str], asks: str, package: str
) -> None:
    (tmp_path / f"{package}.py").write_text("helper = 1")
    (tmp_path / "agent.py").write_text(asks)
    done = run(*command, "agent.py:agent", cwd=tmp_path)
    assert done.returncode == 1
    *_, last = done.stderr.splitlines()
    words = f"`import {package}` is the SDK's own package, and not {tmp_path}/{package}.py: rename"
    assert words in last


def test_a_file_that_may_be_meant_is_told_of_before_it_is_missed(tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text(f"import protocol\n{AGENT}")
    (tmp_path / "neighbour.py").write_text("")
    assert run(AGENT_WORKER, "agent.py:agent", cwd=tmp_path).stderr == ""
    (tmp_path / "worker.py").write_text("")  # nobody asks for this one as a whole
    (tmp_path / "protocol.py").write_text("")
    done = run(AGENT_WORKER, "agent.py:agent", cwd=tmp_path)
    assert '"method":"ready"' in done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        f"worker: `import protocol` is the SDK's own package, and not {tmp_path}"
    )


@pytest.mark.parametrize("command", ["-m worker agent.py:agent", "agent.py"])
def test_a_file_in_the_way_of_the_sdk_is_named(tmp_path: Path, command: str) -> None:
    (tmp_path / "agent.py").write_text(AGENT)
    (tmp_path / "protocol.py").write_text("")
    done = run(sys.executable, *command.split(), cwd=tmp_path)
    assert done.returncode == 1
    assert f"{tmp_path}/protocol.py is found under the name 'protocol'" in done.stderr
    assert "rename that file, or start the agent with `agent-worker FILE.py:NAME`" in done.stderr


def test_what_is_missing_and_may_be_in_the_projects_environment_is_told_with_where(
    tmp_path: Path,
) -> None:
    (tmp_path / "agent.py").write_text("import nowhere_at_all")
    done = run(AGENT_WORKER, "agent.py:agent", cwd=tmp_path)
    assert "environment" not in done.stderr
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/pyvenv.cfg").write_text("")
    done = run(AGENT_WORKER, "agent.py:agent", cwd=tmp_path)
    words = f"(install the SDK there and start {tmp_path}/.venv/bin/agent-worker)"
    assert "is not the project's own environment: " + words.strip("()") in done.stderr
