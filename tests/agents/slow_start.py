"""Is ready only when somebody has written to the FIFO that its argument names, and closed it."""

import sys

import wire

wire.log("waiting at the FIFO")
with open(sys.argv[1]) as fifo:
    fifo.read()  # to the end: a reader that leaves early would break the writer's pipe
wire.serve()
