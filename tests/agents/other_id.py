"""Answers the first of two requests in flight, and the second under the id of the first."""

import wire

wire.write(wire.ready(concurrency=2))
requests = wire.messages()
first = next(requests)
wire.log("has the first")
second = next(requests)
wire.write(wire.answer(first) + wire.answer({**second, "id": first["id"]}))
for _ in requests:
    pass
