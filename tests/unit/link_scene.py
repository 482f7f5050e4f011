"""A link to a worker without the worker: the pipes are real, and the test writes what is said."""

from __future__ import annotations

import array
import fcntl
import os
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from gateway.call import Call
from gateway.config import Clocks
from gateway.exchange import Exchange
from gateway.workers.events import Answered, CancelIgnored, Paused, Spoke
from gateway.workers.link import Link
from gateway.workers.link_events import FellBehind, InputClosed, LinkEvent, Violated
from protocol import Ready

READY = b'{"method":"ready","params":{"protocol":1,"handlers":["invoke"],"concurrency":4}}\n'


class FakeProcess:
    """A worker's pipes, without the worker."""

    def __init__(self) -> None:
        self.pid = 7
        self.their_stdin, self.stdin = os.pipe()
        self.stdout, self.their_stdout = os.pipe()
        for descriptor in (self.stdin, self.stdout, self.their_stdin):
            os.set_blocking(descriptor, False)

    def unread_input(self) -> int:
        size = array.array("i", [0])
        fcntl.ioctl(self.stdin, termios.FIONREAD, size)
        return size[0]

    def says(self, *lines: bytes) -> None:
        """Write all of it at once."""
        os.write(self.their_stdout, b"".join(lines))

    def was_told(self) -> bytes:
        """What has come on its stdin since."""
        try:
            return os.read(self.their_stdin, 1_000_000)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        for descriptor in (self.stdin, self.stdout, self.their_stdin, self.their_stdout):
            os.close(descriptor)


class Owner:
    """Notes what it is told, and gives the worker `waiting` as soon as it may have more."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.waiting: list[Exchange] = []
        self.link: Link
        self.usable = True

    def give(self) -> None:
        while self.waiting and self.usable:
            self.link.send(self.waiting.pop())

    def receive(self, event: LinkEvent) -> None:
        match event:
            case Spoke(ready):
                self.told.append("ready" if ready is not None else "bare")
                self.on_first_line(ready)
            case Answered(exchange, served):
                self.told.append(f"answered {exchange.call.request_id} {served}")
                self.give()
            case CancelIgnored(exchange):
                self.told.append(f"ignored {exchange.call.request_id}")
            case Violated(error, fatal, placed):
                self.usable = self.usable and not fatal
                self.told.append(f"violation {error.violation.value} {fatal=} {placed=}")
                self.on_violation(placed=placed)
            case Paused(paused):
                self.told.append(f"{paused=}")
            case InputClosed():
                self.told.append("stdin closed")
            case FellBehind(exchange):
                self.told.append(f"too far ahead {exchange.call.request_id}")

    def on_first_line(self, ready: Ready | None) -> None:
        self.give()

    def on_violation(self, *, placed: bool) -> None:
        pass


class Scene:
    def __init__(self, process: FakeProcess, owner: Owner, link: Link) -> None:
        self.process, self.owner, self.link = process, owner, link

    def request(self, name: str, *, stream: bool = False, **options: Any) -> Exchange:
        call = Call(
            agent="a", method="invoke", payload=b"1", stream=stream, request_id=name, **options
        )
        return Exchange(call, Clocks(), trio.current_time())

    def send(self, name: str, *, stream: bool = False, **options: Any) -> Exchange:
        exchange = self.request(name, stream=stream, **options)
        self.link.send(exchange)
        return exchange

    async def says(self, *lines: bytes) -> None:
        self.process.says(*lines)
        await trio.testing.wait_all_tasks_blocked()


@asynccontextmanager
async def scene(owner: Owner | None = None) -> AsyncIterator[Scene]:
    process, owner = FakeProcess(), owner or Owner()
    async with trio.open_nursery() as nursery:
        link = owner.link = Link(process, nursery, owner.receive)
        nursery.start_soon(link.run)
        yield Scene(process, owner, link)
        nursery.cancel_scope.cancel()
    process.close()


def result(number: int) -> bytes:
    return b'{"id":%d,"result":{"output":%d}}\n' % (number, number)
