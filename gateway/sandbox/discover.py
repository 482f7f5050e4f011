"""What an agent's command needs to see of the file system: its program, interpreter and folder.

Owns the guess from the words of a command; reads the file system, changes nothing. Does not know
what must not be shown (`mounts` does), nor how a path is mounted.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.sandbox.refusals import SandboxError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
"""The distribution's own programs, which every sandbox shows."""
ALTERNATIVES = "/etc/alternatives"
"""What many of the distribution's programs are links through."""
CERTIFICATES = ("/etc/ssl", "/etc/pki", "/etc/ca-certificates")
"""Whom programs trust, shown where there is a network."""

_SHEBANG_LENGTH = 256
"""As much of a script's first line as the kernel reads."""
_SHEBANG_DEPTH = 4
"""A script's interpreter may be a script; the kernel gives up after as many."""
_SYMLINK_HOPS = 40
"""As many symbolic links as the kernel follows for one path."""


# Of the file system hierarchy; /app and the like are an agent's own.
_WIDE: tuple[str, ...] = ("/boot", "/dev", "/etc", "/home", "/media", "/mnt", "/opt", "/proc")
_WIDE += ("/root", "/run", "/srv", "/sys", "/tmp", "/var", "/var/lib", "/var/tmp", "/dev/shm")  # noqa: S108
_WIDE_IN_HOME = (".local", ".config", ".cache", "bin", "Desktop", "Documents", "Downloads")

_OWN_PACKAGES = ("worker", "protocol")
"""What agents import of this project; the gateway itself only asks where they are."""


@dataclass(slots=True)
class Needs:
    """What the command needs, as far as it can be known from its words."""

    program: str = ""
    """The absolute path of the program."""
    paths: list[str] = field(default_factory=list)
    """Files and folders to show read-only, in the order they were found."""
    files: list[str] = field(default_factory=list)
    """Those that the command itself names, its program among them."""
    bin_dirs: list[str] = field(default_factory=list)
    """Folders of the programs found, for PATH."""

    def add(self, path: str | Path) -> None:
        """Both the path as it is spelled and what it leads to: programs ask for either."""
        for each in (os.path.abspath(path), os.path.realpath(path)):
            if each not in self.paths and not is_system(each):
                self.paths.append(each)


def discover(words: Sequence[str], *, cwd: str, search_path: str) -> Needs:
    """The needs of the command `words`, started in `cwd` with `search_path` as its PATH.

    Raises SandboxError when there is no such program, or it cannot be told which it is.
    """
    program = find_program(words[0], cwd=cwd, search_path=search_path)
    if program is None:
        raise SandboxError(f"there is no command {words[0]!r} in {search_path} or {cwd}")
    if os.path.basename(os.path.dirname(program)) == "shims":
        raise SandboxError(
            f"{program} is a version manager's stand-in, which needs that manager's own files: "
            f"name the program that it starts (pyenv which {os.path.basename(program)}, or alike)"
        )
    needs = Needs(program=program, files=[program])
    _add_program(needs, program, search_path=search_path, depth=_SHEBANG_DEPTH)
    for word in words[1:]:
        _add_argument(needs, word, cwd=cwd)
    if "-m" in words[1:-1]:
        _add_module(needs, words[words.index("-m", 1) + 1], cwd=cwd)
    # The SDK and the wire, when they are installed as a link to a checkout.
    for package in _OWN_PACKAGES:
        for folder in _package_folders(package):
            needs.add(folder)
    return needs


def own_interpreter() -> list[str]:
    """What the interpreter that runs this needs, for the sandbox's own programs."""
    return discover([sys.executable], cwd=os.sep, search_path=os.defpath).paths


def find_program(word: str, *, cwd: str, search_path: str) -> str | None:
    """The absolute path that a shell in `cwd` would start for `word`."""
    if os.sep in word:
        path = os.path.abspath(os.path.join(cwd, word))
        return path if os.access(path, os.X_OK) and os.path.isfile(path) else None
    found = shutil.which(word, path=search_path)
    return None if found is None else os.path.abspath(os.path.join(cwd, found))


def is_system(path: str) -> bool:
    """Whether the path lies in what every sandbox shows."""
    return any(path == folder or path.startswith(folder + os.sep) for folder in SYSTEM_FOLDERS)


