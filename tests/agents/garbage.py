"""Writes a line that is no message: "text", "binary", "array" or "null", as the argument says."""

import sys

import wire

GARBAGE = {
    "text": b"Segmentation fault (core dumped)\n",
    "binary": bytes(range(128, 256)) + b"\n",
    "array": b"[1, 2, 3]\n",
    "null": b"null\n",
}


def write_garbage(request: wire.Request) -> None:
    wire.write(GARBAGE[sys.argv[1]])


wire.serve(write_garbage)
