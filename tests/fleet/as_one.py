"""A whole fleet that is run as one gateway: the same arguments, one line on stdout, the same
signals, one exit code.

    python tests/fleet/as_one.py --agent echo="agent-worker …" --port 0

Starts nats-server, a host and a front, all with these arguments and in this environment. What both
log comes out of stderr. A signal goes to the front; the host is ended when that has ended, as in a
gateway the workers are. With GATEWAY_TESTS_FLEET=1, `tests.harness` runs this in place of a
gateway, so that tests through HTTP show whether a fleet can be told from one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import trio

NO_FLEET = {"--check", "--help", "--print-config", "--version", "-h", "init", "key"}
"""Arguments with which nothing is served."""

FORWARDED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)

HEARD_SECONDS = 1.0
"""After which a front has connected to NATS, and has heard two beats of the host."""

GATEWAY = [sys.executable, "-m", "gateway"]

ROOT = Path(__file__).parents[2]


async def start_nats(folder: Path) -> tuple[trio.Process, str]:
    """A server on a free port; its process and URL."""
    process = await trio.lowlevel.open_process(
        [
            "nats-server",
            "-a",
            "127.0.0.1",
            "-p",
            "-1",
            "-js",
            "-sd",
            folder,
            "-ports_file_dir",
            folder,
        ],
        stderr=subprocess.DEVNULL,
    )
    ports = folder / f"nats-server_{process.pid}.ports"
    while True:
        with suppress(OSError, ValueError, IndexError, KeyError):
            return process, json.loads(ports.read_text())["nats"][0]
        if process.poll() is not None:
            raise SystemExit("nats-server did not start")
        await trio.sleep(0.01)


async def first_line(process: trio.Process) -> bytes:
    """What a process says on its stdout, up to the end of a line; less if it ends."""
    assert process.stdout is not None
    line = b""
    while not line.endswith(b"\n"):
        data = await process.stdout.receive_some(1)
        if not data:
            break
        line += data
    return line


async def run(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder, trio.open_signal_receiver(*FORWARDED) as signals:
        nats, url = await start_nats(Path(folder))
        part = ["--nats", url, "--role"]
        started: list[trio.Process] = []
        try:
            host = await trio.lowlevel.open_process(
                [*GATEWAY, *arguments, *part, "host", "--host", "127.0.0.1", "--port", "0"],
                stdout=subprocess.PIPE,
            )
            started.append(host)
            if not await first_line(host):
                return await host.wait()
            front = await trio.lowlevel.open_process(
                [*GATEWAY, *arguments, *part, "front"], stdout=subprocess.PIPE
            )
            started.append(front)
            line = await first_line(front)
            # A gateway that says it knows its agents; a front has yet to hear of them.
            await trio.sleep(HEARD_SECONDS)
            os.write(1, line)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(forward, signals, front, host)
                await front.wait()
                if host.returncode is None:
                    host.send_signal(signal.SIGTERM)
                await host.wait()
                nursery.cancel_scope.cancel()
            return front.returncode or host.returncode or 0
        finally:
            for process in (*started, nats):
                if process.returncode is None:
                    process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()


async def forward(signals: object, front: trio.Process, host: trio.Process) -> None:
    async for number in signals:  # type: ignore[attr-defined]
        for process in (front, host) if number == signal.SIGHUP else (front,):
            if process.returncode is None:
                process.send_signal(number)


def main() -> None:
    arguments = sys.argv[1:]
    if NO_FLEET & set(arguments):
        os.execv(GATEWAY[0], [*GATEWAY, *arguments])
    code = trio.run(run, arguments)
    sys.exit(128 - code if code < 0 else code)


if __name__ == "__main__":
    main()
