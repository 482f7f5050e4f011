"""Answers "flood" with 8 MiB of chunks, and keeps "hold" until a "release" comes, at the same time.

The flood is written by a thread, so that all three can be in flight at once.
"""

import threading

import wire

FLOOD_BYTES = 8 * 1024 * 1024

held: list[wire.Request] = []
writing = threading.Lock()


def send(data: bytes) -> None:
    with writing:
        wire.write(data)


def flood(request: wire.Request) -> None:
    piece = wire.chunk(request, "flood " * 100) * 100
    for _ in range(FLOOD_BYTES // len(piece)):
        send(piece)
    send(wire.line(id=request["id"], result={}))
    wire.log("has flooded")


send(wire.ready(concurrency=8))
for message in wire.messages():
    if message["method"] == "cancel":
        continue
    match wire.asked(message):
        case "flood":
            threading.Thread(target=flood, args=[message], daemon=True).start()
        case "hold":
            held.append(message)
            wire.log(f"holds {len(held)}")
        case "release":
            send(b"".join(wire.answer(one) for one in (*held, message)))
            held.clear()
        case _:
            send(wire.answer(message))
