"""Finding the program that a command names, and saying what to write where there is none.

Reads the file system, changes nothing. There is no shell between the settings and the program, and
people write commands as if there were one: what only a shell would understand is said, and so is
what would work.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from typing import TYPE_CHECKING, Any

from gateway.sandbox.files import node
from gateway.sandbox.files.authored import read_bytes, read_manifest
from gateway.sandbox.files.commands import simple_commands

if TYPE_CHECKING:
    from collections.abc import Sequence

_SHEBANG_LENGTH = 256
"""Bytes of a script's first line that the kernel reads."""

_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_BUILTINS = frozenset(
    (".", "alias", "cd", "eval", "exec", "export", "if", "set", "source", "ulimit", "umask", "{")
)
_INTERPRETERS = {".py": "python", ".sh": "sh", ".js": "node", ".mjs": "node", ".cjs": "node"}

_ENVIRONMENT_RUNNERS = {
    "conda": '"$(conda info --base)/envs/NAME/bin/{command}"',
    "hatch": '"$(hatch env find)/bin/{command}"',
    "mamba": '"$(mamba info --base)/envs/NAME/bin/{command}"',
    "pdm": "{folder}/.venv/bin/{command}",
    "pipenv": '"$(pipenv --venv)/bin/{command}"',
    "pipx": "~/.local/share/pipx/venvs/NAME/bin/{command}",
    "poetry": '"$(poetry env info --path)/bin/{command}"',
    "rye": "{folder}/.venv/bin/{command}",
    "uv": "{folder}/.venv/bin/{command}",
}
"""What `RUNNER run COMMAND` runs, once the runner has made the environment; after a shell has
replaced what only a shell replaces."""
_WITH_VALUE = frozenset(
    ("--directory", "--env-file", "--extra", "--group", "--package", "--project", "--python")
) | {"--with", "--from", "--name", "--prefix", "-n", "-p"}
"""Options of these runners that take a value of their own."""
_PACKAGES_BIN = "node_modules/.bin"
_PACKAGE = re.compile(r"(?:@[^/]+/)?([^@/]+)")
"""`NAME@VERSION` or `@SCOPE/NAME@VERSION`."""
_PACKAGE_RUNNERS = frozenset(("bunx", "npx", "uvx"))
_SCRIPT_RUNNERS = frozenset(("npm", "pnpm", "yarn"))


def find_program(word: str, *, cwd: str, search_path: str) -> str | None:
    """The absolute path that a shell in `cwd` would start for `word`."""
    if os.sep in word:
        path = os.path.abspath(os.path.join(cwd, word))
        return path if os.access(path, os.X_OK) and os.path.isfile(path) else None
    found = shutil.which(word, path=search_path)
    return None if found is None else os.path.abspath(os.path.join(cwd, found))


def why_not_found(word: str, *, cwd: str, search_path: str) -> str | None:
    """Why there is no program of that name, and what to write instead; None if there is one."""
    if find_program(word, cwd=cwd, search_path=search_path) is not None:
        return None
    hint = _hint_on_missing(word, cwd=cwd, search_path=search_path)
    return hint or f"there is no command {word!r} in {search_path} or {cwd}: not found"


def _hint_on_missing(word: str, *, cwd: str, search_path: str) -> str | None:
    for meant, what, instead in (
        (_ASSIGNMENT.match(word), "sets a variable for", f"env {word} …"),
        (word in _BUILTINS, "is a word of", f"sh -c '{word} …'"),
        (word.startswith("~"), "is expanded by", os.path.expanduser(word)),
        ("$" in word, "is replaced by", f"sh -c '{word} …'"),
    ):
        if meant:
            return f"{word!r} {what} a shell, and there is none: write {instead}"
    if os.sep in word:
        return _hint_on_file(os.path.abspath(os.path.join(cwd, word)), word)
    beside = os.path.join(cwd, word)
    if os.path.isfile(beside):
        return _hint_on_file(beside, f"./{word}") or f"write ./{word}"
    found = (os.path.join(cwd, folder, word) for folder in search_path.split(os.pathsep))
    return next((_hint_on_file(path, path) for path in found if os.path.isfile(path)), None)


def _hint_on_file(path: str, word: str) -> str | None:
    if os.path.isdir(path):
        return f"{path} is a folder"
    if not os.path.exists(path) or os.access(path, os.X_OK):
        return None
    interpreter = interpreter_of(path) or _INTERPRETERS.get(os.path.splitext(path)[1])
    named = f", or name its interpreter: {interpreter} {word}" if interpreter else ""
    return f"{path} may not be executed: chmod +x {path}{named}"


def interpreter_of(path: str) -> str | None:
    """The interpreter that a script asks for: a path, or a name that `env` looks up."""
    words = shebang(path)
    if words and os.path.basename(words[0]) == "env":
        named = [each for each in words[1:] if not each.startswith("-") and "=" not in each]
        words = named or words
    return words[0] if words else None


