"""The program of the trial: inside the sandbox, it attempts what a worker must not be able to do.

An interpreter without this project runs it, so it imports only the standard library. It prints one
JSON object of attempts and their results, then waits for the end of stdin, so that the trial can
inspect the process from outside meanwhile. The program only reports; `trial` judges.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
from pathlib import Path

CONNECT_TIMEOUT = 2.0
"""Seconds. Without a network an attempt fails at once; this bounds one that a firewall drops."""


def attempt(secrets: list[str], port: int) -> dict[str, object]:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "readable": [path for path in secrets if _can_read(path)],
        "writable": [
            path for path in ("/", "/usr", "/etc", "/dev", "/proc/sys/kernel") if _can_write(path)
        ],
        "connected": _can_connect(port) or _can_connect_through_the_proxy(f"localhost:{port}"),
        "unix_socket": _can_open_unix_socket(),
        "rlimits": {
            name: resource.getrlimit(number)[1]
            for name, number in (
                ("nofile", resource.RLIMIT_NOFILE),
                ("fsize", resource.RLIMIT_FSIZE),
                ("nproc", resource.RLIMIT_NPROC),
            )
        },
        "processes": sum(entry.isdigit() for entry in os.listdir("/proc")),
        **{
            name: status[name].strip()
            for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")
        },
    }


def _can_read(path: str) -> bool:
    try:
        if os.path.isdir(path):
            return bool(os.listdir(path))
        with open(path, "rb") as file:
            file.read(1)
    except OSError:
        return False
    return True


def _can_write(path: str) -> bool:
    if path.startswith("/proc"):
        return any(os.access(entry.path, os.W_OK) for entry in os.scandir(path) if entry.is_file())
    name = os.path.join(path, f".sandbox-trial-{os.getpid()}")
    try:
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except OSError:
        return False
    os.unlink(name)
    return True


def _can_connect(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=CONNECT_TIMEOUT).close()
    except OSError:
        return False
    return True


def _can_connect_through_the_proxy(target: str) -> bool:
    proxy = os.environ.get("https_proxy", "").removeprefix("http://").partition(":")
    if not proxy[2]:
        return False
    try:
        with socket.create_connection((proxy[0], int(proxy[2])), CONNECT_TIMEOUT) as tunnel:
            tunnel.sendall(f"CONNECT {target} HTTP/1.1\r\n\r\n".encode())
            return b" 403 " not in tunnel.recv(64)
    except OSError:
        # A network that does not work at all leaks nothing, but is not the promised network.
        return True


def _can_open_unix_socket() -> bool:
    try:
        socket.socket(socket.AF_UNIX).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.stdout.write(json.dumps(attempt(sys.argv[2:], int(sys.argv[1]))) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
