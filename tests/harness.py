"""A real gateway in a process of its own, on a free port of the loopback, for tests through HTTP.

    async with running_gateway({"echo": agent("echo.py")}) as gateway:
        answer = await gateway.client.post("/agent/echo/invoke", json={"input": 1})

At the end of the block the gateway gets SIGTERM and must exit, and none of the processes that it
started may be left. This is asserted in every test that uses it. After the block the log is whole.
"""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import trio

AGENTS = Path(__file__).parent / "agents"
EXAMPLES = Path(__file__).parent.parent / "worker" / "examples"

AS_ONE = str(Path(__file__).parent / "fleet" / "as_one.py")

AS_FLEET = os.environ.get("GATEWAY_TESTS_FLEET") == "1"
"""Whether each gateway is a fleet that is run as one, see there."""


def one_process(reason: str) -> pytest.MarkDecorator:
    """Of a test whose subject is one process: not run where each gateway is a fleet. `reason`:
    what is not the same there."""
    return pytest.mark.skipif(AS_FLEET, reason=f"a fleet: {reason}")


START_SECONDS = 60
"""Time for the gateway to say where it listens. Of two processors that thirty processes share, its
imports alone take 15 s."""

STOP_SECONDS = 30
"""Time for the gateway to exit after SIGTERM, including the shutdown steps of its workers."""


def python_agent(name: str, *arguments: str) -> list[str]:
    """The command of a fault agent in `tests/agents/`."""
    return [sys.executable, "-u", str(AGENTS / name), *arguments]


def descendants(pid: int) -> set[int]:
    """The current descendants of `pid`."""
    found: set[int] = set()
    todo = [pid]
    while todo:
        for thread in Path(f"/proc/{todo.pop()}/task").glob("*/children"):
            try:
                children = {int(child) for child in thread.read_text().split()}
            except OSError:
                continue
            todo += children - found
            found |= children
    return found


def is_alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def marked_processes(marker: str) -> set[int]:
    """Every live process whose environment contains `marker`, whatever its parent is now."""
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                environ = (folder / "environ").read_bytes()
            except OSError:
                continue
            if marker.encode() in environ and is_alive(int(folder.name)):
                found.add(int(folder.name))
    return found


async def gone(pid: int, seconds: float = 10) -> bool:
    """Wait for the end of a process that is not our child; False if it is still alive then."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        with trio.move_on_after(seconds):
            await trio.lowlevel.wait_readable(pidfd)
            return True
        return not is_alive(pid)
    finally:
        os.close(pidfd)


class RunningGateway:
    """A gateway that serves, as tests use it."""

    def __init__(self, process: trio.Process, url: str, log: list[str], marker: str) -> None:
        self.process = process
        self.pid = process.pid
        self.url = url
        self.host = urlsplit(url).hostname or ""
        self.port = int(url.rpartition(":")[2])
        self.log = log
        """The lines of the gateway's stderr so far."""
        self.marker = marker
        self.client = httpx.AsyncClient(base_url=url, timeout=60, verify=False)
        self._log_grew = trio.Event()
        self._log_is_read = trio.Event()
        self._log_is_read.set()

    @contextmanager
    def log_unread(self) -> Iterator[None]:
        """Read nothing of the gateway's stderr meanwhile, as a pipe that nobody reads."""
        self._log_is_read = trio.Event()
        try:
            yield
        finally:
            self._log_is_read.set()

    async def log_may_be_read(self) -> None:
        await self._log_is_read.wait()

    async def logged(self, pattern: str, seconds: float = 30) -> str:
        """Wait for a line of the gateway's stderr that matches, and return it."""
        with trio.fail_after(seconds):
            seen = 0
            while True:
                for line in self.log[seen:]:
                    if re.search(pattern, line):
                        return line
                seen = len(self.log)
                event = self._log_grew
                if len(self.log) == seen:
                    await event.wait()

    async def insist(self, number: signal.Signals, seconds: float = 30) -> None:
        """Send a signal until it is taken as another one than the first."""
        with trio.fail_after(seconds):
            while not any("ending at once" in line for line in self.log):
                self.process.send_signal(number)
                with trio.move_on_after(0.2):
                    await self.logged("ending at once")

    async def grows(self, seconds: float = 30) -> None:
        """Wait for the next line of the gateway's stderr."""
        with trio.fail_after(seconds):
            await self._log_grew.wait()

    def log_line(self, line: str) -> None:
        self.log.append(line)
        event, self._log_grew = self._log_grew, trio.Event()
        event.set()

    async def post(self, path: str, **body: Any) -> httpx.Response:
        """POST a JSON object made of the keywords."""
        return await self.client.post(path, json=body)

    async def state(self, agent: str) -> dict[str, Any]:
        """The body of `GET /agent/{name}`."""
        return (await self.client.get(f"/agent/{agent}")).json()  # type: ignore[no-any-return]

    async def stream(self, path: str, **body: Any) -> tuple[int, list[str]]:
        """POST with `stream: true`; returns the status and the data of each event.

        An `event: error` is returned as `error <data>`, the body of an error response as one item.
        """
        body = {**body, "stream": True}
        async with self.client.stream("POST", path, json=body) as response:
            text = (await response.aread()).decode()
        if response.status_code != 200:
            return response.status_code, [text]
        return 200, list(parse_events(text))

    def processes(self) -> set[int]:
        """Every live process that this gateway has started, whatever its parent is now."""
        return (marked_processes(self.marker) | descendants(self.pid)) - {self.pid}

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))


