"""The clients, and what they give: one process for each, which carries out all its orders."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import httpx
import trio

from gateway.config.keys import hash_key
from gateway.config.settings import ServerSettings
from tests.clients.protocols import OF_PROTOCOL
from tests.clients.row import Client
from tests.clients.runners import ANSWER, KEY
from tests.clients.scenarios import ALL, FRAGILE, JQ, TOLD, Reply, Scenario
from tests.harness import GatewayInThread
from tests.javascript import MODULES, need_package, need_runtime

ROOT = Path(__file__).parents[2]
RUNNERS = Path(__file__).parent / "runners"
AGENT = Path(__file__).parent / "agents" / "told.py"

RUN_SECONDS = 240
"""For all that is asked of one program, which takes less than ten, on a loaded machine."""

ALL_SECONDS = 600
"""The same, of all of them."""

WRONG_KEY = "agw_a-key-that-nobody-has-given-to-this-client"
OTHER_KEY = "agw_the-key-of-others-who-may-call-as-well"
AUTHORIZATION = {"authorization": f"Bearer {KEY}"}

ONE_LINER = """
select(.method == "chat") | .id as $id
| (.params.messages[-1].content | strings // (map(.text // "") | join(" "))
  | split(" ")[0]) as $task
| if $task == "break" then "nonsense"
  elif $task == "break-later" then
    {method: "chunk", params: {id: $id, chunk: "so far"}}, "nonsense"
  else
    {method: "chunk", params: {id: $id, chunk: ("Hello, ", "Wörld", "!")}}, {id: $id, result: {}}
  end
"""
"""An agent of jq's, which knows no event of the wire and no handshake. It breaks by breaking the
wire's rules: jq itself does not exit before its input has ended."""

NODE = "node24"
"""The AI SDK needs 22 or newer."""


CLIENTS: tuple[Client, ...] = tuple(each for rows in OF_PROTOCOL.values() for each in rows)


@dataclass(frozen=True)
class Results:
    """What clients gave."""

    versions: Mapping[Client, str]
    """Of every client that was asked."""
    replies: Mapping[str, Reply]
    """By the token of each request. `runs` says how often the agent ran for it, and `cancelled`, of
    one that its client left, whether the agent was told."""

    @property
    def asked(self) -> Iterator[tuple[Client, Scenario]]:
        return asked_of(self.versions)


def asked_of(clients: Iterable[Client]) -> Iterator[tuple[Client, Scenario]]:
    """What there is to ask each client for."""
    for client in clients:
        for scenario in ALL:
            if client.is_asked(scenario):
                yield client, scenario


def run_all(gateway: GatewayInThread, folder: Path, clients: Sequence[Client] = CLIENTS) -> Results:
    """Let clients do everything: as many programs at a time as there are cores."""
    programs = dict.fromkeys(client.program for client in clients)
    orders = {
        program: {
            client.token(scenario): order(client, scenario)
            for client, scenario in asked_of(clients)
            if client.program == program
        }
        for program in programs
    }
    versions: dict[str, dict[str, str]] = {}
    replies: dict[str, dict[str, Any]] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = pool.map(lambda each: run(each, gateway.url, folder, orders[each]), programs)
        for program, (told, given) in zip(programs, runs, strict=True):
            replies |= given
            versions[program] = told
    for client, scenario in asked_of(clients):
        token = client.token(scenario)
        if scenario.do == "leave":
            replies[token]["cancelled"] = _is_logged(gateway, f" cancelled {token} ")
    for model in (TOLD, FRAGILE):  # what they logged before is in the log after this
        _say_last(gateway, model)
    for token, reply in replies.items():
        reply["runs"] = sum(f" runs {token} " in line for line in gateway.log())
    return Results({each: versions[each.program][each.package] for each in clients}, replies)


def _say_last(gateway: GatewayInThread, model: str) -> None:
    token = f"last-of-{model}-{secrets.token_hex(4)}"
    messages = [{"role": "user", "content": f"hello {token}"}]
    httpx.post(
        f"{gateway.url}/agent/{model}/chat",
        json={"messages": messages},
        headers=AUTHORIZATION,
        timeout=30,
        verify=False,
    )
    gateway.logged(f" runs {token} ")


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


def order(client: Client, scenario: Scenario) -> dict[str, Any]:
    """As `runners` has it."""
    return {
        "api": client.does,
        "do": scenario.do,
        "model": scenario.model,
        "text": f"{scenario.task} {client.token(scenario)}",
        "tools": scenario.tools,
        "image": scenario.image,
        "answer": ANSWER if scenario.answer else None,
        "key": WRONG_KEY if scenario.wrong_key else KEY,
    }


def toml() -> str:
    """A gateway with the agents of the scenarios, in the strict sandbox, with keys and with every
    dialect."""
    able = '{"concurrency": 64, "modes": ["text", "image"], "tools": true, "asks": true}'
    narrow = '{"concurrency": 1, "tools": true}'
    told = {"told": able, "fragile": narrow, "plain": "{}"}
    commands = {name: [sys.executable, str(AGENT), ready] for name, ready in told.items()}
    commands[JQ] = ["jq", "--unbuffered", "-c", ONE_LINER]
    tables = [
        f"[agents.{name}]\ncommand = {json.dumps(command)}\n" for name, command in commands.items()
    ]
    return (
        f"[server]\nsandbox = 'strict'\ncors = ['*']\ndialects = {json.dumps(dialects())}\n"
        f"[keys.tests]\nhash = '{hash_key(KEY.encode())}'\n"
        f"[keys.others]\nhash = '{hash_key(OTHER_KEY.encode())}'\n"
        "[defaults]\nworkers = { min = 1, max = 1 }\n"
        "restart = { failures = 1000, backoff = 0 }\n" + "".join(tables)
    )


def dialects() -> list[str]:
    """The names of all dialects that there are."""
    [names] = get_args(get_type_hints(ServerSettings)["dialects"])
    return list(get_args(names))
