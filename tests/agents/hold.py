"""Keeps every request that says "hold" until one says "answer all", or "crash".

Logs to stderr how many it holds. "malformed" is answered with a result of the wrong shape. With the
argument "deaf" cancels are ignored; otherwise a cancelled request is still answered with its echo,
at the time of the cancel.
"""

import os
import sys

import wire

deaf = sys.argv[1:] == ["deaf"]
held: dict[int, wire.Request] = {}
wire.write(wire.ready(concurrency=32))
for message in wire.messages():
    if message["method"] == "cancel":
        wire.log("was told to cancel")
        if not deaf and message["params"]["id"] in held:
            wire.write(wire.answer(held.pop(message["params"]["id"])))
        continue
    match str(wire.asked(message)).partition(" #")[0]:
        case "malformed":
            wire.write(wire.line(id=message["id"], result=[]))
        case "hold":
            held[message["id"]] = message
            wire.log(f"holds {len(held)}")
        case "crash":
            os._exit(3)
        case "answer all":
            wire.write(b"".join(wire.answer(one) for one in (*held.values(), message)))
            held.clear()
        case _:
            wire.write(wire.answer(message))
