"""Programs of other projects that tests and benchmarks run."""

from __future__ import annotations

import os
import shutil


def find_program(name: str) -> str | None:
    """The path of a program, also of a server, which Debian keeps where an ordinary user does not
    look."""
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/local/sbin:/usr/sbin")
