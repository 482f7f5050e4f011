"""Is ended by SIGSEGV."""

import os
import resource
import signal

import wire


def segfault(request: wire.Request) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.kill(os.getpid(), signal.SIGSEGV)


wire.serve(segfault)
