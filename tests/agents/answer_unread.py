"""Begins to answer a request that it has not read, under the id that it must have, then exits.

It learns the id from a copy of what is in the pipe (tee(2)), which leaves the pipe as it is: as far
as the gateway can see, nobody has read the request.
"""

import ctypes
import json
import os
import select

import wire

wire.write(wire.ready())
select.select([0], [], [])
copy, to_copy = os.pipe()
assert ctypes.CDLL(None).tee(0, to_copy, 65536, 0) > 0
request = json.loads(os.read(copy, 65536))
wire.log("knows the id")
wire.write(wire.chunk(request, "a guess"))
os._exit(3)
