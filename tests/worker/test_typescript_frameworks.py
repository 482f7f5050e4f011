"""Agents written with frameworks for TypeScript, behind the gateway, in the strict sandbox.

The models are fakes; the frameworks are what their authors ship.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.harness import running_gateway
from tests.http.raw import connected
from tests.javascript import MODULES, need_package, need_runtime
from tests.sandbox.users import need_sandbox

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "worker" / "examples" / "frameworks"
PACKAGES = {"ai_sdk": "ai", "langchain": "@langchain/core", "openai_agents": "@openai/agents"}
"""What each example is written with."""
WORDS = ["Roses ", "are ", "red."]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The examples as a project of their own, with the packages of the tests."""
    folder = tmp_path / "project"
    shutil.copytree(EXAMPLES, folder)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "node_modules").symlink_to(MODULES)
    for each in (tmp_path, folder):
        each.chmod(0o755)
    return folder


def config(project: Path, example: str) -> str:
    need_sandbox("root" if os.geteuid() == 0 else "user")
    need_package(PACKAGES[example])
    agent_worker = Path(sys.executable).with_name("agent-worker")
    runtime = f"--runtime={need_runtime('node24')}"
    command = [str(agent_worker), runtime, str(project / f"{example}.ts")]
    return f"""
[agents.poet]
command = {json.dumps(command)}
workers = {{ max = 1 }}
[agents.poet.sandbox]
mounts_ro = [{json.dumps(str(MODULES))}]
"""


def asking(text: str) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": text}], "stream": True}


@pytest.mark.parametrize("example", PACKAGES)
async def test_its_words_are_chunks_and_a_caller_that_leaves_ends_the_models_work(
    example: str, project: Path, tmp_path: Path
) -> None:
    async with running_gateway(toml=config(project, example), folder=tmp_path) as gateway:
        async with connected(gateway.port) as connection:
            await connection.request("/agent/poet/chat", asking("hello"))
            said = await connection.until(rb"data: \[DONE\]")
            chunks = [
                json.loads(line.removeprefix(b"data: "))["chunk"]
                for line in said.splitlines()
                if line.startswith(b'data: {"chunk"')
            ]
            assert chunks == WORDS
        async with connected(gateway.port) as connection:
            await connection.request("/agent/poet/chat", asking("slowly"))
            # The model has said one word, and says no other: the word came alone.
            await connection.until(b'data: {"chunk":"Roses "}')
        await gateway.logged("the model's caller gave up")
        if example == "ai_sdk":
            told = await gateway.post(
                "/agent/poet/chat", events=True, messages=asking("hello")["messages"]
            )
            assert told.json()["usage"] == {"input_tokens": 1, "output_tokens": 3}
        whole = await gateway.post("/agent/poet/chat", messages=asking("hello")["messages"])
        assert whole.json() == {"message": {"role": "assistant", "content": "".join(WORDS)}}


def run(*command: str | Path, cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_examples_are_well_typed_and_well_formed(project: Path) -> None:
    options = {
        "strict": True,
        "noEmit": True,
        "target": "es2024",
        "lib": ["es2024"],
        "module": "nodenext",
        "allowImportingTsExtensions": True,
        "erasableSyntaxOnly": True,
        "verbatimModuleSyntax": True,
        "skipLibCheck": True,
        "types": ["node"],
        "paths": {
            "agent-gateway-worker": [str(ROOT / "worker/typescript/index.d.ts")],
            "agent-gateway-worker/*": [str(ROOT / "worker/typescript/*.d.ts")],
        },
    }
    settings = {"compilerOptions": options, "include": ["*.ts"]}
    (project / "tsconfig.json").write_text(json.dumps(settings))
    node = need_runtime("node24")
    run(node, need_package("typescript") / "bin" / "tsc", "-p", ".", cwd=project)
    style = ROOT / "worker" / "typescript" / "biome.json"
    examples = sorted(map(str, EXAMPLES.glob("*.ts")))
    check: Sequence[str] = ("check", "--error-on-warnings", f"--config-path={style}")
    run(node, need_package("@biomejs/biome") / "bin" / "biome", *check, *examples, cwd=project)
