"""A gateway with an agent that misbehaves and a neighbour that does not, and requests to both.

    async with scene(tmp_path, bad=agent("segfault.py")) as gateway:
        ...

Only the gateway is started here; the workers are the gateway's.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import trio

from tests.agents.wire import FAULT
from tests.harness import RunningGateway, python_agent, running_gateway

HAS_STRICT = shutil.which("bwrap") is not None

LEVEL = os.environ.get("GATEWAY_TEST_SANDBOX", "strict" if HAS_STRICT else "off")
"""How workers are isolated in tests that do not choose: a fault must have the same outcome either
way."""

PATIENCE = 20
"""Seconds for something that takes milliseconds on an idle machine."""

Footprint = tuple[int, Counter[str]]
"""The number of the gateway's processes, and of its descriptors by kind."""


def agent(script: str, *arguments: str | Path, **settings: Any) -> dict[str, Any]:
    """The TOML table of a fault agent, with one worker unless `settings` says otherwise."""
    command = python_agent(script, *map(str, arguments))
    workers = {"min": 1, "max": 1, **settings.pop("workers", {})}
    return {"command": command, "workers": workers, **settings}


@asynccontextmanager
async def scene(
    folder: Path,
    *,
    level: str | None = None,
    server: Mapping[str, Any] | None = None,
    expect_exit: int | None = 0,
    prefix: Sequence[str] = (),
    **agents: dict[str, Any],
) -> AsyncIterator[RunningGateway]:
    """Run a gateway with these agents and `good`, their neighbour.

    `folder` is a tmp_path; agents can read the folder `shared` in it.
    """
    tables = {
        "server": {"sandbox": level or LEVEL, **(server or {})},
        "defaults": {"sandbox": {"mounts_ro": [str(shared(folder))]}},
        "agents.good": agent("echo.py"),
        **{f"agents.{name}": table for name, table in agents.items()},
    }
    # In a folder of its own: the gateway refuses to show its settings to an agent.
    settings = folder / "settings"
    settings.mkdir()
    async with running_gateway(
        toml=to_toml(tables), folder=settings, expect_exit=expect_exit, prefix=prefix
    ) as gateway:
        yield gateway


def shared(folder: Path) -> Path:
    """The folder below a tmp_path that agents can read, also as another user."""
    path = folder / "shared"
    if not path.exists():
        path.mkdir()
        path.chmod(0o755)
    return path


def make_fifo(folder: Path) -> Path:
    """A FIFO that agents can open for reading."""
    path = shared(folder) / "fifo"
    os.mkfifo(path)
    path.chmod(0o644)
    return path


def to_toml(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """TOML text, one value per line. Strings, numbers and lists are written as in JSON."""
    return "".join(
        f"[{name}]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in table.items())
        for name, table in tables.items()
    )


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)


# Asking


async def ask(
    gateway: RunningGateway,
    name: str,
    wish: object = FAULT,
    *,
    kind: str = "invoke",
    client: httpx.AsyncClient | None = None,
    **headers: str,
) -> httpx.Response:
    """Send one request without a stream. Keywords are headers."""
    return await (client or gateway.client).post(
        f"/agent/{name}/{kind}",
        json=body(wish, kind),
        headers={key.replace("_", "-"): value for key, value in headers.items()},
    )


def body(wish: object, kind: str = "invoke") -> dict[str, Any]:
    return (
        {"input": wish} if kind == "invoke" else {"messages": [{"role": "user", "content": wish}]}
    )


async def served_by(gateway: RunningGateway, name: str, wish: object = "hello") -> str:
    """Ask for an echo, which must come, and return the name of the worker that sent it."""
    answer = await ask(gateway, name, wish)
    assert answer.status_code == 200, answer.text
    assert answer.json()["output"]["input"] == wish
    return answer.json()["output"]["worker"]  # type: ignore[no-any-return]


def error_of(answer: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    """The error in an answer, which must have this status and type."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["type"] == kind, error
    assert error["request_id"] == answer.headers["x-request-id"]
    assert answer.headers["cache-control"] == "no-store"
    return error  # type: ignore[no-any-return]


# Looking


def only_worker(state: Mapping[str, Any]) -> dict[str, Any]:
    [worker] = state["workers"]
    return worker  # type: ignore[no-any-return]


async def until_state(
    gateway: RunningGateway,
    name: str,
    condition: Callable[[dict[str, Any]], bool],
    seconds: float = PATIENCE,
) -> dict[str, Any]:
    """Poll the agent's state until the condition holds; returns that state."""
    state: dict[str, Any] = {}
    with trio.move_on_after(seconds):
        while True:
            state = await gateway.state(name)
            if condition(state):
                return state
            await pause()
    raise AssertionError(f"never seen of {name!r}: {state}")


async def pause() -> None:
    """Between two looks at what nobody tells of. Looks without end would keep two processors busy,
    the gateway's among them, which is to do what is waited for."""
    await trio.sleep(0.02)


async def worker_pid(gateway: RunningGateway, name: str) -> int:
    """The pid of the agent's one worker, once it serves."""
    state = await until_state(gateway, name, lambda state: state["state"] == "ready")
    return int(only_worker(state)["pid"])


def footprint(gateway: RunningGateway) -> Footprint:
    """Count the gateway's processes and, by kind, its descriptors."""
    kinds: Counter[str] = Counter()
    for descriptor in Path(f"/proc/{gateway.pid}/fd").iterdir():
        try:
            kinds[os.readlink(descriptor).partition("[")[0]] += 1
        except FileNotFoundError:
            continue
    return len(gateway.processes()), kinds


async def back_to(gateway: RunningGateway, before: Footprint) -> None:
    """Wait until there are as many processes and descriptors as before."""
    now = before
    with trio.move_on_after(PATIENCE):
        while True:
            # With a request, so that its connection is among the descriptors each time.
            await gateway.state("good")
            now = footprint(gateway)
            if now == before:
                return
            await pause()
    raise AssertionError(f"left behind: {now}, and before there were {before}")


# Clients that are not httpx


@asynccontextmanager
async def open_request(
    gateway: RunningGateway, name: str, wish: object, *, between: str = " ", **extra: Any
) -> AsyncIterator[trio.SocketStream]:
    """Send a request on its own connection; the caller reads the response, or does not.

    `between` is the white space behind a comma of the body.
    """
    data = json.dumps({**body(wish), **extra}, separators=(f",{between}", ": ")).encode()
    async with await trio.open_tcp_stream("127.0.0.1", gateway.port) as connection:
        await connection.send_all(
            b"POST /agent/%s/invoke HTTP/1.1\r\nhost: localhost\r\n"
            b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
            % (name.encode(), len(data), data)
        )
        yield connection


async def read_until(connection: trio.SocketStream, pattern: bytes) -> bytes:
    """Read until `pattern` has been received; returns all data read."""
    data = b""
    with trio.fail_after(PATIENCE):
        while pattern not in data:
            more = await connection.receive_some(65536)
            assert more, f"the connection ended after {data!r}"
            data += more
    return data


def send_signal(gateway: RunningGateway, number: signal.Signals) -> None:
    os.kill(gateway.pid, number)
