"""Begins to answer a request that it has not read, under the id that it must have, then exits."""

import os
import select

import wire

wire.write(wire.ready())
select.select([0], [], [])
wire.log("guesses")
wire.write(wire.chunk({"id": 1}, "a guess"))
os._exit(3)
