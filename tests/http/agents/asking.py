"""Asks three questions at once, and answers with what it was answered."""

from __future__ import annotations

import json
import sys

ASKS = [
    {
        "id": "sure",
        "reason": "confirm",
        "message": "Are you <b>sure</b>?",
        "schema": {"type": "boolean"},
    },
    {
        "id": "when",
        "reason": "input",
        "message": "When?",
        "schema": {
            "type": "object",
            "properties": {"day": {"type": "string"}, "hour": {"type": "integer"}},
            "required": ["day"],
        },
    },
    {"id": "why", "reason": "input", "message": "Why?"},
]


def write(**message: object) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


ready = {"protocol": 1, "handlers": ["chat"], "concurrency": 1, "asks": True}
write(method="ready", params=ready)
for line in sys.stdin:
    request = json.loads(line)
    if request["method"] != "chat":
        continue
    resume = request["params"].get("resume")
    if resume:
        message = {"role": "assistant", "content": json.dumps(resume)}
        write(id=request["id"], result={"message": message})
    else:
        write(id=request["id"], result={"finish": "input_required", "asks": ASKS})
