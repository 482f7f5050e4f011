"""Leaves a process behind that has a session of its own, when it is asked to; exits with 3.

The process says where it is on stderr: `left 123`, of the gateway's PIDs where there is no sandbox.
With the argument "cleared" its environment is empty.
"""

import os
import sys

import wire

SLEEP = ["sleep", "1000"]


def leave(request: wire.Request) -> None:
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.set_inheritable(writer, False)
            wire.log(f"left {os.getpid()}.")
            os.execvpe(SLEEP[0], SLEEP, {} if sys.argv[1:] == ["cleared"] else os.environ)
        os._exit(0)
    os.close(writer)
    os.read(reader, 1)  # ends when the program was executed
    os._exit(3)


wire.serve(leave)
