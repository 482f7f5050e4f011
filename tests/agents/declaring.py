"""Declares its first argument as the schema of its input, logs what it is asked, and echoes."""

import json
import sys

import wire

if __name__ == "__main__":
    params = {"protocol": 1, "handlers": ["invoke", "chat"], "concurrency": 8}
    params["input"] = json.loads(sys.argv[1])
    wire.write(wire.line(method="ready", params=params))
    for request in wire.messages():
        if request["method"] != "cancel":
            wire.log(f"seen {json.dumps(wire.asked(request))[:80]}")
            wire.write(wire.answer(request))
