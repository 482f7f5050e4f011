"""Answers with chunks for ever; with the argument "after", goes on after it has answered."""

import sys

import wire


def flood(request: wire.Request) -> None:
    if sys.argv[1:] == ["after"]:
        wire.write(wire.answer(request))
    words = wire.chunk(request, "flood " * 10) * 100
    while True:
        wire.write(words)


wire.serve(flood)
