"""Answers the first request with a string of 7 MB, as soon as it knows its id, and reads nothing.

It learns the id from a copy of what is in the pipe (tee(2)), which leaves the pipe as it is.
"""

import ctypes
import os
import re
import select

import wire

wire.write(wire.ready())
select.select([0], [], [])
copy, to_copy = os.pipe()
assert ctypes.CDLL(None).tee(0, to_copy, 65536, 0) > 0
known = re.search(rb'"id":(\d+)', os.read(copy, 65536))
assert known
wire.write(wire.line(id=int(known[1]), result={"output": "x" * 7_000_000}))
wire.log("has answered")
select.select([], [], [])
