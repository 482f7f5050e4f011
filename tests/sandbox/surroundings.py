"""What a worker of the escape suite finds around it: a gateway with secrets, sockets and
neighbours.

Run as a program, `python -m tests.sandbox.surroundings FOLDER ARGUMENT`, as the user that the
gateway is to be; it starts the same worker without and with the sandbox, and prints what came of
each attempt.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from gateway.sandbox import SandboxSettings, make_launcher
from tests.sandbox import escapes

MARKER = "surroundings-secret"
NOFILE = 256
"""Lower than any gateway's own limit."""
WORKER_TIMEOUT = 60.0
"""Seconds for all attempts together, which take about two."""


def main(folder: str, argument: str) -> None:
    with contextlib.ExitStack() as stack:
        world = build(stack, Path(folder), argument)
        print(json.dumps({level: run(level, Path(folder), world) for level in ("off", "strict")}))


def build(stack: contextlib.ExitStack, folder: Path, argument: str) -> dict[str, Any]:
    for name in ("secret", "home", "agent", "common", "shared"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "secret").chmod(0o700)
    (folder / "common").chmod(0o777)
    for path in ("secret/key", "secret/gateway.toml", "home/letter"):
        (folder / path).write_text(MARKER)
        (folder / path).chmod(0o600)
    shutil.copy(escapes.__file__, folder / "agent" / "escapes.py")

    unique = f"{argument}-{os.getpid()}"
    for path in (f"/tmp/{unique}", f"/dev/shm/{unique}"):
        Path(path).write_text(MARKER)
        stack.callback(os.unlink, path)
    libc = ctypes.CDLL(None, use_errno=True)
    shm = libc.shmget(os.getpid(), 4096, 0o1600)  # IPC_CREAT
    stack.callback(libc.shmctl, shm, 0, None)  # IPC_RMID

    port = _answer(stack, socket.create_server(("0.0.0.0", 0)))
    abstract, path_socket = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    abstract.bind(f"\0{unique}")
    path_socket.bind(f"{folder}/shared/socket")
    os.chmod(f"{folder}/shared/socket", 0o777)
    datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    datagrams.bind(f"{folder}/shared/datagrams")
    os.chmod(f"{folder}/shared/datagrams", 0o777)
    stack.callback(datagrams.close)
    for server in (abstract, path_socket):
        server.listen()
        _answer(stack, server)
    world = {
        "key": f"{folder}/secret/key",
        "config": f"{folder}/secret/gateway.toml",
        "letter": f"{folder}/home/letter",
        "common": f"{folder}/common",
        "shared": f"{folder}/shared",
        "marker": MARKER,
        "argument": argument,
        "tmp_file": f"/tmp/{unique}",
        "shm_file": f"/dev/shm/{unique}",
        "shm_key": os.getpid(),
        "victim": _victim(stack, f"victim-{unique}"),
        "victim_marker": f"victim-{unique}",
        "port": port,
        "udp_port": _answer_datagrams(stack),
        "abstract": unique,
        "path_socket": f"{folder}/shared/socket",
        "datagram_socket": f"{folder}/shared/datagrams",
        "nofile": NOFILE,
    }
    if (folder / "shared" / "id").exists():
        world["setuid"] = f"{folder}/shared/id"
    (folder / "agent" / "world.json").write_text(json.dumps(world))
    return world


def run(level: Any, folder: Path, world: dict[str, Any]) -> dict[str, Any]:
    """The outcome of every attempt at this level of isolation."""
    launcher = make_launcher(
        "escape",
        [sys.executable, str(folder / "agent" / "escapes.py"), *escapes.ATTEMPTS],
        SandboxSettings(
            mounts_ro=(world["shared"],),
            # What may write as the gateway's user has no user id of its own.
            mounts_rw=(world["common"],) if os.environ["WRITES"] == "True" else (),
            nofile=NOFILE,
        ),
        level=level,
        environ=os.environ,
        cwd=str(folder),
        secrets=[f"{folder}/secret"],
    )
    print(launcher.describe().get("user"), file=sys.stderr)
    # The control of what finds descriptors: nothing but a leak of the gateway's leaves one.
    leak = (os.open(world["config"], os.O_RDONLY),) if level == "off" else ()
    with launcher.launch() as launch:
        process = subprocess.Popen(
            launch.argv,
            env=dict(launch.env),
            cwd=launch.cwd,
            pass_fds=(*launch.pass_fds, *leak),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    try:
        said, complaints = process.communicate(timeout=WORKER_TIMEOUT)
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        raise RuntimeError(f"{level}: exit status {process.returncode}: {complaints}")
    lines = map(json.loads, said.splitlines())
    return {line["attempt"]: {**line, "stderr": complaints} for line in lines}


def _answer(stack: contextlib.ExitStack, server: socket.socket) -> int:
    """Greet everybody who connects, for as long as the surroundings stand."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                with connection:
                    connection.sendall(b"hello")

    threading.Thread(target=serve, daemon=True).start()
    stack.callback(server.close)
    name = server.getsockname()
    return int(name[1]) if isinstance(name, tuple) else 0


def _answer_datagrams(stack: contextlib.ExitStack) -> int:
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                _, sender = server.recvfrom(64)
                server.sendto(b"answer", sender)

    threading.Thread(target=serve, daemon=True).start()
    stack.callback(server.close)
    return int(server.getsockname()[1])


def _victim(stack: contextlib.ExitStack, marker: str) -> int:
    """A process of the gateway's user that lets everybody trace it, as far as it can say so."""
    code = (
        "import ctypes, sys\n"
        "ctypes.CDLL(None).prctl(0x59616d61, ctypes.c_ulong(-1), 0, 0, 0)  # PR_SET_PTRACER\n"
        "print('there', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, marker], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    stack.callback(process.wait)
    stack.callback(process.kill)
    assert process.stdout is not None
    assert process.stdout.readline() == b"there\n"
    return process.pid


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
