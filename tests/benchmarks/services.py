"""What the measure of services runs in processes of its own: a service, and a door to it.

`python -m tests.benchmarks.services service`, or `… door PORT`, prints the port that it listens on.
The door is the program that stands beside a gateway, without its sandbox: what a sandbox costs is
its start.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import trio

from gateway.sandbox.network.audit import Auditor
from gateway.sandbox.network.door import Door
from tests.sandbox.doors import rules_of

CHUNK = json.dumps(
    {
        "id": "chatcmpl-0123456789",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "delta": {"content": "word "}, "finish_reason": None}],
    }
).encode()
ANSWER = json.dumps({"text": "x" * 800, "usage": {"prompt_tokens": 9}}).encode()


@contextmanager
def service_and_door() -> Iterator[tuple[int, int]]:
    """Both ports."""
    with ExitStack() as stack:
        service = stack.enter_context(_started("service"))
        yield service, stack.enter_context(_started("door", str(service)))


@contextmanager
def _started(*role: str) -> Iterator[int]:
    command = [sys.executable, "-m", "tests.benchmarks.services", *role]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


def serve() -> None:
    """Answer `POST …` with a JSON text, and `GET …/N` with a stream of N events."""
    server = socket.create_server(("127.0.0.1", 0), backlog=64)
    print(server.getsockname()[1], flush=True)
    while True:
        connection, _ = server.accept()
        threading.Thread(target=_serve_one, args=(connection,), daemon=True).start()


def _serve_one(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    event = b"data: " + CHUNK + b"\n\n"
    chunk = b"%x\r\n%b\r\n" % (len(event), event)
    with connection, connection.makefile("rb") as reader:
        while line := reader.readline():
            length = 0
            while (field := reader.readline()) != b"\r\n":
                if field.lower().startswith(b"content-length:"):
                    length = int(field.partition(b":")[2])
            reader.read(length)
            head = b"HTTP/1.1 200 OK\r\nContent-Type: "
            if line.startswith(b"POST"):
                connection.sendall(
                    head + b"application/json\r\nContent-Length: %d\r\n\r\n" % len(ANSWER) + ANSWER
                )
                continue
            connection.sendall(head + b"text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(int(line.split()[1].rpartition(b"/")[2])):
                connection.sendall(chunk)
            connection.sendall(b"0\r\n\r\n")


async def open_door(port: int) -> None:
    """Serve as a door, to the service on this port."""
    door = Door(Auditor(bool))
    door.change({"services": {"llm": rules_of(port)}})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(door.run)
        [listener] = await nursery.start(
            partial(trio.serve_tcp, partial(door.serve_client, worker=1), 0, host="127.0.0.1")
        )
        print(listener.socket.getsockname()[1], flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "service":
        serve()
    trio.run(open_door, int(sys.argv[2]))
