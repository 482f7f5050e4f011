"""Files of an agent's project that have the name of one of the SDK's packages.

Python finds a module by its name alone, and looks beside the program that it runs first. So a
project's own `protocol.py` is found instead of the package that the SDK needs, or the other way
round, depending on who asks first. This module owns the words that say so. It imports nothing but
the standard library, since it has to run before anything of the SDK does.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

PACKAGES = ("worker", "protocol")
"""The names that the SDK takes."""

_INSTALLED = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
"""The folder that holds both packages, however they were installed."""


def check_protocol() -> None:
    """Check that `protocol` is the SDK's. Raises ImportError, which names the file in its way."""
    loaded = sys.modules.get("protocol")
    spec = loaded.__spec__ if loaded is not None else find_spec("protocol")
    origin = None if spec is None else spec.origin
    if origin is None or os.path.dirname(os.path.dirname(os.path.abspath(origin))) != _INSTALLED:
        raise ImportError(
            f"{origin or 'something else'} is found under the name 'protocol', which the SDK's own "
            f"package in {_INSTALLED} has: rename that file, or start the agent with "
            "`agent-worker FILE.py:NAME`",
            name="protocol",
        )


def namesake(package: str, folders: list[str]) -> str | None:
    """The file or package called `package` that the project has in one of `folders`."""
    for folder in folders:
        for name in (f"{package}.py", f"{package}/__init__.py"):
            path = os.path.join(folder, name)
            if os.path.exists(path) and os.path.abspath(folder) != _INSTALLED:
                return path
    return None


def explain(error: BaseException, folders: list[str]) -> str | None:
    """What to tell of an error that the agent's module raised, if it is due to a namesake.

    Either the project asked for its own file and got the SDK's package, which lacks what it asked
    for, or somebody inserted the project's file first.
    """
    asked = error.name if isinstance(error, ImportError) else None
    if isinstance(error, AttributeError):
        asked = getattr(error.obj, "__name__", None)
    package = (asked or "").partition(".")[0]
    path = namesake(package, folders) if package in PACKAGES else None
    return None if path is None else _words(package, path)


def unnoticed(loaded: object, folders: list[str]) -> list[str]:
    """What to tell of namesakes that the module `loaded` may have meant, and did not get.

    It imported a package of the SDK as a whole, which only fails when it is used.
    """
    named = [value for value in vars(loaded).values() if getattr(value, "__path__", None)]
    return [
        _words(package, path)
        for package in PACKAGES
        if sys.modules.get(package) in named and (path := namesake(package, folders)) is not None
    ]


def _words(package: str, path: str) -> str:
    return (
        f"`import {package}` is the SDK's own package, and not {path}: "
        "rename that file if the agent needs it"
    )
