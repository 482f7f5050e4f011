"""The README, followed as a new user does: its agents, its requests, and what comes back."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import trio

from tests.conftest import need
from tests.harness import RunningGateway, running_gateway
from tests.javascript import need_runtime
from tests.test_architecture import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8080"


def agents() -> dict[str, str]:
    """The command of each agent that is served, by its name, or `NAME.ts` for one in TypeScript."""
    found = re.findall(r"^ *\.venv/bin/gateway (--agent .*)$", README, re.MULTILINE)
    found += re.findall(r"`(--agent .*?)`", README)
    shell = "\n".join(f"printf '%s\\0' {arguments}" for arguments in found)
    said = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True).stdout
    named = [word.split("=", 1) for word in said.split("\0") if "=" in word]
    return {name + ".ts" * command.endswith(".ts"): command for name, command in named}


def requests() -> list[tuple[str, str]]:
    """Each command of a console, and what it prints."""
    blocks = re.findall(r"^```console\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    steps = [step for block in blocks for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
    return [(command, printed) for command, _, printed in (step.partition("\n") for step in steps)]


def write(folder: Path, name: str) -> None:
    """The file of an agent, as the README has it."""
    [text] = re.findall(
        rf"^```\w+\n((?:#|//) {re.escape(name)}\n.*?)^```$", README, re.MULTILINE | re.DOTALL
    )
    folder.chmod(0o755)  # workers are users of their own
    (folder / name).write_text(text)


def without_ids(text: str) -> str:
    return re.sub(r'"request_id":"[\w-]+"', '"request_id":"…"', text)


async def greets(gateway: RunningGateway) -> bool:
    greeting = await gateway.post("/agent/greeter/invoke", input="Ada")
    chat = [{"role": "user", "content": "Good morning"}]
    words = await gateway.stream("/agent/greeter/chat", messages=chat)
    spoken = ['{"chunk":"Good "}', '{"chunk":"morning "}', "[DONE]"]
    return (greeting.json(), words) == ({"output": "Hello, Ada!"}, (200, spoken))


async def test_every_request_of_the_readme_is_answered_as_it_says(tmp_path: Path) -> None:
    for program in ("jq", "curl"):
        need(shutil.which(program), f"{program} is not installed")
    write(tmp_path, "greeter.py")
    served = {name: command for name, command in agents().items() if not name.endswith(".ts")}
    assert {"echo", "talk", "crash", "upper", "greeter"} <= served.keys()
    async with running_gateway(served, prefix=["env", f"--chdir={tmp_path}"]) as gateway:
        assert len(requests()) >= 6
        for command, printed in requests():
            assert ADDRESS in command
            said = await answered(command.replace(ADDRESS, gateway.url))
            assert without_ids(said.strip()) == without_ids(printed.strip()), command
        assert await greets(gateway)


async def answered(command: str) -> str:
    done = await trio.run_process(["bash", "-c", command], capture_stdout=True, capture_stderr=True)
    return str(done.stdout, "utf-8")


async def test_the_agent_of_the_readme_in_typescript_greets(tmp_path: Path) -> None:
    path = f"{Path(need_runtime('node22')).parent}:{os.environ['PATH']}"
    write(tmp_path, "greeter.ts")
    served = {"greeter": agents()["greeter.ts"]}
    folder = ["env", f"--chdir={tmp_path}"]
    async with running_gateway(served, prefix=folder, env={"PATH": path}) as gateway:
        assert await greets(gateway)
