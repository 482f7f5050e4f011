"""Writes to stderr without end, from before it is ready, and serves meanwhile."""

import os
import threading

import wire


def flood() -> None:
    lines = b"".join(b"flood, line %d\n" % number for number in range(1000))
    while True:
        os.write(2, lines)


threading.Thread(target=flood, daemon=True).start()
wire.serve(concurrency=8)
