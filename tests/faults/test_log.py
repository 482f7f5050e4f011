"""The gateway's stderr and stdout have no reader, no room, or are closed: it serves on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest
import trio

from tests.faults.scene import LEVEL, PATIENCE
from tests.harness import START_SECONDS, python_agent

AGENTS = {"noisy": "flood_stderr.py", "good": "echo.py"}


@asynccontextmanager
async def gateway(
    port: int,
    *prefix: str,
    stdout: int = subprocess.DEVNULL,
    stderr: int = subprocess.DEVNULL,
) -> AsyncIterator[trio.Process]:
    """A gateway with these standard streams, which need not tell where it listens."""
    words = [*prefix, sys.executable, "-m", "gateway", "--sandbox", LEVEL, "--port", str(port)]
    for name, script in AGENTS.items():
        words += ["--agent", f"{name}={subprocess.list2cmdline(python_agent(script))}"]
    process = await trio.lowlevel.open_process(words, stdout=stdout, stderr=stderr)
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


@pytest.fixture
def port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def unread() -> Iterator[int]:
    """The writing end of a pipe that nobody reads, full already."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"\n" * 4096)
    except BlockingIOError:
        os.set_blocking(writer, True)
    yield writer
    os.close(reader)
    os.close(writer)


async def until_live(client: httpx.AsyncClient) -> None:
    with trio.fail_after(START_SECONDS):
        while True:
            try:
                await client.get("/live")
            except httpx.ConnectError:
                await trio.sleep(0.01)  # nothing tells when it listens
            else:
                return


async def serves_and_ends(process: trio.Process, port: int) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client:
        await until_live(client)
        for name in ("noisy", "good", "noisy", "good"):
            answer = await client.post(f"/agent/{name}/invoke", json={"input": 1})
            assert answer.status_code == 200, answer.text
        assert (await client.get("/live")).status_code == 200
    process.send_signal(signal.SIGTERM)
    with trio.fail_after(PATIENCE):
        assert await process.wait() == 0


async def test_a_log_that_nobody_reads_stops_nothing(port: int, unread: int) -> None:
    async with gateway(port, stderr=unread) as process:
        await serves_and_ends(process, port)


async def test_an_output_that_nobody_reads_stops_nothing(port: int, unread: int) -> None:
    async with gateway(port, stdout=unread, stderr=unread) as process:
        await serves_and_ends(process, port)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
async def test_a_full_disk_stops_nothing(port: int, stream: str) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    async with gateway(port, **{stream: full}) as process:
        os.close(full)
        await serves_and_ends(process, port)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
async def test_a_reader_that_has_left_stops_nothing_and_leaves_no_traceback(
    port: int, stream: str
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    log_reader, log_writer = os.pipe()
    async with gateway(port, **{"stderr": log_writer, stream: writer}) as process:
        os.close(writer)
        os.close(log_writer)
        await serves_and_ends(process, port)
    async with trio.lowlevel.FdStream(log_reader) as log:
        assert b"Traceback" not in b"".join([piece async for piece in log])


@pytest.mark.parametrize("closed", [[0], [1], [2], [0, 1, 2]])
async def test_streams_that_were_closed_are_no_others_descriptors(
    port: int, closed: list[int]
) -> None:
    shut = " ".join(f"{descriptor}>&-" for descriptor in closed)
    async with gateway(port, "sh", "-c", f'exec "$@" {shut}', "sh") as process:
        await serves_and_ends(process, port)