def is_wide(path: str) -> bool:
    """Whether the folder is a place where unrelated things are kept: such a one is not guessed."""
    home = os.path.expanduser("~")
    in_home = os.path.dirname(path) == home and os.path.basename(path) in _WIDE_IN_HOME
    above_home = home.startswith(path.rstrip(os.sep) + os.sep)
    a_home = path == home or os.path.dirname(path) == "/home"
    return in_home or above_home or a_home or path in _WIDE


def _add_program(needs: Needs, program: str, *, search_path: str, depth: int) -> None:
    needs.bin_dirs.append(os.path.dirname(program))
    for hop in _symlink_chain(program):
        prefix = _prefix(hop)
        needs.add(hop if prefix is None else prefix)
        if prefix is not None and (base := _venv_base(prefix)) is not None:
            needs.add(base)
    interpreter = _shebang(program)
    if interpreter and depth:
        word = interpreter[0]
        if os.path.basename(word) == "env":
            named = [
                each for each in interpreter[1:] if not each.startswith("-") and "=" not in each
            ]
            word = named[0] if named else word
        found = find_program(word, cwd="/", search_path=search_path)
        if found is not None:
            _add_program(needs, found, search_path=search_path, depth=depth - 1)


def _prefix(program: str) -> str | None:
    """The installation that `PREFIX/bin/program` belongs to; None when it stands alone."""
    folder = os.path.dirname(program)
    prefix = os.path.dirname(folder)
    if os.path.basename(folder) != "bin" or is_wide(prefix):
        return None
    whole = os.path.exists(f"{prefix}/pyvenv.cfg") or os.path.isdir(f"{prefix}/lib")
    return prefix if whole else None


def _venv_base(prefix: str) -> str | None:
    """The installation that a virtual environment was made from (`sys.base_prefix`)."""
    try:
        lines = Path(prefix, "pyvenv.cfg").read_text(errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        key, _, value = line.partition("=")
        if key.strip() == "home" and os.path.basename(value.strip()) == "bin":
            return os.path.dirname(value.strip())
    return None


def _symlink_chain(path: str) -> Iterator[str]:
    """The path and everything that it leads to, link by link."""
    for _ in range(_SYMLINK_HOPS):
        yield path
        try:
            target = os.readlink(path)
        except OSError:
            break
        path = os.path.normpath(os.path.join(os.path.dirname(path), target))
    yield os.path.realpath(path)


def _shebang(program: str) -> list[str]:
    try:
        with open(program, "rb") as file:
            line = file.read(_SHEBANG_LENGTH).split(b"\n", 1)[0]
    except OSError:
        return []
    return os.fsdecode(line[2:]).split() if line.startswith(b"#!") else []


def _add_argument(needs: Needs, word: str, *, cwd: str) -> None:
    """A word that is a path: the folder of a file, or the folder itself.

    `path/to/file.py:attribute` and `--option=path` are paths too, `module:attribute` is a module.
    """
    candidates = (
        [word.partition("=")[2]] if word.startswith("-") else [word, word.rpartition(":")[0]]
    )
    for candidate in filter(None, candidates):
        path = os.path.abspath(os.path.join(cwd, candidate))
        # A bare word is not a folder, even where a folder of that name happens to be.
        if os.path.isdir(path) and (os.sep in candidate or "." in candidate):
            if not is_wide(path):
                needs.add(path)
            return
        if os.path.isfile(path):
            _add_file(needs, path)
            return
    if ":" in word:
        _add_module(needs, word.partition(":")[0], cwd=cwd)


def _add_file(needs: Needs, path: str) -> None:
    """The folder of a file, for what it loads from there; in a wide folder the file alone."""
    needs.files.append(path)
    if is_system(path):
        return
    folder = os.path.dirname(path)
    needs.add(path if is_wide(folder) else folder)
    if os.path.dirname(os.path.realpath(path)) != os.path.realpath(folder):
        needs.add(os.path.realpath(path))


def _add_module(needs: Needs, module: str, *, cwd: str) -> None:
    """A module in the folder that Python starts in: that folder, where its siblings are."""
    top = module.partition(".")[0]
    if not top.isidentifier() or top in _OWN_PACKAGES:
        return
    for candidate in (os.path.join(cwd, top), os.path.join(cwd, f"{top}.py")):
        if os.path.exists(candidate):
            needs.add(candidate if is_wide(cwd) else cwd)


def _package_folders(package: str) -> list[str]:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        return []
    return list(spec.submodule_search_locations)
