"""Calls a tool of the caller's, and answers with what the caller said it returned."""

from __future__ import annotations

import json
import sys


def write(**message: object) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def call(request: int, **event: object) -> None:
    write(method="event", params={"id": request, "event": {"type": "tool_call", **event}})


ready = {"protocol": 1, "handlers": ["chat"], "concurrency": 1, "tools": True}
write(method="ready", params=ready)
for line in sys.stdin:
    request = json.loads(line)
    if request["method"] != "chat":
        continue
    number, params = request["id"], request["params"]
    if params["messages"][-1]["role"] == "tool":
        said = params["messages"][-2:]
        write(id=number, result={"message": {"role": "assistant", "content": json.dumps(said)}})
    elif not params.get("tools"):
        write(id=number, result={"message": {"role": "assistant", "content": "no tools"}})
    else:
        call(number, call="own", name="<i>own</i>", arguments={})
        write(
            method="event",
            params={"id": number, "event": {"type": "tool_result", "call": "own", "content": 1}},
        )
        call(number, call="c1", name="weather", delta='{"city":')
        call(number, call="c1", name="weather", delta='"Oslo"}')
        write(id=number, result={"finish": "tool_calls"})
