"""What the gateway adds to an agent's command so that it means what its author means."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_PYTHON = re.compile(r"python(3(\.[0-9]+)?)?\Z")
_SDK = "worker"


def unshadowed(argv: Sequence[str]) -> tuple[str, ...]:
    """`python -m worker …` with `-P`, so that no `worker.py` in the current folder is run instead.

    Without it, Python looks for a module to run in the current folder first. The SDK itself looks
    there for the agent. Other commands are returned as they are.
    """
    if not argv or not _PYTHON.match(PurePath(argv[0]).name):
        return tuple(argv)
    for index, word in enumerate(argv[1:], start=1):
        if word == "-m":
            module = argv[index + 1] if index + 1 < len(argv) else ""
            if module == _SDK or module.startswith(f"{_SDK}."):
                return (*argv[:index], "-P", *argv[index:])
        if not word.startswith("-"):
            break
    return tuple(argv)
