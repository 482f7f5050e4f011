"""Is ready only when somebody opens the FIFO that its argument names."""

import sys

import wire

wire.log("waiting at the FIFO")
with open(sys.argv[1]):
    pass
wire.serve()
