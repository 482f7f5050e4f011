"""Meets the limit that its input names; the error leaves its handler, or ends its process."""

import os
import resource
import socket
import threading
from typing import Any

from worker import Agent

agent = Agent("limits")


def tmp() -> None:
    number = 0
    try:
        while True:
            number += 1
            with open(f"/tmp/{number}", "wb") as file:
                file.write(bytes(1 << 19))
    finally:
        for each in range(1, number + 1):
            os.unlink(f"/tmp/{each}")


def nofile() -> None:
    while True:
        os.dup(0)


def pids() -> None:
    event = threading.Event()
    try:
        while True:
            threading.Thread(target=event.wait, daemon=True).start()
    finally:
        event.set()


def fsize() -> None:
    with open("/tmp/large", "wb") as file:
        file.truncate(resource.getrlimit(resource.RLIMIT_FSIZE)[0] + 1)


def network() -> None:
    socket.create_connection(("example.invalid", 443))


def read_only() -> None:
    with open("/usr/new", "w"):
        pass


@agent.invoke
async def meet(wish: dict[str, Any]) -> None:
    try:
        globals()[wish["limit"]]()
    except BaseException as error:
        if not wish["dies"]:
            raise
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os._exit(1)


agent.run()
