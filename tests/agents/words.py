"""Streams one word for each line of the FIFO that its argument names, and ends with the FIFO."""

import sys

import wire


def speak(request: wire.Request) -> None:
    with open(sys.argv[1]) as fifo:
        for word in fifo:
            wire.write(wire.chunk(request, word))
    wire.write(wire.line(id=request["id"], result={}))


wire.serve(speak)
