"""The echo agent without the SDK: any program that reads and writes lines will do.

    gateway --agent echo="python worker/examples/plain.py"

One request at a time, because `ready` does not say otherwise. Needs the standard library only.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def send(message: dict[str, Any]) -> None:
    # One line, at once: what stays in a buffer, nobody reads.
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def answer(method: str, params: dict[str, Any]) -> dict[str, Any]:
    if method == "invoke":
        return {"result": {"output": params["input"]}}
    if method == "chat":
        for message in reversed(params["messages"]):
            if message["role"] == "user":
                content = message.get("content")
                return {"result": {"message": {"role": "assistant", "content": content}}}
        return {"error": {"code": -32602, "message": "there is no message of the user's to repeat"}}
    return {"error": {"code": -32601, "message": f"no method {method!r}"}}


send(
    {
        "method": "ready",
        "params": {
            "protocol": 1,
            "handlers": ["invoke", "chat"],
            "description": "Answers with what it was asked.",
        },
    }
)
for line in sys.stdin.buffer:
    request = json.loads(line)
    # Without an id it is a notification, `cancel`. Nothing here takes long enough to be cancelled.
    if "id" in request:
        send({"id": request["id"], **answer(request["method"], request["params"])})
