"""Other systems, measured for comparison with `--peers` and installed outside the project.

They are two versions of an in-process runtime (FastAPI on uvicorn) and three bridges from HTTP to
one long-lived child on stdio. Each has its own environment in a cache folder, made on first use.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.benchmarks.servers import AGENTS, START_SECONDS, Server, StartError, end, end_of
from tests.benchmarks.wire import NUMBER, Client, Request, connect

CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "agent-gateway-benchmarks"

PYTHON_PEERS = {
    "reminix 0.0.7": ["reminix-runtime==0.0.7"],
    "reminix 0.0.22": ["reminix-runtime==0.0.22", "mcp<2"],
    "mcp-proxy": ["mcp-proxy==0.13.0", "mcp<2"],
    "mcpo": ["mcpo==0.0.20", "mcp<2", "fastapi==0.115.14"],
}
NODE_PEERS = {"supergateway": ["supergateway@4.0.0"]}

TOOL = [sys.executable, str(AGENTS / "mcp_tool.py")]

INSTALLED = "installed.txt"
"""Marks an environment as complete, and names the packages that it was made from."""

Starter = Callable[[Path], AbstractContextManager[Server]]


@dataclass
class Tool(Server):
    """A bridge, with the tool `echo` as its only agent."""

    path: str = ""
    session: str = ""

    def invoke(self, value: object, *, agent: str = "echo", stream: bool = False) -> Request:
        if not self.session:  # mcpo: the arguments alone
            return Request(self.path, json.dumps(value).encode())
        params = json.dumps({"name": agent, "arguments": value}).encode()
        body = b'{"jsonrpc":"2.0","id":%b,"method":"tools/call","params":%b}' % (NUMBER, params)
        return Request(self.path, body, _mcp_headers(self.session))


def starters() -> tuple[dict[str, Starter], dict[str, str]]:
    """Starters by peer, and the reasons why others are left out. Installs what is missing."""
    found: dict[str, Starter] = {}
    skipped: dict[str, str] = {}
    ways: dict[str, Callable[[str, Path], AbstractContextManager[Server]]] = {
        "reminix 0.0.7": _reminix,
        "reminix 0.0.22": _reminix,
        "mcp-proxy": _mcp_proxy,
        "mcpo": _mcpo,
        "supergateway": _supergateway,
    }
    for name, way in ways.items():
        try:
            _install(name)
            found[name] = partial(way, name)
        except (OSError, subprocess.CalledProcessError) as error:
            skipped[name] = f"could not be installed: {error}"
    return found, skipped


def _home(name: str) -> Path:
    return CACHE / name.replace(" ", "-")


def _install(name: str) -> None:
    home = _home(name)
    wanted = " ".join([*PYTHON_PEERS.get(name, []), *NODE_PEERS.get(name, [])])
    mark = home / INSTALLED
    if mark.exists() and mark.read_text() == wanted:
        return
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    if name in PYTHON_PEERS:
        _run(sys.executable, "-m", "venv", str(home))
        _run(str(home / "bin" / "pip"), "install", "--quiet", *PYTHON_PEERS[name])
    else:
        (home / "package.json").write_text("{}")
        _run("npm", "install", "--silent", "--prefix", str(home), *NODE_PEERS[name])
    mark.write_text(wanted)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@contextmanager
def _reminix(name: str, folder: Path) -> Iterator[Server]:
    port = _free_port()
    command = [str(_home(name) / "bin" / "python"), str(AGENTS / "peer_reminix.py"), str(port)]
    with _serving(name, command, port, folder) as (pid, log):
        yield Reminix(name, port, pid, log)


class Reminix(Server):
    """A server with the reference system's paths."""

    def invoke(self, value: object, *, agent: str = "echo", stream: bool = False) -> Request:
        request = super().invoke(value, agent=agent, stream=stream)
        return Request(f"/agents/{agent}/invoke", request.body)


@contextmanager
def _mcp_proxy(name: str, folder: Path) -> Iterator[Server]:
    port = _free_port()
    program = str(_home(name) / "bin" / "mcp-proxy")
    command = [program, "--log-level", "WARNING", "--port", str(port), "--", *TOOL]
    with _serving(name, command, port, folder) as (pid, log):
        yield Tool(name, port, pid, log, path="/mcp", session=_open_session(port, "/mcp"))


@contextmanager
def _mcpo(name: str, folder: Path) -> Iterator[Server]:
    port = _free_port()
    program = str(_home(name) / "bin" / "mcpo")
    command = [program, "--host", "127.0.0.1", "--port", str(port), "--log-level", "WARNING"]
    with _serving(name, [*command, "--", *TOOL], port, folder) as (pid, log):
        yield Tool(name, port, pid, log, path="/echo")


@contextmanager
def _supergateway(name: str, folder: Path) -> Iterator[Server]:
    port = _free_port()
    program = _home(name) / "node_modules" / ".bin" / "supergateway"
    command = [
        "node", str(program), "--stdio", shlex.join(TOOL), "--outputTransport", "streamableHttp",
        "--stateful", "--logLevel", "none", "--port", str(port),
    ]  # fmt: skip
    with _serving(name, command, port, folder) as (pid, log):
        yield Tool(name, port, pid, log, path="/mcp", session=_open_session(port, "/mcp"))


@contextmanager
def _serving(
    name: str, command: Sequence[str], port: int, folder: Path
) -> Iterator[tuple[int, Path]]:
    """Run a server until the end of the block, which begins once it accepts connections."""
    log = folder / f"{name.replace(' ', '-')}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    try:
        until = time.monotonic() + START_SECONDS
        while not _accepts(port):
            if process.poll() is not None or time.monotonic() > until:
                raise StartError(f"{name} did not start:\n{end_of(log)}")
            time.sleep(0.05)
        yield process.pid, log
    finally:
        end(process)


def _open_session(port: int, path: str) -> str:
    """Perform the handshake of MCP over HTTP; returns the session's id."""
    start = {
        "protocolVersion": "2025-03-26",
        "capabilities": {},
        "clientInfo": {"name": "benchmarks", "version": "1"},
    }
    messages = (
        {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": start},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
    )
    session = ""
    for message in messages:
        with Client(port) as client:
            status, _ = client.post(
                Request(path, json.dumps(message).encode(), _mcp_headers(session))
            )
            session = client.headers.get("mcp-session-id", session)
        if status not in {200, 202}:
            raise StartError(f"{message['method']} on port {port} was answered with {status}")
    return session


def _mcp_headers(session: str) -> tuple[tuple[str, str], ...]:
    headers = [
        ("Content-Type", "application/json"),
        ("Accept", "application/json, text/event-stream"),
    ]
    return (*headers, ("Mcp-Session-Id", session)) if session else tuple(headers)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _accepts(port: int) -> bool:
    try:
        connect(port).close()
    except OSError:
        return False
    return True
