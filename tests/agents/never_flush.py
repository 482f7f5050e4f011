"""Answers each request into a buffer that it never flushes.

With the argument "ready" it says `ready` first, at once.
"""

import sys

import wire

if sys.argv[1:] == ["ready"]:
    wire.write(wire.ready())
with open(1, "wb", closefd=False) as stdout:
    for message in wire.messages():
        if message["method"] != "cancel":
            stdout.write(wire.answer(message))
