"""What the network's processes have in common: the ports of workers, on which they accept.

A worker has no network of its own but a loopback device. There `listener` opens a port before the
agent starts, and sends that socket out to a process beside the gateway, which accepts on it from
outside. So a worker needs neither unix sockets nor a helper beside it.

This module owns that process: its start, its rights, the gateway's messages, and the connections of
each worker. What is said on them is a `Handler`'s. `proxy` is the other end.

# Theory of operation

The gateway's messages are packets on the control socket, each with one descriptor: `{"rules":
true}` with a file in memory that holds the rules as JSON, which replace the last ones as a whole,
and `{"worker": N}` with the socket on which that worker's port arrives. Rules are the first
message, so that no worker is served without them. They hold keys: the file has no name, and is read
and closed at once. The end of the control socket is the end of the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import logging
import os
import resource
import socket as stdlib_socket
import sys
from typing import TYPE_CHECKING, Any, Protocol

import trio

from gateway.readiness import readable
from gateway.sandbox.network.audit import Auditor

if TYPE_CHECKING:
    from collections.abc import Callable

ACCEPT_PAUSE = 0.1
"""Seconds before the next attempt to accept after a failure: a descriptor may be closed by then."""
MAX_DESCRIPTORS = 65536
"""Two for each connection of every worker; of more workers than that, some wait."""
MAX_THREADS = 64
"""Threads and processes: names are resolved in trio's threads, 40 at a time."""
LAST_SECONDS = 1.0
"""For the gateway to take one of the last records: it reads while it waits for the end."""
MAX_MESSAGE = 4096
"""Bytes of one of the gateway's messages, which have about twenty."""

_NO_LISTENER = frozenset(
    {errno.EBADF, errno.EFAULT, errno.EINVAL, errno.ENOTSOCK, errno.EOPNOTSUPP}
)
"""Why nothing will ever be accepted on a socket (accept(2)). Any other failure is a single
connection's, which the kernel tells here, or a lack of descriptors or memory that may end."""
_PR_SET_DUMPABLE = 4

_log = logging.getLogger(__name__)


class Handler(Protocol):
    """What a process does with connections."""

    def change(self, rules: dict[str, Any]) -> None:
        """Take over the gateway's rules, which it has sent for the first time or anew."""
        ...

    async def run(self) -> None:
        """What the handler does beside its connections; cancelled at the end of the process."""
        ...

    async def serve_client(self, client: trio.SocketStream, worker: int) -> None:
        """Serve one connection of the worker with that number, and close it.

        May raise trio.BrokenResourceError when either end is gone.
        """
        ...


