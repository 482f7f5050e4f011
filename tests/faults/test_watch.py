"""`--watch` and `--reload`: files that change are taken over, whole or not at all."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.faults.scene import LEVEL
from tests.harness import RunningGateway, running_gateway

AGENT = """
import json, os, sys
for line in sys.stdin:
    request = json.loads(line)
    said = ["one", os.environ.get("X", "")]
    print(json.dumps({"id": request["id"], "result": {"output": said}}), flush=True)
"""
READY = "print(json.dumps({'method': 'ready', 'params': {'protocol': 1, 'handlers': ['invoke']}}))"


def toml(folder: Path, value: str = "a") -> str:
    return f"""
        [server]
        sandbox = "{LEVEL}"
        [agents.it]
        command = ["{sys.executable}", "-u", "agent.py"]
        workers = {{ min = 1, max = 1 }}
        sandbox = {{ cwd = "{folder}/project", env = {{ X = "{value}" }} }}
    """


def project(folder: Path, text: str = AGENT) -> Path:
    path = folder / "project"
    path.mkdir(exist_ok=True)
    for each in (folder, path):
        each.chmod(0o755)
    # With the handshake: a gateway waits for it, and not for the longest that it would.
    text = text.replace("for line in", f"{READY}\nfor line in", 1)
    (path / "agent.py").write_text(text)
    return path / "agent.py"


def replace(path: Path, text: str) -> None:
    """As editors do it, and tools for secrets."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)


async def said(gateway: RunningGateway) -> list[str]:
    answer = await gateway.post("/agent/it/invoke", input=1)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["output"])


async def test_a_configuration_that_is_replaced_is_taken_over(tmp_path: Path) -> None:
    project(tmp_path)
    settings = tmp_path / "settings"
    settings.mkdir()
    path = settings / "gateway.toml"
    token = settings / "token"
    token.write_text("from-a-file")
    async with running_gateway({}, "--watch", toml=toml(tmp_path), folder=settings) as gateway:
        assert await said(gateway) == ["one", "a"]
        replace(path, toml(tmp_path, "b"))
        await gateway.logged("reload: done")
        assert await said(gateway) == ["one", "b"]

        # Half of it is refused, once, however often it is written.
        gateway.log.clear()
        half = toml(tmp_path, "c")[:-30]
        path.write_text(half)
        await gateway.logged("reload: refused as a whole.*not valid TOML")
        assert await said(gateway) == ["one", "b"]
        replace(path, half)
        await gateway.logged("the configuration has changed")
        path.write_text(toml(tmp_path, "file:token"))
        await gateway.logged("reload: done")
        refused = [line for line in gateway.log if "refused" in line]
        assert len(refused) == 1, refused
        assert await said(gateway) == ["one", "from-a-file"]

        # A file that it refers to is one of its own.
        gateway.log.clear()
        replace(token, "another")
        await gateway.logged("reload: done")
        assert await said(gateway) == ["one", "another"]


async def test_an_agent_whose_file_changes_has_new_workers_unless_they_fail(tmp_path: Path) -> None:
    script = project(tmp_path)
    settings = tmp_path / "settings"
    settings.mkdir()
    async with running_gateway({}, "--reload", toml=toml(tmp_path), folder=settings) as gateway:
        assert await said(gateway) == ["one", "a"]
        project(tmp_path, AGENT.replace("one", "two"))
        await gateway.logged("reload: done")
        assert await said(gateway) == ["two", "a"]

        gateway.log.clear()
        replace(script, "this is no Python")
        await gateway.logged("reload: refused as a whole.* agent 'it' cannot be started")
        assert await said(gateway) == ["two", "a"]

        # What tools and programs leave there is no change; a new file in a new folder is one.
        gateway.log.clear()
        project(tmp_path, AGENT.replace("one", "three"))
        await gateway.logged("reload: done")
        for name in ("__pycache__", ".git"):
            os.mkdir(script.parent / name)
            (script.parent / name / "x").write_text("x")
        (script.parent / "x.log").write_text("x")
        gateway.log.clear()
        (script.parent / "prompts").mkdir()
        (script.parent / "prompts" / "first.md").write_text("x")
        await gateway.logged("changed: .*prompts/first.md")
        await gateway.logged("reload: done")
        changes = [line for line in gateway.log if "changed:" in line]
        assert len(changes) == 1, changes
        assert await said(gateway) == ["three", "a"]
