"""A project may have files with the names of our packages, or of those that the SDK needs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.sandbox.commands import unshadowed
from tests.harness import running_gateway
from tests.sandbox.users import need_sandbox

AGENT = """
from worker import Agent
agent = Agent("mine")
@agent.invoke
async def run(input):
    import neighbour
    return [input, neighbour.NAME]
"""


@pytest.mark.parametrize("target", ["agent.py:agent", "agent:agent"])
@pytest.mark.parametrize("name", ["worker", "protocol", "gateway", "msgspec", "anyio"])
async def test_a_file_of_that_name_beside_the_agent_does_not_stand_in_its_way(
    tmp_path: Path, name: str, target: str
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
command = "python -m worker {target}"
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
