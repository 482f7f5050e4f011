"""The Containerfile, step by step, and a request to what comes of it.

No engine is needed, and none is imitated: the steps are carried out in a root folder, and the
gateway runs there as the user that the file names, without capabilities and with the sandbox in
force. The root lies over the machine's own, or over `$GATEWAY_TEST_ROOT`, such as one that
debootstrap has made.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.config.keys import KEY_VARIABLE, new_key
from tests.conftest import need
from tests.deploy.conftest import PROJECT
from tests.deploy.containerfile import instructions, script
from tests.deploy.serving import served

CONTAINERFILE = PROJECT / "gateway" / "deploy" / "Containerfile"

SECONDS = 300
"""For the steps, which install packages, on a loaded machine; they take about half a minute."""

AGENT = """
import os
from worker import Agent

agent = Agent("looks")


@agent.invoke
def look(path):
    return {"uid": os.getuid(), "sees": os.path.exists(path)}
"""

CONFIGURATION = """
[agents.looks]
command = "agent-worker looks.py:agent"
workers = { min = 1, max = 1 }
"""


@pytest.mark.skipif(
    bool(os.environ.get("CI")) and sys.version_info[:2] != (3, 11),
    reason="the container has a Python of its own: once is enough, with the first of CI's",
)
@pytest.mark.timeout(SECONDS + 100)
def test_the_gateway_of_the_container_file_serves_in_the_strict_sandbox(
    wheel: Path, tmp_path: Path
) -> None:
    need(os.geteuid() == 0, "only root can change the root folder")
    key = new_key()
    steps = script(
        CONTAINERFILE,
        context=wheel.parent,
        lower=os.environ.get("GATEWAY_TEST_ROOT", "/"),
        work=tmp_path,
        arguments=["--port", "0", "--config", "/etc/agent-gateway/gateway.toml"],
        run_env={name: value for name, value in os.environ.items() if name.startswith("PIP_")},
        env={KEY_VARIABLE: key},
        files={
            "/etc/agent-gateway/gateway.toml": CONFIGURATION,
            "/srv/agents/looks.py": AGENT,
        },
    )
    command = ["unshare", "--mount", "sh", "-c", steps]
    with served(command, env=dict(os.environ), key=key, seconds=SECONDS) as gateway:
        answer = gateway.post("/agent/looks/invoke", input="/etc/agent-gateway/gateway.toml")
        assert answer["output"]["sees"] is False
        assert answer["output"]["uid"] != 0
        assert gateway.post("/agent/looks/invoke", input="/srv/agents/looks.py")["output"]["sees"]
        assert gateway.get("/agent/looks")["sandbox"]["level"] == "strict"


def test_the_container_file_ends_as_an_ordinary_user_with_the_distributions_script() -> None:
    found = list(instructions(CONTAINERFILE))
    last = dict(found)
    assert last["USER"] == "10001:10001"
    assert json.loads(last["ENTRYPOINT"]) == ["agent-gateway", "--host", "0.0.0.0"]
    assert json.loads(last["CMD"])[0] == "--config"
    assert [rest for name, rest in found if name == "FROM"] == ["debian:bookworm-slim"]


def test_what_a_continued_line_says_is_one_instruction(tmp_path: Path) -> None:
    path = tmp_path / "Containerfile"
    path.write_text("# what\nFROM a\nRUN one \\\n # between\n && two\nENV A=1\n")
    assert list(instructions(path)) == [("FROM", "a"), ("RUN", "one  && two"), ("ENV", "A=1")]


def test_a_script_of_steps_is_one_that_a_shell_can_read(tmp_path: Path) -> None:
    steps = script(
        CONTAINERFILE,
        context=tmp_path,
        lower="/",
        work=tmp_path,
        arguments=["it's"],
        run_env={},
        env={},
        files={},
    )
    subprocess.run(["sh", "-n", "-c", steps], check=True)
