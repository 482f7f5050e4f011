"""Stops itself with SIGSTOP: it is alive, and silent for good."""

import os
import signal

import wire


def stop_itself(request: wire.Request) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


wire.serve(stop_itself)
