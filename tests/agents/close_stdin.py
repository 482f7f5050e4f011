"""Answers, closes its stdin, and lives on."""

import os
import signal

import wire


def close_stdin(request: wire.Request) -> None:
    os.close(0)
    wire.write(wire.answer(request))
    signal.pause()


wire.serve(close_stdin)
