"""What the fault agents share: the wire in its simplest form, on the standard library alone.

An agent made with `serve` echoes, and adds a name that no other worker has, so that a test sees
which worker has answered. Its fault comes when the input, or the last message, is a string that
begins with `FAULT`; with `FAULT_AFTER_A_WORD`, after one chunk.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Callable, Iterator
from typing import Any

FAULT = "fault"
FAULT_AFTER_A_WORD = "fault after a word"

WORKER = secrets.token_hex(4)
"""Names this process. Its pid would not do: in a sandbox every worker has the same one."""

Request = dict[str, Any]


def write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


def line(**message: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n"


def ready(concurrency: int = 1) -> bytes:
    handlers = ["invoke", "chat"]
    params = {"protocol": 1, "handlers": handlers, "concurrency": concurrency}
    return line(method="ready", params=params)


def chunk(request: Request, text: str) -> bytes:
    return line(method="chunk", params={"id": request["id"], "chunk": text})


def event(request: Request, **members: Any) -> bytes:
    return line(method="event", params={"id": request["id"], "event": members})


def asked(request: Request) -> Any:
    """The input, or the content of the last message."""
    params = request["params"]
    if request["method"] == "invoke":
        return params["input"]
    return params["messages"][-1].get("content")


def answer(request: Request) -> bytes:
    """The echo: `{"worker", "input"}` to an invoke, the same as JSON text to a chat."""
    output = {"worker": WORKER, "input": asked(request)}
    if request["method"] == "invoke":
        return line(id=request["id"], result={"output": output})
    message = {"role": "assistant", "content": json.dumps(output)}
    return line(id=request["id"], result={"message": message})


def log(text: str) -> None:
    os.write(2, text.encode() + b"\n")


def messages(*, buffering: int = -1) -> Iterator[Request]:
    """Every message from the gateway, including cancels, until the end of stdin."""
    with open(0, "rb", buffering=buffering, closefd=False) as stdin:
        for text in stdin:
            yield json.loads(text)


def serve(
    fault: Callable[[Request], None] | None = None, *, concurrency: int = 1, buffering: int = -1
) -> None:
    """Echo one request after the other, and call `fault` for those that ask for it."""
    write(ready(concurrency))
    for request in messages(buffering=buffering):
        if request["method"] == "cancel":
            continue
        wish = str(asked(request))
        if wish.startswith(FAULT_AFTER_A_WORD):
            write(chunk(request, "word"))
        if fault is not None and wish.startswith(FAULT):
            fault(request)
        else:
            write(answer(request))
    sys.exit(0)
