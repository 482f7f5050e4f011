"""The settings that are in force, as a configuration: `gateway --print-config`.

What is printed has every setting, also those that have their defaults, and loads again. Secrets are
not in it: what was looked up stands there as it was written (`references`), and what was written
down itself is replaced, where it may be a secret: variables of agents, header fields of services,
and the hashes of keys.
"""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING, Any

from msgspec import UNSET, Struct, structs

from gateway.config.keys import hash_key
from gateway.config.references import FILE_WORD, Referenced, as_written
from gateway.config.toml import Table, to_tables

if TYPE_CHECKING:
    from gateway.config.settings import Settings

HIDDEN = "***"
"""Stands for what is not shown."""

_NO_SECRET = re.compile(rf"(?:[A-Za-z]+ )?(?:\$\{{\w+\}}|{FILE_WORD.pattern})")
"""A header field that only says where its key is."""

_HEAD = (
    "# The settings in force: defaults, the configuration and the command line together.",
    f'# Secrets are left out: "{HIDDEN}" stands for what was written down, and the hashes of keys',
    "# are those of no key.",
)


def print_settings(settings: Settings) -> str:
    """The settings as TOML."""
    tables = Table(
        {"keys_file": as_written(settings.keys_file)} if settings.keys_file else {},
        server=_table(settings.server),
        agents=Table({name: _table(agent) for name, agent in settings.agents.items()}),
        services=Table({name: _table(each) for name, each in settings.services.items()}),
        keys=Table({name: _table(key) for name, key in settings.keys.items()}),
    )
    filled = Table({name: each for name, each in tables.items() if each})
    return "\n".join([*_HEAD, *to_tables(filled), ""])


def _table(settings: Struct) -> Table:
    values = structs.asdict(settings)
    return Table({name: _shown(name, value) for name, value in values.items() if _is_set(value)})


def _is_set(value: Any) -> bool:
    return value is not None and value is not UNSET


def _shown(name: str, value: Any) -> Any:
    match value:
        case Struct():
            return _table(value)
        case dict():
            return {key: _hidden(name, each) for key, each in value.items()}
        case list() | tuple():
            return [_shown(name, each) for each in value]
        case str():
            return _text(name, value)
    return value


def _text(name: str, text: str) -> str:
    if name == "hash":
        return hash_key(secrets.token_bytes(32))
    if name == "command" and not isinstance(text, Referenced):
        return text.replace("${", "$${")  # `file:` is nothing special there
    return as_written(text)


def _hidden(name: str, text: str) -> str:
    """A text of a table that holds secrets, if it is not one that was looked up."""
    if name == "header":
        return text if _NO_SECRET.fullmatch(text) else HIDDEN
    return text.written if isinstance(text, Referenced) else HIDDEN
