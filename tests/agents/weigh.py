"""Makes the gateway hold much: `{"empty": n}` is answered with so many empty chunks, all requests
of it at once, `{"large": n}` with a string of so many bytes, and `{"flood": text, "times": n}` with
chunks of that text repeated so often, for ever. `{"thoughts": n}` is answered with events of so
many characters for ever, and `{"file": n, "result": m}` with a file and a result of so many bytes.

With the argument of a number, the empty chunks begin when so many requests have come.
"""

import sys

import wire

RUN = 1000
together = int(sys.argv[1]) if sys.argv[1:] else 1

waiting: list[wire.Request] = []
wire.write(wire.ready(concurrency=64))
for request in wire.messages():
    if request["method"] == "cancel":
        continue
    wish = wire.asked(request)
    if "large" in wish:
        wire.write(wire.line(id=request["id"], result={"output": "x" * wish["large"]}))
        continue
    if "flood" in wish:
        text = wire.chunk(request, wish["flood"] * wish["times"])
        while True:
            wire.write(text * (1 + 60_000 // len(text)))
    if "thoughts" in wish:
        text = wire.event(request, type="reasoning", text="x" * wish["thoughts"])
        while True:
            wire.write(text * (1 + 60_000 // len(text)))
    if "file" in wish:
        data = "A" * wish["file"]
        wire.write(wire.event(request, type="file", name="a", mime="image/png", data=data))
        wire.write(wire.line(id=request["id"], result={"output": '"' * wish["result"]}))
        continue
    waiting.append(request)
    if len(waiting) == together:
        runs = [wire.chunk(each, "") * RUN for each in waiting]
        for _ in range(wish["empty"] // RUN):
            wire.write(b"".join(runs))
        wire.write(b"".join(wire.line(id=each["id"], result={}) for each in waiting))
        waiting.clear()
