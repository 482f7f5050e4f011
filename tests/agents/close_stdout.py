"""Closes its stdout and lives on."""

import os
import signal

import wire


def close_stdout(request: wire.Request) -> None:
    os.close(1)
    signal.pause()


wire.serve(close_stdout)
