"""Reads no more of its stdin than the line that it works on; a fault never ends."""

import signal

import wire


def work_for_ever(request: wire.Request) -> None:
    wire.log("works for ever")
    signal.pause()


# Unbuffered: what the agent has not asked for stays in the pipe.
wire.serve(work_for_ever, concurrency=8, buffering=0)
