"""The clients, and what they give: one process for each, which carries out all its orders."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import trio

from tests.clients.scenarios import ALL, FRAGILE, TOLD, Reply, Scenario
from tests.harness import GatewayInThread
from tests.javascript import MODULES, need_package, need_runtime

ROOT = Path(__file__).parents[2]
RUNNERS = Path(__file__).parent / "runners"
AGENT = Path(__file__).parent / "agents" / "told.py"

RUN_SECONDS = 200
"""For all that is asked of one program, which takes less than ten, on a loaded machine."""

ALL_SECONDS = 400
"""The same, of all of them."""

NODE = "node24"
"""The AI SDK needs 22 or newer."""


@dataclass(frozen=True)
class Client:
    """One client, with one of the APIs that it speaks."""

    name: str
    api: str
    """`chat`, `responses`, or another name that the program has for one of its ways."""
    program: str
    """A file in `runners`."""
    package: str
    """Whose version is told."""
    lacks: str = ""
    """Why it does not show the agent's reasoning: the only column that a client may be without."""

    @property
    def path(self) -> str:
        """The API, as the table has it."""
        return "responses" if self.api == "responses" else "chat"

    def __str__(self) -> str:
        return f"{self.program}:{self.api}".replace("with_", "")

    def token(self, scenario: Scenario) -> str:
        """What names a request of this client in the agent's log."""
        return f"{self}:{scenario.name}"


CLIENTS: tuple[Client, ...] = (
    Client("openai (Python)", "chat", "with_openai.py", "openai"),
    Client("openai (Python)", "responses", "with_openai.py", "openai"),
    Client("openai (Node)", "chat", "with_openai.mjs", "openai"),
    Client("openai (Node)", "responses", "with_openai.mjs", "openai"),
    Client(
        "langchain-openai", "chat", "with_langchain.py", "langchain-openai",
        lacks="it does not read `reasoning_content`",
    ),
    Client("langchain-openai", "responses", "with_langchain.py", "langchain-openai"),
    Client("litellm", "chat", "with_litellm.py", "litellm"),
    Client("litellm", "responses", "with_litellm.py", "litellm"),
    Client(
        "AI SDK, openai", "chat", "with_ai_sdk.mjs", "@ai-sdk/openai",
        lacks="it does not read `reasoning_content`; openai-compatible does",
    ),
    Client("AI SDK, openai", "responses", "with_ai_sdk.mjs", "@ai-sdk/openai"),
    Client(
        "AI SDK, openai-compatible", "compatible", "with_ai_sdk.mjs",
        "@ai-sdk/openai-compatible",
    ),
    Client(
        "@openai/agents", "chat", "with_agents.mjs", "@openai/agents",
        lacks="it reads `reasoning`, another service's name of it",
    ),
    Client("@openai/agents", "responses", "with_agents.mjs", "@openai/agents"),
)  # fmt: skip

PROGRAMS = tuple(dict.fromkeys(client.program for client in CLIENTS))


@dataclass(frozen=True)
class Results:
    """What all clients gave."""

    versions: Mapping[Client, str]
    replies: Mapping[str, Reply]
    """By the token of each request. `runs` says how often the agent ran for it, and `cancelled`, of
    one that its client left, whether the agent was told."""


def run_all(gateway: GatewayInThread, folder: Path) -> Results:
    """Let every client do everything: as many programs at a time as there are cores."""
    versions: dict[Client, str] = {}
    replies: dict[str, dict[str, Any]] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = pool.map(lambda each: run(each, gateway.url, folder, orders_for(each)), PROGRAMS)
        for program, (told, given) in zip(PROGRAMS, runs, strict=True):
            replies |= given
            versions |= {
                client: told[client.package] for client in CLIENTS if client.program == program
            }
    for client in CLIENTS:
        for scenario in ALL:
            token = client.token(scenario)
            if scenario.do == "leave":
                replies[token]["cancelled"] = _is_logged(gateway, f" cancelled {token} ")
    for model in (TOLD, FRAGILE):  # what they logged before is in the log after this
        messages = [{"role": "user", "content": f"hello last-of-{model}"}]
        url = f"{gateway.url}/agent/{model}/chat"
        httpx.post(url, json={"messages": messages}, timeout=30, verify=False)
        gateway.logged(f" runs last-of-{model} ")
    for token, reply in replies.items():
        reply["runs"] = sum(f" runs {token} " in line for line in gateway.log())
    return Results(versions, replies)


def _is_logged(gateway: GatewayInThread, pattern: str) -> bool:
    try:
        gateway.logged(pattern)
    except trio.TooSlowError:
        return False
    return True


def command(program: str, folder: Path) -> list[str]:
    """The command of a program. `folder` is a temporary one, in which Node finds its packages."""
    if program.endswith(".py"):
        return [sys.executable, "-m", f"tests.clients.runners.{Path(program).stem}"]
    for client in CLIENTS:
        if client.program == program:
            need_package(client.package)
    runtime = need_runtime(NODE)
    own = folder / Path(program).stem
    own.mkdir()
    (own / "node_modules").symlink_to(MODULES)
    for name in (program, "runner.mjs"):
        shutil.copy(RUNNERS / name, own)
    return [runtime, str(own / program)]


Orders = Mapping[str, dict[str, Any]]
"""By the token of each."""


def run(
    program: str, url: str, folder: Path, orders: Orders
) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
    """Let one program carry out orders: the versions of its packages, and its replies."""
    ended = subprocess.run(
        [*command(program, folder), url],
        input="".join(f"{json.dumps(each)}\n" for each in orders.values()),
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        cwd=ROOT,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    versions, *replies = map(json.loads, ended.stdout.splitlines())
    assert len(replies) == len(orders), ended.stdout + ended.stderr
    return versions, dict(zip(orders, replies, strict=True))


def orders_for(program: str) -> Orders:
    """Every scenario, with each of the program's APIs."""
    return {
        client.token(scenario): order(client, scenario)
        for client in CLIENTS
        if client.program == program
        for scenario in ALL
    }


def order(client: Client, scenario: Scenario) -> dict[str, Any]:
    """As `runners` has it."""
    return {
        "api": client.api,
        "do": scenario.do,
        "model": scenario.model,
        "text": f"{scenario.task} {client.token(scenario)}",
        "tools": scenario.tools,
        "image": scenario.image,
    }


def toml() -> str:
    """A gateway with the three agents of the scenarios, in the strict sandbox."""
    able = '{"concurrency": 64, "modes": ["text", "image"], "tools": true, "asks": true}'
    narrow = '{"concurrency": 1, "tools": true}'
    commands = {"told": able, "fragile": narrow, "plain": "{}"}
    tables = [
        f"[agents.{name}]\ncommand = {json.dumps([sys.executable, str(AGENT), ready])}\n"
        for name, ready in commands.items()
    ]
    return (
        "[server]\nsandbox = 'strict'\n"
        "[defaults]\nworkers = { min = 1, max = 1 }\n"
        "restart = { failures = 1000, backoff = 0 }\n" + "".join(tables)
    )
