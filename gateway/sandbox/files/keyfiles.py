"""Files that look as if they held a secret: found by their names, and for keys by their contents.

Owns what a secret looks like, and the search of a folder for such files. Does not know what is done
with them (`mounts` does). A guess in both directions: it names what an operator should look at.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from gateway.sandbox.files.authored import read_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_ENTRIES = 50_000
"""Entries of one folder, at any depth, that are searched: some tenths of a second."""

_KEY_BYTES = 64 * 1024
"""Bytes of a file that are searched for a key: a bundle may begin with certificates."""

_DATA = r"(?:\.(?:cfg|conf|csv|env|ini|json|toml|txt|xml|ya?ml))?"
_BY_NAME = re.compile(
    rf"""
    \.env(?!\.(?:dist|example|sample|template)$)(?:\..+)? | .+\.env |
    \.(?:git-credentials|htpasswd|my\.cnf|netrc|pgpass|pypirc|vault-token) |
    id_(?:dsa|ecdsa|ed25519|rsa)[^.]* |
    credentials{_DATA} | secrets?{_DATA} |
    (?:client[-_]secret|service[-_]account).*\.json |
    .+\.(?:jks|kdbx|keystore|p12|pfx|ppk)
    """,
    re.VERBOSE | re.IGNORECASE,
)
_BY_CONTENT = (
    (re.compile(r".+\.(?:key|p8|pem)", re.IGNORECASE), re.compile(rb"PRIVATE KEY-----")),
    # Of JavaScript's package managers: mostly settings, sometimes a registry's token or password.
    (re.compile(r"\.npmrc|\.yarnrc(?:\.yml)?"), re.compile(rb"(?i)_auth|token|password")),
)

_NOT_SEARCHED = frozenset((".git", ".hg", ".svn", "__pycache__", "node_modules", "site-packages"))
"""What others wrote: libraries bring keys for their own tests."""


def looks_secret(path: str) -> bool:
    """Whether the file at `path` looks as if it held a secret."""
    name = os.path.basename(path)
    if _BY_NAME.fullmatch(name):
        return True
    sign = next((sign for names, sign in _BY_CONTENT if names.fullmatch(name)), None)
    if sign is None:
        return False
    # What the gateway cannot read, its workers cannot.
    return sign.search(read_bytes(path, _KEY_BYTES) or b"") is not None


def find_secrets(folder: str) -> Iterator[str]:
    """The files in `folder`, at any depth, that look secret: absolute, if `folder` is.

    A link is followed to files within the folder only. Libraries and virtual environments are not
    searched, and of a folder with very many entries only the first.
    """
    root = os.path.realpath(folder)
    folders = [root]
    seen = 0
    while folders and seen < MAX_ENTRIES:
        try:
            with os.scandir(folders.pop()) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            continue
        seen += len(found)
        if any(entry.name == "pyvenv.cfg" for entry in found):
            continue
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in _NOT_SEARCHED:
                    folders.append(entry.path)
            elif os.path.isfile(entry.path) and looks_secret(entry.path):
                target = os.path.realpath(entry.path)
                if target.startswith(root + os.sep):
                    yield target
