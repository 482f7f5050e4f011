"""What a service manager is told, as systemd's sd_notify(3) has it: one datagram each.

    READY=1 ─ listening, and the first workers have started ─> RELOADING=1, READY=1 ─> STOPPING=1
       └─ WATCHDOG=1, from the event loop: one that is stuck falls silent, and is restarted

The variables that name the socket are taken out of the environment: a worker that could reach it
could have the service restarted, or keep it from being so. A manager that does not take a datagram
is not waited for.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, MutableMapping

log = logging.getLogger("gateway")

WARM_SECONDS = 10.0
"""How long the first workers may take before READY=1 is sent without them: most frameworks are
imported by then, and an agent that does not say that it is ready is not waited for any longer."""

LOOK_SECONDS = 0.1
"""Between two looks at whether they have."""


class ServiceManager:
    """Who started the gateway, and listens. Without an address, nobody does."""

    def __init__(self, address: str = "", *, watchdog: float = 0) -> None:
        """`address` is a path, or an abstract name with `@` in front. `watchdog`: seconds of
        silence after which the gateway is restarted; 0 for never."""
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._watchdog = watchdog

    def __repr__(self) -> str:
        return f"<ServiceManager at {self._address!r}, watchdog {self._watchdog:g} s>"

    @classmethod
    def of(cls, environ: MutableMapping[str, str]) -> ServiceManager:
        """The manager that the environment names, which is forgotten there."""
        address = environ.pop("NOTIFY_SOCKET", "")
        microseconds = environ.pop("WATCHDOG_USEC", "")
        pid = environ.pop("WATCHDOG_PID", "")
        for_us = microseconds.isdecimal() and pid in {"", str(os.getpid())}
        return cls(address, watchdog=int(microseconds) / 1e6 if for_us else 0)

    def tell(self, *lines: str) -> None:
        """Send `NAME=value` lines. Never blocks, never raises."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
                sender.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            log.warning("the service manager was not told %s: %s", lines[0], error)

    async def tell_when_warm(self, warm: Callable[[], bool], status: str) -> None:
        """READY=1, once `warm` is true, or after `WARM_SECONDS`."""
        if not self._address:
            return
        self.tell("STATUS=starting the first workers")
        with trio.move_on_after(WARM_SECONDS):
            while not warm():  # noqa: ASYNC110 - looked at for seconds, once: no event is worth it
                await trio.sleep(LOOK_SECONDS)
        self.tell("READY=1", f"STATUS={status}")

    async def feed_watchdog(self) -> None:
        """WATCHDOG=1 twice in the time that it may be missing, until cancelled."""
        while self._watchdog and self._address:
            self.tell("WATCHDOG=1")
            await trio.sleep(self._watchdog / 2)

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """RELOADING=1 before the block, READY=1 after it."""
        # The time tells a manager which of several reloads is over (Type=notify-reload).
        self.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            yield
        finally:
            self.tell("READY=1")

    def stopping(self) -> None:
        """STOPPING=1."""
        self.tell("STOPPING=1", "STATUS=draining")
