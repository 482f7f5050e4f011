"""All keys of callers together: of the configuration, a file of their own, and the environment."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.config.keys import (
    ANY_AGENT,
    KEY_VARIABLE,
    MAX_KEY_CHARACTERS,
    MIN_KEY_CHARACTERS,
    VARIABLE_KEY_NAME,
    CallerKeys,
    KeySettings,
    hash_key,
    is_key,
)
from gateway.config.load import ConfigError, read_file, read_key_tables
from gateway.config.nearest import meant

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gateway.config.settings import Settings


def read_keys(settings: Settings, environ: Mapping[str, str]) -> CallerKeys:
    """All keys: of the configuration, of its `keys_file`, and of the gateway's environment.

    Raises ConfigError. No error shows a key.
    """
    found = dict(settings.keys)
    sources = [(settings.keys_file, _read_keys_file(settings.keys_file)), *_variable(environ)]
    for source, keys in sources:
        for name, key in keys.items():
            if name in found:
                raise ConfigError(f"{source}: there is another key with the name {name!r}")
            found[name] = key
    _check_keys(settings, found)
    return CallerKeys(found, on=bool(found or settings.keys_file))


def _read_keys_file(path: str) -> dict[str, KeySettings]:
    if not path:
        return {}
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise ConfigError(f"keys_file: {path}: {error.strerror}") from None
    # Whoever may write there lets in whom they like.
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(f"keys_file: others may write to {path}; expected chmod go-w")
    tables = read_file(Path(path))
    for key in tables:
        if key != "keys":
            raise ConfigError(f"{path}: expected tables [keys.NAME] and nothing else")
    return read_key_tables(tables.get("keys", {}), f"{path}: keys")


def _variable(environ: Mapping[str, str]) -> Iterator[tuple[str, dict[str, KeySettings]]]:
    """The key of `KEY_VARIABLE`, if it is set."""
    key = environ.get(KEY_VARIABLE)
    if key is None:
        return
    if not is_key(key.encode("utf-8", "surrogateescape")):
        raise ConfigError(
            f"{KEY_VARIABLE} is set, and is no key: expected {MIN_KEY_CHARACTERS} to "
            f"{MAX_KEY_CHARACTERS} visible ASCII characters, as `gateway key new` prints them"
        )
    yield KEY_VARIABLE, {VARIABLE_KEY_NAME: KeySettings(hash=hash_key(key.encode()))}


def _check_keys(settings: Settings, found: Mapping[str, KeySettings]) -> None:
    for name, agent in settings.agents.items():
        keyless = not found and not settings.keys_file and settings.fleet.role != "host"
        if agent.session_by == "key" and keyless:
            raise ConfigError(f"agents.{name}.session_by is 'key', and there are no [keys.NAME]")
        if KEY_VARIABLE in agent.sandbox.env_allow:
            raise ConfigError(
                f"agents.{name}.sandbox.env_allow: {KEY_VARIABLE} is a caller's, which no agent is "
                "to have"
            )
    owners: dict[str, str] = {}
    for name, key in found.items():
        unknown = {*key.agents} - {ANY_AGENT, *settings.agents}
        if unknown:
            known = ", ".join(['"*"', *settings.agents])
            at = f"keys.{name}.agents.{key.agents.index(min(unknown))}"
            shown = (
                settings.written.get(at, min(unknown)) if name in settings.keys else min(unknown)
            )
            raise ConfigError(
                f"keys.{name}.agents: there is no agent {shown!r}, expected some of {known}"
                f"{meant(min(unknown), settings.agents)}"
            )
        for each in key.hashes:
            other = owners.setdefault(each, name)
            if other != name:
                raise ConfigError(
                    f"keys.{name}: {other!r} has the same hash: nobody could tell whose"
                )