async def serve(
    control: trio.socket.SocketType, handler: Handler, auditor: Auditor, *, max_clients: int
) -> None:
    """Serve every worker that the gateway announces, until the gateway is gone.

    `max_clients`: connections of one worker at a time. Further ones wait to be accepted.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(handler.run)
        nursery.start_soon(auditor.run)
        while True:
            said, descriptors = await receive_message(control)
            if not said:
                break
            with contextlib.ExitStack() as received:
                for descriptor in descriptors:
                    received.callback(os.close, descriptor)
                message = json.loads(said)
                if "rules" in message:
                    handler.change(_read_rules(*descriptors))
                elif not descriptors:
                    # The kernel discards what this process has no room for (unix(7)); the gateway
                    # sees that the worker's socket is gone, and replaces the worker.
                    _log.error("too many open files: worker %d has no network", message["worker"])
                else:
                    received.pop_all()
                    worker = trio.socket.from_stdlib_socket(
                        stdlib_socket.socket(fileno=descriptors[0])
                    )
                    nursery.start_soon(
                        _serve_worker, worker, handler, message["worker"], max_clients
                    )
        nursery.cancel_scope.cancel()


def _read_rules(descriptor: int) -> dict[str, Any]:
    with open(descriptor, "rb", closefd=False) as file:
        file.seek(0)
        rules: dict[str, Any] = json.load(file)
        return rules


async def _serve_worker(
    worker: trio.socket.SocketType, handler: Handler, number: int, max_clients: int
) -> None:
    """Serve one worker's port, from its arrival until the sandbox is gone.

    `worker` is the socket on which the port arrives; the gateway holds its other end open until the
    worker has ended.
    """
    with worker:
        _, descriptors = await receive_message(worker)
        if not descriptors:
            return  # the sandbox ended before it opened a port
        listener = trio.socket.from_stdlib_socket(stdlib_socket.socket(fileno=descriptors[0]))
        with listener:
            async with trio.open_nursery() as nursery:

                async def until_told() -> None:
                    # Whatever arrives next, data or the end, ends the service.
                    _, more = await receive_message(worker)
                    for descriptor in more:
                        os.close(descriptor)
                    nursery.cancel_scope.cancel()

                nursery.start_soon(until_told)
                await accept(listener, handler, number, max_clients)
                # The gateway sees that the worker's socket is gone, and replaces the worker.
                nursery.cancel_scope.cancel()


async def accept(
    listener: trio.socket.SocketType, handler: Handler, number: int, max_clients: int
) -> None:
    """Accept the connections of the worker with that number, until cancelled.

    Returns, and cuts those that were accepted, if nothing can be accepted any more.
    """
    free = trio.Semaphore(max_clients)

    async def serve_one(client: trio.socket.SocketType) -> None:
        try:
            await handler.serve_client(trio.SocketStream(client), number)
        except trio.BrokenResourceError:
            pass  # the agent is gone
        except Exception:  # noqa: BLE001 - the boundary of a connection: the others go on
            _log.exception("a defect in a connection")
        finally:
            free.release()

    async with trio.open_nursery() as nursery:
        while True:
            await free.acquire()
            client = await _accept_one(listener)
            if client is None:
                _log.error("worker %d has no network any more: its port is broken", number)
                nursery.cancel_scope.cancel()
                return
            nursery.start_soon(serve_one, client)


async def _accept_one(listener: trio.socket.SocketType) -> trio.socket.SocketType | None:
    """The next connection, or None if there can be none."""
    while True:
        try:
            client, _ = await listener.accept()
        except OSError as error:
            if error.errno in _NO_LISTENER:
                return None
            await trio.sleep(ACCEPT_PAUSE)
        else:
            return client


async def receive_message(source: trio.socket.SocketType) -> tuple[bytes, list[int]]:
    """A message and the descriptor that came with it; nothing at the end of the stream."""
    while True:
        await readable(source.fileno())
        borrowed = stdlib_socket.socket(fileno=source.fileno())
        try:
            said, descriptors, _, _ = stdlib_socket.recv_fds(borrowed, MAX_MESSAGE, 1)
        except BlockingIOError:
            continue
        except ConnectionResetError:
            return b"", []
        finally:
            borrowed.detach()
        return said, list(descriptors)


def main(make: Callable[[Auditor], Handler], *, max_clients: int) -> None:
    """The program that `proxy` starts, with the arguments AGENT CONTROL_FD RECORDS_FD UID."""
    agent, control_fd, records_fd, uid = sys.argv[1:]
    logging.basicConfig(format=f"network of agent {agent!r}: %(message)s")
    _give_up_rights(int(uid))
    records = stdlib_socket.socket(fileno=int(records_fd))
    auditor = Auditor(lambda packet: _send(records, packet))

    async def run() -> None:
        control = trio.socket.from_stdlib_socket(stdlib_socket.socket(fileno=int(control_fd)))
        with control:
            await serve(control, make(auditor), auditor, max_clients=max_clients)

    # The terminal interrupts this process, too, which ends with the gateway.
    try:
        with contextlib.suppress(KeyboardInterrupt):
            trio.run(run)
    finally:
        records.settimeout(LAST_SECONDS)
        auditor.flush()


def _send(records: stdlib_socket.socket, packet: bytes) -> bool:
    try:
        records.send(packet, stdlib_socket.MSG_DONTWAIT)
    except OSError:
        return False  # the gateway does not read now, or is gone
    return True


def _give_up_rights(uid: int) -> None:
    """Take on the user id `uid`, with root, and limits as low as connections allow."""
    # Every connection takes two descriptors, which soon exceeds the usual soft limit.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = hard if hard != resource.RLIM_INFINITY else MAX_DESCRIPTORS
    for limit, value in (
        (resource.RLIMIT_NOFILE, min(most, MAX_DESCRIPTORS)),
        (resource.RLIMIT_NPROC, MAX_THREADS),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    # No core, and no tracing or reading of its memory by others of the same user. After the change
    # of the user id, which would reset it.
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE)")
