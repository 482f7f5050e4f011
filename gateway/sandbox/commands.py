"""What the gateway adds to an agent's command so that it means what its author means."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_PYTHON = re.compile(r"python(3(\.[0-9]+)?)?\Z")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_WITH_VALUE = {"-X", "-W"}
_MODULE = re.compile(r"-[A-Za-z]*m\Z")
"""`-m`, also together with flags that take no value: `-um`."""
_SDK = "worker"


def unshadowed(argv: Sequence[str]) -> tuple[str, ...]:
    """`python -m worker …` with `-P`, so that no `worker.py` in the current folder is run instead.

    Without it, Python looks for a module to run in the current folder first. The SDK itself looks
    there for the agent. Other commands are returned as they are.
    """
    words = iter(enumerate(argv))
    for index, word in words:
        name = PurePath(word).name
        if _PYTHON.match(name):
            break
        if not (index == 0 and name == "env") and not _ASSIGNMENT.match(word):
            return tuple(argv)
    for index, word in words:
        if word in _WITH_VALUE:
            next(words, None)
        elif _MODULE.match(word):
            module = argv[index + 1] if index + 1 < len(argv) else ""
            runs_sdk = module == _SDK or module.startswith(f"{_SDK}.")
            return (*argv[:index], "-P", *argv[index:]) if runs_sdk else tuple(argv)
        elif not word.startswith("-"):
            break
    return tuple(argv)