async def reload(gateway: RunningGateway, folder: Path, toml: str, outcome: str) -> str:
    """Change the configuration of a gateway that runs in `folder`; the line that says `outcome`."""
    (folder / "gateway.toml").write_text(toml)
    gateway.log.clear()
    os.kill(gateway.pid, signal.SIGHUP)
    return await gateway.logged(outcome)


def parse_events(text: str) -> Iterator[str]:
    """The data of each event of an SSE stream, without comments."""
    for block in text.split("\n\n"):
        kind, data = "", []
        for line in block.split("\n"):
            field, _, value = line.partition(":")
            if field == "event":
                kind = f"{value.strip()} "
            elif field == "data":
                data.append(value.removeprefix(" "))
        if data:
            yield kind + "\n".join(data)


@asynccontextmanager
async def running_gateway(
    agents: Mapping[str, str | list[str]] | None = None,
    *arguments: str,
    toml: str | None = None,
    folder: Path | None = None,
    env: Mapping[str, str] | None = None,
    expect_exit: int | None = 0,
    prefix: Sequence[str] = (),
) -> AsyncIterator[RunningGateway]:
    """Run `gateway` with these agents (by name) or this TOML text, and end it afterwards.

    The TOML is written to `folder`, a tmp_path. The exit code must be `expect_exit`, unless that is
    None. `prefix` is a command that becomes the gateway (`exec`).
    """
    marker = f"GATEWAY_TEST_MARKER={os.urandom(8).hex()}"
    name, _, value = marker.partition("=")
    # Stderr is no terminal, and tests read the log as people do.
    program = [AS_ONE] if AS_FLEET else ["-m", "gateway"]
    command = [*prefix, sys.executable, *program, "--port", "0", "--log-format", "text"]
    command += arguments
    for agent, words in (agents or {}).items():
        text = words if isinstance(words, str) else subprocess.list2cmdline(words)
        command += ["--agent", f"{agent}={text}"]
    if toml is not None:
        assert folder is not None
        path = folder / "gateway.toml"
        path.write_text(toml)
        command += ["--config", str(path)]
    process = await trio.lowlevel.open_process(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **(env or {}), name: value},
        start_new_session=True,
    )
    assert process.stdout is not None
    log: list[str] = []
    async with trio.open_nursery() as nursery:
        gateway: list[RunningGateway] = []
        log_is_whole = trio.Event()
        nursery.start_soon(_collect, process.stderr, log, gateway, log_is_whole)
        try:
            with trio.fail_after(START_SECONDS):
                line = await _read_line(process.stdout)
            assert line.startswith("listening on http://"), f"{line!r}\n" + "\n".join(log)
            gateway.append(RunningGateway(process, line.split()[-1], log, marker))
            yield gateway[0]
            await gateway[0].client.aclose()
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            with trio.fail_after(STOP_SECONDS):
                await process.wait()
            left = gateway[0].processes()
            if process.returncode == -signal.SIGKILL:  # they end by themselves, at the end of stdin
                left = {pid for pid in left if not await gone(pid)}
            assert not left, f"processes left behind: {left}\n" + "\n".join(log[-50:])
            with trio.move_on_after(5):  # a helper that a test let live may hold the pipe
                await log_is_whole.wait()
            if expect_exit is not None:
                assert process.returncode == expect_exit, "\n".join(log[-50:])
        except BaseException:
            print("\n".join(log[-200:]), file=sys.stderr)
            raise
        finally:
            if process.returncode is None:
                process.kill()
            with trio.move_on_after(5, shield=True):
                await process.wait()
                if gateway:  # a socket left open would fail another test, whichever comes next
                    await gateway[0].client.aclose()
            for pid in marked_processes(marker):
                os.kill(pid, signal.SIGKILL)
            nursery.cancel_scope.cancel()


