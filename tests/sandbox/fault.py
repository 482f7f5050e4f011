"""An agent that uses up what its input names, and says how far it came; without the SDK."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading

ENOUGH = 4096
"""Of anything: no limit in the tests is as high."""
MEBIBYTE = 1 << 20


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


def main() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        if "id" in request:
            output = globals()[request["params"]["input"]]()
            print(json.dumps({"id": request["id"], "result": {"output": output}}), flush=True)


if __name__ == "__main__":
    main()
