"""Does what each input says: "answer", "hold" it, "die", or "speak", which is one chunk and no end.

Declares a concurrency of 8. With the argument "deaf" cancels are ignored; otherwise a cancelled
request is answered.
"""

import os
import sys

import wire

deaf = sys.argv[1:] == ["deaf"]
held: dict[int, wire.Request] = {}
wire.write(wire.ready(concurrency=8))
for message in wire.messages():
    if message["method"] == "cancel":
        request = held.pop(message["params"]["id"], None)
        if request is not None and not deaf:
            wire.write(wire.line(id=request["id"], result={}))
        continue
    match wire.asked(message):
        case "hold":
            held[message["id"]] = message
        case "speak":
            held[message["id"]] = message
            wire.write(wire.chunk(message, "word"))
        case "die":
            os._exit(3)
        case _:
            wire.write(wire.line(id=message["id"], result={"output": "answer"}))
