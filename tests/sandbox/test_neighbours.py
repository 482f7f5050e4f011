"""Two workers, of one agent or of two, do not meet: not in files, memory, processes or sockets."""

from __future__ import annotations

import json
import os
import uuid

import pytest

from tests.sandbox.running import running
from tests.sandbox.users import every_user

USERS = pytest.mark.parametrize("user", every_user())

# Leaves something of itself in every place where workers could meet, and says where.
LEAVE = """
import ctypes, json, os, socket
name = NAME
files = [f"/tmp/{name}", f"/dev/shm/{name}"]
for path in files:
    with open(path, "w") as file:
        file.write(name)
    os.chmod(path, 0o666)
libc = ctypes.CDLL(None)
key = os.getpid() << 8 | 1
libc.shmget(key, 4096, 0o1666)
server = socket.create_server(("127.0.0.1", 0))
print(json.dumps({"files": files, "key": key, "port": server.getsockname()[1], "pid": os.getpid()}))
sys.stdin.read()
"""

# Looks for all of it, and names what it found.
LOOK = """
import ctypes, json, os, socket
left = json.loads(bytes.fromhex("LEFT"))
name = os.path.basename(left["files"][0])
found = [path for path in left["files"] if os.path.exists(path)]
libc = ctypes.CDLL(None)
if libc.shmget(left["key"], 0, 0) >= 0:
    found.append("memory")
    if LEVEL == "off":
        libc.shmctl(libc.shmget(left["key"], 0, 0), 0, None)
try:
    socket.create_connection(("127.0.0.1", left["port"]), 5).close()
    found.append("port")
except OSError:
    pass
for pid in filter(str.isdigit, os.listdir("/proc")):
    if int(pid) != os.getpid():
        try:
            with open(f"/proc/{pid}/cmdline") as file:
                if name in file.read():
                    os.kill(int(pid), 0)
                    found.append("process")
                    break
        except OSError:
            pass
print(json.dumps(found))
"""


def found(user: str, level: str) -> tuple[list[str], list[str]]:
    """What one worker found of another, and where that had left something."""
    name = f"neighbour-{uuid.uuid4().hex}"
    with running(user, LEAVE.replace("NAME", repr(name)), level=level) as one:
        left = json.loads(one.line())
        # In a form in which it does not find itself by its own command line.
        code = LOOK.replace("LEFT", json.dumps(left).encode().hex())
        try:
            with running(user, code.replace("LEVEL", repr(level)), level=level) as other:
                return json.loads(other.line()), [*left["files"], "memory", "port", "process"]
        finally:
            if level == "off":
                for path in left["files"]:
                    os.unlink(path)


@USERS
def test_a_worker_finds_nothing_of_another(user: str) -> None:
    seen, _ = found(user, "strict")
    assert seen == []


@USERS
def test_without_the_sandbox_it_finds_everything(user: str) -> None:
    """The control: it looks where there is something."""
    seen, everything = found(user, "off")
    assert seen == everything
