"""An agent that uses up what its input names, of its own limits or of those of its user, which it
then holds, and says how far it came; without the SDK, and without a handshake."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import select
import signal
import socket
import sys
import threading
import time
from collections import deque

CHILDREN = 40
"""For epoll watches: each of them can have a quarter of a million."""
IN_FLIGHT = 1200
INSTANCES = 300
"""More than a user has of inotify (fs.inotify.max_user_instances is 128 by default)."""
NOFILE = 1024
ENOUGH = 4096
"""Of anything: no limit in the tests is as high."""
MEBIBYTE = 1 << 20

# Its own limits


def forks() -> int:
    children: list[int] = []
    try:
        while len(children) < ENOUGH:
            pid = os.fork()
            if pid == 0:
                signal.pause()
            children.append(pid)
    except BlockingIOError:
        pass
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return len(children)


def threads() -> int:
    event = threading.Event()
    started: list[threading.Thread] = []
    try:
        while len(started) < ENOUGH:
            thread = threading.Thread(target=event.wait, daemon=True)
            thread.start()
            started.append(thread)
    except RuntimeError:
        pass
    event.set()
    for thread in started:
        thread.join()
    return len(started)


def descriptors() -> int:
    held: list[int] = []
    try:
        while len(held) < ENOUGH:
            held.append(os.dup(0))
    except OSError:
        pass
    for descriptor in held:
        os.close(descriptor)
    return len(held)


def disk() -> int:
    written = 0
    try:
        with open("/tmp/file", "wb", buffering=0) as file:
            while written < ENOUGH * MEBIBYTE:
                written += file.write(bytes(MEBIBYTE))
    except OSError:
        pass
    os.unlink("/tmp/file")
    return written


def memory() -> int:
    hoard = [bytearray(b"x") * MEBIBYTE for _ in range(ENOUGH)]
    return len(hoard)


def spin() -> int:
    while True:
        pass


# Limits of its user


def in_children(number: int, fill: object) -> list[int]:
    """How far each of so many children came, who then hold what they have until they are killed."""
    pipes = []
    for _ in range(number):
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.closerange(3, writer)
            assert callable(fill)
            os.write(writer, b"%d\n" % fill())
            while True:
                time.sleep(60)
        os.close(writer)
        pipes.append(reader)
    return [int(os.read(each, 100)) for each in pipes]


def watch() -> int:
    """Put half of the descriptors into each of the other half."""
    targets = [os.dup(0) for _ in range(NOFILE // 2)]
    added = 0
    try:
        while True:
            instance = select.epoll()
            _kept.append(instance)
            deque(map(instance.register, targets), maxlen=0)
            added += len(targets)
    except OSError as error:
        return -added if error.errno == errno.ENOSPC else added


_kept: list[object] = []


def watches() -> dict[str, object]:
    """Whether there was an end to them that was not that of the descriptors."""
    found = in_children(CHILDREN, watch)
    return {"full": any(each <= 0 for each in found), "added": sum(map(abs, found))}


def send() -> int:
    ours, theirs = socket.socketpair()
    _kept.extend((ours, theirs))
    sent = 0
    try:
        while sent < IN_FLIGHT:
            socket.send_fds(ours, [b"x"], [0] * 100)
            sent += 100
    except OSError as error:
        if error.errno != errno.ETOOMANYREFS:
            raise
    return sent


def in_flight() -> dict[str, object]:
    return {"sent": sum(in_children(2, send))}


def may_send() -> dict[str, object]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        try:
            socket.send_fds(ours, [b"x"], [0])
        except OSError as error:
            return {"error": errno.errorcode[error.errno or 0]}
    return {"error": None}


def inotify() -> dict[str, object]:
    libc = ctypes.CDLL(None, use_errno=True)
    count = 0
    while count < INSTANCES and libc.inotify_init1(0) >= 0:
        count += 1
    return {"instances": count, "error": errno.errorcode.get(ctypes.get_errno())}


def nothing() -> dict[str, object]:
    return {}


def main() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        if "id" in request:
            output = globals()[request["params"]["input"]]()
            print(json.dumps({"id": request["id"], "result": {"output": output}}), flush=True)


if __name__ == "__main__":
    main()
