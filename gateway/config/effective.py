"""The settings that are in force, as a configuration: `gateway --print-config`.

What is printed has every setting, also those that have their defaults, and loads again. Secrets are
not in it: what was looked up stands there as it was written (`references`), and what was written
down itself is replaced, where it may be a secret: variables of agents, header fields of services,
the hashes of keys, and the password or token for NATS.
"""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING, Any

from msgspec import UNSET, Struct, structs

from gateway.config.keys import hash_key
from gateway.config.references import FILE_WORD, as_literal
from gateway.config.services import private_url
from gateway.config.toml import Table, to_tables

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.config.settings import Settings

HIDDEN = "***"
"""Stands for what is not shown."""

_NO_SECRET = re.compile(rf"(?:[A-Za-z]+ )?(?:\$\{{\w+\}}|{FILE_WORD.pattern})")
"""A header field that only says where its key is."""

_WITH_URL = re.compile(r"\{url\}[A-Za-z0-9/._-]{0,32}")
"""A variable of a service's that says where the service is, and no more."""

_HEAD = (
    "# The settings in force: defaults, the configuration and the command line together.",
    f'# Secrets are left out: "{HIDDEN}" stands for what was written down, and the hashes of keys',
    "# are those of no key.",
)


def print_settings(settings: Settings) -> str:
    """The settings as TOML."""
    shown = _Shown(settings.written)
    tables = Table(
        server=shown.table(settings.server, "server"),
        fleet=shown.table(settings.fleet, "fleet") if settings.fleet.role else Table(),
        agents=shown.tables(settings.agents, "agents"),
        services=shown.tables(settings.services, "services"),
        keys=shown.tables(settings.keys, "keys"),
    )
    if settings.keys_file:
        tables = Table({"keys_file": shown.value(settings.keys_file, "keys_file")} | tables)
    filled = Table({name: each for name, each in tables.items() if each})
    return "\n".join([*_HEAD, *to_tables(filled), ""])


class _Shown:
    """Makes plain values of settings, without secrets. `at` are the keys of a value, with dots."""

    def __init__(self, written: Mapping[str, str]) -> None:
        self._written = written

    def tables(self, settings: Mapping[str, Struct], at: str) -> Table:
        return Table({name: self.table(each, f"{at}.{name}") for name, each in settings.items()})

    def table(self, settings: Struct, at: str) -> Table:
        values = structs.asdict(settings).items()
        return Table(
            {name: self.value(each, f"{at}.{name}") for name, each in values if _is_set(each)}
        )

    def value(self, value: Any, at: str) -> Any:
        match value:
            case Struct():
                return self.table(value, at)
            case dict() if at == "fleet.hosts":
                return {name: self.value(each, f"{at}.{name}") for name, each in value.items()}
            case dict():
                return {name: self._hidden(each, f"{at}.{name}") for name, each in value.items()}
            case list() | tuple():
                return [self.value(each, f"{at}.{number}") for number, each in enumerate(value)]
            case str():
                return self._written.get(at) or _literal(value, at)
        return value

    def _hidden(self, text: str, at: str) -> str:
        """A text of a table that holds secrets, if it is not one that was looked up."""
        if ".header." in at:
            return text if _NO_SECRET.fullmatch(text) else HIDDEN
        if at.startswith("services.") and _WITH_URL.fullmatch(text):
            return text
        return self._written.get(at, HIDDEN)


def _is_set(value: Any) -> bool:
    return value is not None and value is not UNSET


def _literal(text: str, at: str) -> str:
    keys = at.split(".")
    if keys[0] == "keys" and keys[2] == "hash":
        return hash_key(secrets.token_bytes(32))
    if keys[0] == "agents" and keys[2] == "command":
        return text.replace("${", "$${")  # `file:` is nothing special there
    if at in {"fleet.password", "fleet.token"}:
        return HIDDEN if text else ""
    if at == "server.traces.endpoint":
        return private_url(text)
    return as_literal(text)
