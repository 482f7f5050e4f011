"""What the words of an agent's command mean: whether they run the SDK, and which other commands
they start.

Pure: the file system is not looked at. A command may start another one by the words that follow
(`env X=1 python …`) or by a script of the shell (`sh -c '…'`, `run.sh`). Scripts are read for the
names in them, not run: what is only known when they run (most variables, conditions) is left out.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import PurePath
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

UNBUFFERED = {"PYTHONUNBUFFERED": "1"}
"""Python's stdout has a buffer when it is a pipe, and nobody gets an answer that lies in there."""

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


_WRAPPERS: dict[str, tuple[frozenset[str], int]] = {
    "env": (frozenset(("-u", "--unset", "-C", "--chdir")), 0),
    "ionice": (frozenset(("-c", "-n", "--class", "--classdata")), 0),
    "nice": (frozenset(("-n", "--adjustment")), 0),
    "nohup": (frozenset(), 0),
    "setsid": (frozenset(), 0),
    "stdbuf": (frozenset(("-i", "-o", "-e", "--input", "--output", "--error")), 0),
    "timeout": (frozenset(("-k", "-s", "--kill-after", "--signal")), 1),
}
"""Programs that run the command behind their own words: their options with a value in the next
word, and how many words come before the command."""
_SHELLS = frozenset(("ash", "bash", "dash", "ksh", "sh", "zsh"))
_SHELL_SCRIPT = re.compile(r"-[A-Za-z]*c")
"""`-c`, also together with flags: `-euc`, `-lc`."""


def wrapped(words: Sequence[str]) -> list[str] | None:
    """The command that `words` run with others around it (`env A=1 COMMAND …`), or None."""
    grammar = _WRAPPERS.get(PurePath(words[0]).name)
    if grammar is None:
        return None
    with_value, count = grammar
    rest = list(words[1:])
    while rest and (rest[0].startswith("-") or _ASSIGNMENT.match(rest[0])):
        option = rest.pop(0)
        if option in {"-S", "--split-string"} and rest:
            try:
                return [*shlex.split(rest[0]), *rest[1:]] or None
            except ValueError:  # a quotation without an end
                return None
        if option in with_value and rest:
            rest.pop(0)
    return rest[count:] or None


def shell_script(words: Sequence[str]) -> str | None:
    """The script of `sh -c SCRIPT`, or None for another command."""
    if PurePath(words[0]).name in _SHELLS:
        rest = iter(words[1:])
        for word in rest:
            if _SHELL_SCRIPT.fullmatch(word):
                return next(rest, None)
            if not word.startswith(("-", "+")):
                break
            if word.endswith("o"):  # -o pipefail, -euo pipefail
                next(rest, None)
    return None


class Simple(NamedTuple):
    """One simple command of a script."""

    folder: str
    """Where the script is when it runs the command."""
    words: list[str]


_OPERATORS = "();<>|&\n"
_RESERVED = frozenset(
    ("!", "do", "elif", "else", "exec", "if", "then", "time", "until", "while", "{")
)
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_OWN_FILE = r"""["']?\$(?:0|\{0\}|BASH_SOURCE|\{BASH_SOURCE(?:\[0\])?\})["']?"""
_OWN_FOLDER = re.compile(rf"\$\(\s*dirname\s+(?:--\s+)?{_OWN_FILE}\s*\)|\$\{{0%/\*\}}")
_CD_PWD = re.compile(
    r"""\$\(\s*cd\s+(?:--\s+)?(["']?)([^"'$;&]+)\1\s*(?:&&|;)\s*pwd(?: -P)?\s*\)"""
)
"""How scripts find their own folder: `"$(cd "$(dirname "$0")" && pwd)"`."""


def simple_commands(script: str, *, folder: str, own_folder: str | None = None) -> Iterator[Simple]:
    """The commands in a script that starts in `folder`, and whose file lies in `own_folder`.

    Words that depend on what only a run would tell are left out, as is all behind a fault.
    """
    text = "\n".join(map(_without_comment, script.replace("\\\n", " ").split("\n")))
    if own_folder is not None:
        text = _OWN_FOLDER.sub(lambda _: own_folder, text)
        text = _CD_PWD.sub(lambda match: match[2].strip(), text)
    known: dict[str, str] = {}
    for raw in _split_commands(text):
        words = [_VARIABLE.sub(lambda m: known.get(m[1] or m[2], m[0]), each) for each in raw]
        while words and (words[0] in _RESERVED or _ASSIGNMENT.match(words[0])):
            name, equals, value = words.pop(0).partition("=")
            if equals:
                known[name] = value
        certain = [word for word in words if "$" not in word and "`" not in word]
        if certain[:1] == ["cd"]:
            folder = os.path.normpath(os.path.join(folder, *certain[1:2]))
        elif certain:
            yield Simple(folder, certain)


def _without_comment(line: str) -> str:
    """The line up to a `#` that begins a word outside of quotes."""
    for match in re.finditer(r"(?:^|\s)#", line):
        before = line[: match.start()]
        if before.count("'") % 2 == before.count('"') % 2 == 0:
            return before
    return line


def _split_commands(text: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(text, posix=True, punctuation_chars=_OPERATORS)
    lexer.whitespace = " \t\r"
    lexer.whitespace_split = True
    lexer.commenters = ""
    words: list[str] = []
    redirection = False
    try:
        for token in lexer:
            is_operator = bool(token) and not token.strip(_OPERATORS)
            if redirection:
                redirection = is_operator
            elif is_operator and not token.strip("<>&") and token.strip("&"):
                redirection = True
            elif is_operator:
                yield words
                words = []
            else:
                words.append(token)
    except ValueError:  # a quotation without an end: not what the shell reads either
        pass
    yield words