def shebang(program: str) -> list[str]:
    """The words of a script's first line, after `#!`; empty for any other file."""
    start = read_bytes(program, _SHEBANG_LENGTH) or b""
    line = start.split(b"\n", 1)[0].split(b"\0", 1)[0]
    return os.fsdecode(line[2:]).split() if line.startswith(b"#!") else []


def refuse_runner(words: Sequence[str], *, cwd: str) -> str | None:
    """What to write instead of a command that prepares an environment first, or None.

    `uv run`, `npx` and the like change files and ask registries before they start the program,
    which a worker may not, and need not at every start.
    """
    runner = os.path.basename(words[0])
    if len(words) < 2:
        return None
    if runner in _PACKAGE_RUNNERS:
        folder = ".venv/bin" if runner == "uvx" else _PACKAGES_BIN
        return _prepares(runner, *_packages_program(folder, words[1:], cwd=cwd))
    if runner in _SCRIPT_RUNNERS:
        return _refuse_script(words, cwd=cwd)
    place = _ENVIRONMENT_RUNNERS.get(runner)
    if place is None or "run" not in words[1:]:
        return None
    command, *arguments = _command_of(words[list(words).index("run") + 1 :])
    folder = "." if os.path.isabs(cwd) else cwd
    found = place.format(folder=folder, command=command).removeprefix("./")
    there = "{folder}" not in place or os.path.exists(os.path.join(cwd, found))
    first = "" if there else f"prepare it first ({runner} sync)"
    return _prepares(f"{runner} run", " ".join([found, *map(shlex.quote, arguments)]), first)


def _prepares(runner: str, instead: str, first: str) -> str:
    return (
        f"{runner} prepares an environment before it starts the program, for which a worker has "
        f"neither the network nor the files: write {instead}" + (f", and {first}" if first else "")
    )


def _command_of(words: Sequence[str]) -> list[str]:
    """The words of the command behind a runner's own options; a file of Python's gets `python`."""
    rest = list(words)
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if option in {"-m", "--module"}:
            return ["python", "-m", *rest]
        if option in _WITH_VALUE and rest:
            rest.pop(0)
    if rest and rest[0].endswith(".py"):
        return ["python", *rest]
    return rest or ["COMMAND"]


def _refuse_script(words: Sequence[str], *, cwd: str) -> str | None:
    """For `npm start`, `npm run NAME` and `npm exec`: the words that are run in the end."""
    rest = [word for word in words[1:] if not word.startswith("-")]
    if rest[:1] in (["exec"], ["x"], ["dlx"]):
        behind = words[list(words).index(rest[0]) + 1 :]
        instead, first = _packages_program(_PACKAGES_BIN, behind, cwd=cwd)
        return _prepares(f"{words[0]} {rest[0]}", instead, first)
    if not rest or not {"-s", "--silent"}.isdisjoint(words):
        return None
    name = rest[1] if rest[0] in {"run", "run-script"} and len(rest) > 1 else rest[0]
    script = _scripts(cwd).get(name)
    told = f"{words[0]} prints to stdout, where only answers may stand"
    if not isinstance(script, str):
        return f"{told}: add --silent, or write the command that it runs"
    said = f"package.json has as {name!r}: {ascii(script)[1:-1]}"
    if (simple := _simple(script)) and simple[0] == "tsx":
        instead = ascii(shlex.join(node.without_tsx(simple[1:])))[1:-1]
        return f"{told}: write {instead}, for what {said}"
    return f"{told}: add --silent, or write the command that it runs, which {said}"


def _simple(script: str) -> list[str]:
    """The words of a script of one command that asks nothing of a shell; none for another."""
    found = [simple.words for simple in simple_commands(script, folder=os.sep)]
    return found[0] if len(found) == 1 and shlex.join(found[0]) == " ".join(script.split()) else []


def _packages_program(folder: str, words: Sequence[str], *, cwd: str) -> tuple[str, str]:
    """For `[OPTIONS] PACKAGE[@VERSION] …`: the command of what is installed, and what to do
    first."""
    rest = list(words)
    while rest and rest[0].startswith("-"):
        if rest.pop(0) in _WITH_VALUE and rest:
            rest.pop(0)
    named = _PACKAGE.match(rest[0]) if rest else None
    tool = named[1] if named else "NAME"
    path = f"{folder}/{tool}"
    there = os.path.exists(os.path.join(cwd, path))
    is_tsx = path == f"{_PACKAGES_BIN}/tsx"
    command = node.without_tsx(rest[1:]) if is_tsx else [path, *rest[1:]]
    return shlex.join(command), "" if there else "install it in the project first"


def _scripts(cwd: str) -> dict[str, Any]:
    found = read_manifest(os.path.join(cwd, "package.json")).get("scripts")
    return found if isinstance(found, dict) else {}
