"""Stops itself with SIGSTOP: alive, and it will never say anything again."""

import os
import signal

import wire


def stop_itself(request: wire.Request) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


wire.serve(stop_itself)
