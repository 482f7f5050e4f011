"""The agent that A2A's conformance kit expects: what it does is said by the id of the message."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

FILE = {"type": "file", "name": "output.txt", "mime": "text/plain"}
ASKS = [{"id": "a1", "reason": "input_required", "message": "What else?"}]


def write(**message: Any) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def event(number: int, **members: Any) -> None:
    write(method="event", params={"id": number, "event": members})


def say(number: int, *texts: str) -> None:
    for text in texts:
        write(method="chunk", params={"id": number, "chunk": text})


TEXTS = {
    "tck-artifact-text": ["Generated text content"],
    "tck-stream-001": ["Stream hello from TCK"],
    "tck-stream-003": ["Stream task lifecycle"],
    "tck-stream-ordering-001": ["Ordered output"],
    "tck-stream-artifact-text": ["Streamed text content"],
    "tck-stream-artifact-chunked": ["chunk-1 ", "chunk-2"],
    "tck-stream-002": [],
}


def answer(number: int, params: dict[str, Any]) -> None:
    asked = params["context"].get("parameters", {}).get("message_id", "")
    end: dict[str, Any] = {"finish": "stop"}
    if asked.startswith("tck-artifact-file-url"):
        event(number, **FILE, path="https://example.com/output.txt")
    elif asked.startswith(("tck-artifact-file", "tck-stream-artifact-file")):
        event(number, **FILE, data="aGVsbG8=")
    elif asked.startswith("tck-input-required"):
        end = {"finish": "input_required", "asks": ASKS}
    elif asked.startswith("tck-reject-task"):
        say(number, "rejected")
        end = {"finish": "refused"}
    elif asked.startswith("tck-artifact-data"):
        data = {"key": "value", "count": 42}
        end = {"message": {"role": "assistant", "content": data}, "finish": "stop"}
    elif asked.startswith("test-resubscribe-message-id"):
        time.sleep(4)
    else:
        found = [texts for prefix, texts in TEXTS.items() if asked.startswith(prefix)]
        say(number, *(found[0] if found else ["Hello from TCK"]))
    write(id=number, result=end)


def main() -> None:
    ready = {"protocol": 1, "handlers": ["chat"], "asks": True}
    write(method="ready", params=ready)
    for line in sys.stdin:
        message = json.loads(line)
        if message["method"] != "cancel":
            answer(message["id"], message["params"])


main()
