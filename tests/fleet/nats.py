"""A real nats-server for tests: a process of its own on the loopback device.

    with NatsServer() as nats:
        ... nats.url ...
        nats.kill()
        nats.start()  # on the same port, with the same store

Its port is free when it starts first, and is its own from then on.
"""

from __future__ import annotations

import os
import queue
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import IO

import pytest

from tests.programs import find_program

PATIENCE = 20.0
"""Seconds for a line of the server's log, before a test fails."""

NATS_SERVER = find_program("nats-server")

needs_nats = pytest.mark.skipif(
    NATS_SERVER is None and "CI" not in os.environ, reason="nats-server is not installed"
)


class NatsServer:
    """One server. `configuration` is added to what it needs anyway; with `jetstream`, it has a
    store, which outlives its restarts."""

    def __init__(
        self,
        configuration: str = "",
        *,
        jetstream: bool = False,
        address: str = "127.0.0.1",
        prefix: tuple[str, ...] = (),
    ) -> None:
        """`prefix` is put before its command, as `namespaces.Machine` has it."""
        self.address = address
        self.port = -1
        self.folder = Path(tempfile.mkdtemp(prefix="nats-"))
        self._configuration = configuration
        self._jetstream = jetstream
        self._prefix = prefix
        self._process: subprocess.Popen[bytes] | None = None
        self._log: queue.Queue[str | None] = queue.Queue()

    @property
    def url(self) -> str:
        return f"nats://{self.address}:{self.port}"

    @property
    def tls_url(self) -> str:
        return f"tls://{self.address}:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Returns when it takes connections."""
        assert NATS_SERVER is not None, "nats-server is not installed"
        configuration = self.folder / "nats.conf"
        store = f'jetstream {{ store_dir: "{self.folder / "store"}" }}\n' if self._jetstream else ""
        configuration.write_text(
            f'listen: "{self.address}:{self.port}"\n{store}{self._configuration}\n'
        )
        self._log = queue.Queue()
        self._process = subprocess.Popen(
            [*self._prefix, NATS_SERVER, "-c", str(configuration)],
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stderr is not None
        threading.Thread(target=_read, args=(self._process.stderr, self._log), daemon=True).start()
        found = self.wait_for(r"Listening for client connections on .*:(\d+)$")
        self.port = int(found[1])
        self.wait_for("Server is ready")

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The next line of its log in which the pattern is found."""
        seen: list[str] = []
        while (line := self._log.get(timeout=PATIENCE)) is not None:
            seen.append(line)
            if found := re.search(pattern, line):
                return found
        self._log.put(None)  # for `kill`
        raise AssertionError(f"no {pattern!r} in {seen}")

    def configure(self, configuration: str) -> None:
        """Have it take another configuration, without a restart."""
        path = self.folder / "nats.conf"
        path.write_text(f'listen: "{self.address}:{self.port}"\n{configuration}\n')
        self._signal(signal.SIGHUP)
        self.wait_for("Reloaded server configuration")

    def kill(self) -> None:
        if self._process is None:
            return
        self._signal(signal.SIGKILL)
        self._process.wait()
        while self._log.get(timeout=PATIENCE) is not None:
            pass  # its log has been read to the end then
        assert self._process.stderr is not None
        self._process.stderr.close()
        self._process = None

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def __enter__(self) -> NatsServer:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder)


def _read(stream: IO[bytes], lines: queue.Queue[str | None]) -> None:
    for line in stream:
        lines.put(line.decode(errors="replace").rstrip())
    lines.put(None)