class GatewayInThread:
    """A gateway that serves, for tests that are not async or that share it."""

    def __init__(self, gateway: RunningGateway, token: trio.lowlevel.TrioToken) -> None:
        self.url = gateway.url
        self.port = gateway.port
        self._gateway = gateway
        self._token = token

    def state(self, agent: str) -> dict[str, Any]:
        """The body of `GET /agent/{name}`."""
        return trio.from_thread.run(self._gateway.state, agent, trio_token=self._token)

    def logged(self, pattern: str) -> str:
        """Wait for a line of the gateway's stderr that matches, and return it."""
        return trio.from_thread.run(self._gateway.logged, pattern, trio_token=self._token)

    def log(self) -> list[str]:
        """The lines of the gateway's stderr so far."""
        return list(self._gateway.log)


@contextmanager
def gateway_in_thread(
    toml: str, folder: Path, *, key: str | None = None
) -> Iterator[GatewayInThread]:
    """Run a gateway, and what reads its log, on a trio in a thread of its own. `key` is one that it
    takes, if it has keys."""
    found: queue.Queue[tuple[GatewayInThread, Callable[[], None]] | BaseException] = queue.Queue()

    async def serve() -> None:
        stop = trio.Event()
        token = trio.lowlevel.current_trio_token()
        async with running_gateway(toml=toml, folder=folder) as gateway:
            if key is not None:
                gateway.client.headers["authorization"] = f"Bearer {key}"
            found.put((GatewayInThread(gateway, token), lambda: token.run_sync_soon(stop.set)))
            await stop.wait()

    failures: list[BaseException] = []

    def run() -> None:
        try:
            trio.run(serve)
        except BaseException as error:
            failures.append(error)
            found.put(error)

    thread = threading.Thread(target=run)
    thread.start()
    started = found.get(timeout=2 * START_SECONDS)
    if isinstance(started, BaseException):
        raise started
    gateway, stop = started
    try:
        yield gateway
    finally:
        stop()
        thread.join(timeout=2 * STOP_SECONDS)
    if failures:
        raise failures[0]


async def _collect(
    stream: Any, log: list[str], gateway: list[RunningGateway], is_whole: trio.Event
) -> None:
    rest = b""
    async for data in stream:
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            text = line.decode("utf-8", "replace")
            if gateway:
                gateway[0].log_line(text)
            else:
                log.append(text)
        if gateway:
            await gateway[0].log_may_be_read()
    is_whole.set()


async def _read_line(stream: Any) -> str:
    line = b""
    while not line.endswith(b"\n"):
        data = await stream.receive_some(1)
        if not data:
            break
        line += data
    return line.decode()
