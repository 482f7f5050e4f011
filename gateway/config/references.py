"""Values that stand elsewhere: `${NAME}`, a variable of the gateway's, and `file:PATH`.

# The rule

In any text of the configuration, `${NAME}` stands for the variable of that name; a text that begins
with `file:` stands for the content of that file, without the line's end that it ends with. A path
is relative to the folder of the configuration. `$${` stands for `${`, and at the beginning
`$$file:` for `file:`. Names of tables and keys are never looked into, and what was looked up is not
looked into again.

In a `command` that is one text, a reference stays within its word, whatever it stands for; `file:`
is nothing special in a command. In `[services.NAME] header`, which `services` reads, `file:` may
begin any word: these values are keys, and are read again while the gateway runs.

What was looked up is a `Referenced` while settings are checked, so that errors show what was
written. Settings that are in use hold plain texts (`without_references`), and beside them what was
written, for logs and `--print-config`.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct, structs

from gateway.config.keys import KEY_VARIABLE
from gateway.config.reading import read_bounded

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_FILE_BYTES = 64 * 1024
"""Of a file that holds a value: the longest tokens and certificates have some kilobytes."""

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
FILE = "file:"
FILE_WORD = re.compile(r"(?<!\S)file:(\S+)")
_PART = re.compile(r"(?P<escaped>\$\$\{)|\$\{(?P<name>[^}]*)(?P<end>\}?)")


class Referenced(str):
    """A text with something in it that was looked up. Its repr is that of what was written."""

    __slots__ = ("written",)
    written: str

    def __new__(cls, value: str, written: str) -> Referenced:
        self = super().__new__(cls, value)
        self.written = written
        return self

    def __repr__(self) -> str:
        return repr(self.written)


def as_literal(text: str) -> str:
    """What stands for a text in a configuration."""
    escaped = text.replace("${", "$${")
    return f"$${escaped}" if escaped.startswith(FILE) else escaped


def without_references(value: Any, where: str, written: dict[str, str]) -> Any:
    """The value with plain texts. What was written for them is put into `written`, by the keys and
    numbers on the way, with dots."""
    match value:
        case Referenced():
            written[where] = value.written
            return str(value)
        case Struct():
            fields = structs.asdict(value)
            return type(value)(**_each(fields, where, written))
        case dict():
            return _each(value, where, written)
        case list() | tuple():
            numbered = _each(dict(enumerate(value)), where, written)
            return type(value)(numbered.values())
    return value


def _each(members: dict[Any, Any], where: str, written: dict[str, str]) -> dict[Any, Any]:
    return {
        name: without_references(each, f"{where}.{name}", written) for name, each in members.items()
    }


class References:
    """Looks up what the texts of one configuration refer to."""

    def __init__(self, environ: Mapping[str, str], folder: Path) -> None:
        """`folder` is what paths are relative to."""
        self._environ = environ
        self._folder = folder
        self.files: dict[str, bool] = {}
        """The files that were read, and whether each is of a variable of an agent's, which is a
        secret more often than not."""

    def resolve(self, value: Any, where: str) -> Any:
        """The value with all its texts resolved. `where` are its keys, with dots. Raises ValueError
        that names the key and shows no value."""
        match value:
            case str():
                return self._text(value, where)
            case dict():
                return {
                    key: self._headers(each)
                    if _is_header(where, key)
                    else self._member(each, key, where)
                    for key, each in value.items()
                }
            case list():
                return [self.resolve(each, where) for each in value]
        return value

    def _member(self, value: Any, key: str, where: str) -> Any:
        at = f"{where}.{key}" if where else key
        if key != "command":
            return self.resolve(value, at)
        if isinstance(value, list):
            return [self._variables(each, at) if isinstance(each, str) else each for each in value]
        if isinstance(value, str) and "${" in value:
            return [self._variables(word, at) for word in _words(value, at)]
        return value

    def _text(self, text: str, where: str) -> str:
        if text.startswith(f"$${FILE}"):
            return self._variables(text[2:], where, written=text)
        if text.startswith(FILE):
            path = self.path(text.removeprefix(FILE))
            self.files[path] = self.files.get(path, False) or _is_secret(where)
            return Referenced(_content(path, where), f"{FILE}{path}")
        return self._variables(text, where)

    def path(self, written: str) -> str:
        """The absolute path of a file that is named in the configuration."""
        return str(self._folder / os.path.expanduser(written))

    def _headers(self, headers: Any) -> Any:
        """Header fields of a service, which `services` looks up, with the paths made absolute."""
        if not isinstance(headers, dict):
            return headers
        return {
            name: FILE_WORD.sub(lambda found: f"{FILE}{self.path(found[1])}", value)
            if isinstance(value, str)
            else value
            for name, value in headers.items()
        }

    def _variables(self, text: str, where: str, *, written: str | None = None) -> str:
        if "${" not in text:
            return text
        looked_up = False

        def replace(part: re.Match[str]) -> str:
            nonlocal looked_up
            if part["escaped"]:
                return "${"
            looked_up = True
            return self._variable(part["name"], where, closed=bool(part["end"]))

        value = _PART.sub(replace, text)
        return Referenced(value, written or text) if looked_up else value

    def _variable(self, name: str, where: str, *, closed: bool) -> str:
        if not closed or not VARIABLE.fullmatch(name):
            raise ValueError(f"{where}: expected ${{NAME}} with a name of a variable, or $${{")
        if name == KEY_VARIABLE:
            raise ValueError(f"{where}: {name} is a caller's key, which belongs nowhere else")
        if name not in self._environ:
            raise ValueError(
                f"{where}: {name} is not set in the gateway's environment; "
                f"where ${{{name}}} is meant as it stands, write $${{{name}}}"
            )
        return self._environ[name]


def _is_secret(where: str) -> bool:
    return ".env." in f"{where}." or where in {"fleet.password", "fleet.token"}


def _is_header(where: str, key: str) -> bool:
    return key == "header" and where.startswith("services.")


def _words(command: str, where: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _content(path: str, where: str) -> str:
    try:
        text = read_bounded(path, MAX_FILE_BYTES).decode()
    except OSError as error:
        raise ValueError(f"{where}: {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{where}: {path} is no text in UTF-8") from None
    return text.removesuffix("\n").removesuffix("\r")
