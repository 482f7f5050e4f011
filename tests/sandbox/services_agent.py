"""An agent that uses a service as agents do, and one that looks for its key."""

from __future__ import annotations

import json
import os
import socket
import stat
import sys
from collections.abc import Iterator
from typing import Any


def say(**message: Any) -> None:
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def chat(**more: Any) -> Any:
    from openai import OpenAI

    client = OpenAI(max_retries=0)
    message = {"role": "user", "content": "hello"}
    return client.chat.completions.create(model="m", messages=[message], **more)


def raw(text: str) -> str:
    """What comes back when exactly this is sent to the door."""
    address = os.environ["OPENAI_BASE_URL"].removeprefix("http://").partition("/")[0]
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), 30) as connection:
        connection.sendall(text.encode("latin-1"))
        got = b""
        while more := connection.recv(65536):
            got += more
    return got.decode("latin-1")


def places(*skipped: str) -> Iterator[tuple[str, bytes]]:
    """Everything in which a key could be seen, with its name, but for some folders."""
    yield "environment", repr(os.environ).encode()
    for folder, folders, names in os.walk("/"):
        # The interpreter and its packages are the same for everybody.
        if folder in {"/usr", "/sys", "/proc/sys", sys.prefix, sys.base_prefix, *skipped}:
            folders.clear()
            continue
        for name in names:
            path = os.path.join(folder, name)
            if name in {"kmsg", "kcore", "mem", "pagemap"}:
                continue
            try:
                # A pipe that nobody writes to would block, and what is read from one is gone.
                with open(path, "rb", opener=_open) as file:
                    if not stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
                        yield path, (file.read(1 << 20) or b"")
            except (OSError, ValueError):
                pass
    for number in range(3, 256):
        try:
            content = os.pread(number, 1 << 20, 0)
        except OSError:
            continue
        yield f"descriptor {number}", content


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def act(request: dict[str, Any]) -> Any:
    what = request["params"]["input"]
    if what == "chat":
        return chat().choices[0].message.content
    if what == "leave":
        with chat(stream=True) as stream:
            return next(iter(stream)).choices[0].delta.content
    if isinstance(what, dict) and "scan" in what:
        key = what["scan"][::-1].encode()
        seen = [(name, key in content) for name, content in places()]
        return {
            "found": [name for name, found in seen if found],
            "looked_at": len(seen),
            "environment": dict(os.environ),
        }
    return raw(what["raw"])


def main() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        if "id" not in request:
            continue
        try:
            if request["params"].get("stream"):
                with chat(stream=True) as stream:
                    for chunk in stream:
                        text = chunk.choices[0].delta.content
                        say(method="chunk", params={"id": request["id"], "chunk": text})
                say(id=request["id"], result={})
            else:
                say(id=request["id"], result={"output": act(request)})
        except Exception as error:
            say(id=request["id"], error={"code": -32000, "message": repr(error)})


if __name__ == "__main__":
    main()
