"""Answers, and then sends a chunk for the same request."""

import wire


def add_a_chunk(request: wire.Request) -> None:
    wire.write(wire.answer(request) + wire.chunk(request, "late"))


wire.serve(add_a_chunk)
