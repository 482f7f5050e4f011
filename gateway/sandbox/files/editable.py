"""What is in a virtual environment: packages that were installed as a link to their sources
(`pip install -e`, `uv sync`), and whether they are compiled; and what is a project of Python.

Reads the file system, changes nothing. What is read here was written by the environment's author:
it is not decided here whether it is followed.
"""

from __future__ import annotations

import functools
import glob
import logging
import os
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import msgspec

from gateway.sandbox.files.authored import read_json

if TYPE_CHECKING:
    from collections.abc import Iterator

_log = logging.getLogger(__name__)

_MAX_ORIGIN = 16 * 1024
"""Bytes of a file that says where a package came from."""


class _Folder(msgspec.Struct, frozen=True):
    editable: bool = False


class _Origin(msgspec.Struct, frozen=True):
    """`direct_url.json` (PEP 610), as much of it as tells where sources are."""

    url: str
    dir_info: _Folder = _Folder()


def editable_sources(prefix: str) -> Iterator[str]:
    """The folders of the packages that the environment `prefix` has as links to their sources."""
    pattern = f"{glob.escape(prefix)}/lib/python3*/site-packages/*.dist-info/direct_url.json"
    for path in sorted(glob.glob(pattern)):
        try:
            origin = msgspec.convert(read_json(path, _MAX_ORIGIN), _Origin)
            url = urlsplit(origin.url)
        except (msgspec.ValidationError, ValueError):  # ValueError: no URL (RFC 3986)
            continue
        source = os.path.normpath(unquote(url.path))
        if origin.dir_info.editable and url.scheme == "file" and os.path.isdir(source):
            yield source


@functools.cache
def remark_on_bytecode(prefix: str) -> None:
    """Log, once, that what an environment holds is compiled anew at each start of a worker.

    uv does not compile what it installs, and a worker cannot keep what it has compiled.
    """
    packages = glob.glob(f"{glob.escape(prefix)}/lib/python3*/site-packages/*/__init__.py")
    compiled = any(os.path.isdir(f"{os.path.dirname(each)}/__pycache__") for each in packages)
    if packages and not compiled:
        _log.warning(
            "%s holds no compiled modules, so that every start of a worker compiles them: "
            "uv sync --compile-bytecode, or %s/bin/python -m compileall -q %s/lib",
            *(prefix, prefix, prefix),
        )


def is_project(folder: str) -> bool:
    """Whether the folder is a project of Python as a whole."""
    return any(os.path.isfile(f"{folder}/{name}") for name in ("pyproject.toml", "setup.py"))
