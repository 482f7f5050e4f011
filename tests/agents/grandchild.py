"""Has a grandchild in a session of its own that holds the pipes and ignores signals; exits with 3.

With the argument "flood" the grandchild writes empty lines to stdout and stderr for ever.
"""

import os
import signal
import sys

import wire


def fork_twice() -> None:
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    wire.log("the grandchild lives")
    while True:
        if sys.argv[1:] == ["flood"]:
            for descriptor in (1, 2):
                os.write(descriptor, b"\n" * 65536)
        else:
            signal.pause()


def exit_now(request: wire.Request) -> None:
    os._exit(3)


fork_twice()
wire.serve(exit_now)
