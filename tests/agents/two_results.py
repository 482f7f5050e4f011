"""Answers twice."""

import wire


def answer_twice(request: wire.Request) -> None:
    wire.write(wire.answer(request) * 2)


wire.serve(answer_twice)
