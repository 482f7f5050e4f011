"""TOML written: what the standard library reads and does not write."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def to_key(name: str) -> str:
    """The name of a key or a table."""
    return name if _BARE.fullmatch(name) else _text(name)


def to_value(value: Any) -> str:
    """A value on one line. Raises TypeError for what TOML cannot hold, such as None."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return _text(value)
        case int() | float():
            return repr(value)
        case datetime():
            return value.isoformat()
        case list() | tuple():
            return f"[{', '.join(map(to_value, value))}]"
        case dict():
            members = [f"{to_key(name)} = {to_value(each)}" for name, each in value.items()]
            return f"{{ {', '.join(members)} }}" if members else "{}"
    raise TypeError(f"TOML has no {type(value).__name__}")


def to_tables(tables: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """The lines of a table: its values, then the tables in it, each under its own header."""
    inner = {name: each for name, each in tables.items() if isinstance(each, Table)}
    for name, each in tables.items():
        if name not in inner:
            yield f"{to_key(name)} = {to_value(each)}"
    for name, table in inner.items():
        path = f"{above}.{to_key(name)}" if above else to_key(name)
        yield ""
        if not table or any(not isinstance(each, Table) for each in table.values()):
            yield f"[{path}]"
        yield from to_tables(table, path)


class Table(dict[str, Any]):
    """A table that is written under a header of its own."""


def _text(text: str) -> str:
    # JSON's escapes are TOML's. Of what TOML wants escaped, JSON leaves DEL as it is.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
