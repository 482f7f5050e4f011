"""The servers under test, each a process that is started and ended here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks.wire import Client, Request

ROOT = Path(__file__).parents[2]
AGENTS = Path(__file__).parent / "agents"

START_SECONDS = 60.0
"""Time for a server to say where it listens."""

STOP_SECONDS = 20.0
"""Time for a server to exit after SIGTERM, including the gateway's workers."""


@dataclass
class Server:
    """A running server with the gateway's paths and bodies."""

    name: str
    port: int
    pid: int
    log: Path
    command: list[str] = field(default_factory=list)

    def invoke(self, value: object, *, agent: str = "echo", stream: bool = False) -> Request:
        body: dict[str, object] = {"input": value}
        if stream:
            body["stream"] = True
        return Request(f"/agent/{agent}/invoke", json.dumps(body).encode())

    def chat(self, messages: list[dict[str, str]], *, agent: str = "echo") -> Request:
        return Request(f"/agent/{agent}/chat", json.dumps({"messages": messages}).encode())

    def state(self, agent: str) -> dict[str, Any]:
        """The body of `GET /agent/{name}`, which only the gateway has."""
        with Client(self.port) as client:
            state: dict[str, Any] = json.loads(client.get(f"/agent/{agent}")[1])
            return state


UNOBSERVED = {"access_log": False, "console": False}
"""No reference has a log or a console. What they cost is measured by itself (`operating`)."""


class StartError(Exception):
    """A server did not start; the message contains the end of its log."""


def agent_command(name: str) -> list[str]:
    """The command of one of the agents in `agents/`."""
    return [sys.executable, str(AGENTS / f"{name}.py")]


@contextmanager
def gateway(
    folder: Path,
    *,
    agents: Mapping[str, Mapping[str, Any]] | None = None,
    server: Mapping[str, Any] = UNOBSERVED,
    more: Mapping[str, Mapping[str, Any]] | None = None,
    sandbox: str | None = None,
    name: str = "gateway",
    program: Sequence[str] = (sys.executable, "-m", "gateway"),
) -> Iterator[Server]:
    """The gateway, started by its public command with default settings, but without access log and
    console.

    `agents` are the tables `[agents.NAME]`; a table without a command gets the benchmark agent of
    its name. `server` is the table `[server]`, and `more` are others. `sandbox` is the option
    `--sandbox`. `program` is the command of the gateway.
    """
    lines = []
    for table, values in {"server": server, **(more or {})}.items():
        lines.append(f"[{table}]")
        lines += [f"{key} = {_toml(value)}" for key, value in values.items()]
    for agent, table in ({"echo": {}} if agents is None else agents).items():
        lines.append(f"[agents.{agent}]")
        # The gateway's own interpreter, which has its SDK: another gateway has another one.
        command = ["python", *agent_command(agent)[1:]]
        for key, value in {"command": command, **table}.items():
            lines.append(f"{key} = {_toml(value)}")
    config = folder / f"{name.replace(' ', '-')}.toml"
    config.write_text("\n".join(lines))
    command = [*program, "--port", "0", "--config", str(config)]
    if sandbox is not None:
        command += ["--sandbox", sandbox]
    with start(name, command, folder) as it:
        yield it


@contextmanager
def bare(folder: Path) -> Iterator[Server]:
    """The reference *bare*."""
    command = [sys.executable, "-m", "tests.benchmarks.references", "quart"]
    with start("bare", command, folder) as it:
        yield it


@contextmanager
def raw_asgi(folder: Path) -> Iterator[Server]:
    """The reference *raw ASGI*."""
    command = [sys.executable, "-m", "tests.benchmarks.references", "asgi"]
    with start("raw ASGI", command, folder) as it:
        yield it


@contextmanager
def trivial(folder: Path) -> Iterator[Server]:
    """The server that shows what the load generators can do."""
    with start("trivial", [sys.executable, "-m", "tests.benchmarks.trivial"], folder) as it:
        yield it


@contextmanager
def start(name: str, command: list[str], folder: Path) -> Iterator[Server]:
    """Run a command that prints `listening on http://HOST:PORT` once it serves."""
    log = folder / f"{name.replace(' ', '-')}.log"
    with log.open("ab") as stderr:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, cwd=ROOT, env=os.environ
        )
    assert process.stdout is not None
    try:
        words = process.stdout.readline().decode().split()
        if words[:2] != ["listening", "on"]:
            raise StartError(f"{name} did not start:\n{end_of(log)}")
        yield Server(name, int(words[2].rpartition(":")[2]), process.pid, log, command)
    finally:
        end(process)
        process.stdout.close()


def end(process: subprocess.Popen[bytes]) -> None:
    """End a server with SIGTERM, and with SIGKILL if it does not exit in time."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    return json.dumps(value)  # strings, numbers, booleans and lists are the same in both


def end_of(log: Path) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:])
