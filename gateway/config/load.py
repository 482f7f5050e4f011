"""From a TOML file and the command line to settings.

Everything is checked before anything is started. An error names the key, the value that it holds
and what was expected.
"""

from __future__ import annotations

import os
import tomllib
from contextlib import suppress
from datetime import UTC, date, datetime, time
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from msgspec import inspect, structs

from gateway.config.extras import missing_extra
from gateway.config.fleet import FleetSettings
from gateway.config.keys import KEY_NAME, PREFIX, VARIABLE_KEY_NAME, KeySettings
from gateway.config.nearest import meant
from gateway.config.reading import MAX_CONFIGURATION_BYTES, read_bounded
from gateway.config.references import Referenced, References, without_references
from gateway.config.services import (
    SERVICE_NAME,
    Service,
    ServiceSettings,
    check_together,
    read_service,
)
from gateway.config.settings import AGENT_NAME, AgentSettings, ServerSettings, Settings
from protocol.wording import Mismatch, Problem, read_mismatch

if TYPE_CHECKING:
    from collections.abc import Mapping


NO_COMMAND = "false"
"""The command of a front's agents, which is never run: their hosts have the real one."""

FLEET_FILES = {"credentials": True, "nkey": True, "ca": False, "cert": False, "key": True}
"""Settings of `[fleet]` that name a file, and whether it holds a secret."""


TABLES = ("server", "fleet", "defaults", "agents", "services", "keys", "keys_file")


class ConfigError(Exception):
    """The settings cannot be used as they are; the message names what is wrong."""


def parse_agent_option(text: str) -> tuple[str, str]:
    """Split `NAME=COMMAND`. Raises ConfigError."""
    name, equals, command = text.partition("=")
    if not equals:
        raise ConfigError(f"--agent {text!r}: expected NAME=COMMAND")
    return name, command


def load(
    path: Path | None = None,
    *,
    agents: dict[str, str] | None = None,
    server: dict[str, Any] | None = None,
    fleet: dict[str, Any] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """Read the file, if any, merge the command line into it, and check the result.

    `agents` maps names to commands, each of which replaces the command that the file has. `server`
    overrides keys of `[server]`, and `fleet` those of `[fleet]`. References in the file are looked
    up in `environ` and in files (`references`). Raises ConfigError.
    """
    written = read_file(path) if path else {}
    _refuse_unknown("", written, TABLES)
    references = References(environ, _folder_of(path))
    tables = _resolved(references, written)
    defaults = _table(tables, "defaults")
    named = dict(_table(tables, "agents"))
    for name, command in (agents or {}).items():
        named[name] = {**_table(named, name, "agents."), "command": command}
    own = _fleet({**_table(tables, "fleet"), **(fleet or {})}, references)
    if own.role == "front":  # hosts have the agents, and their commands
        defaults = {"command": NO_COMMAND, **defaults}
    elif not named:
        raise ConfigError("no agent to serve; expected --agent NAME=COMMAND or [agents.NAME]")
    settings = Settings(
        fleet=own,
        server=_convert({**_table(tables, "server"), **(server or {})}, ServerSettings, "server"),
        agents={name: _agent(name, _table(named, name, "agents."), defaults) for name in named},
        services=_services(_table(tables, "services")),
        keys=read_key_tables(tables.get("keys", {}), "keys"),
        keys_file=_keys_file(tables.get("keys_file", "")),
        path=path,
        files=tuple(references.files),
        secret_files=(
            *(file for file, secret in references.files.items() if secret),
            *(
                path
                for name, secret in FLEET_FILES.items()
                if secret and (path := getattr(own, name))
            ),
        ),
    )
    _check_services(settings)
    _check_readers(settings)
    if (missing := missing_extra(settings)) is not None:
        raise ConfigError(missing)
    return _plain(_as_host(settings) if own.role == "host" else settings)


def _as_host(settings: Settings) -> Settings:
    """The settings without what serves callers: only fronts call a host's agents."""
    server = structs.replace(
        settings.server, dialects=[], docs=False, console=False, allow_anonymous=True, lame_duck=0
    )
    return structs.replace(settings, server=server)


def _plain(settings: Settings) -> Settings:
    """The settings as they are used: see `references`."""
    parts = ("server", "fleet", "agents", "services", "keys", "keys_file")
    written: dict[str, str] = {}
    plain = {name: without_references(getattr(settings, name), name, written) for name in parts}
    return structs.replace(settings, **plain, written=written) if written else settings


def _folder_of(path: Path | None) -> Path:
    """The folder that paths are relative to."""
    try:
        return Path(os.path.abspath(path)).parent if path else Path.cwd()
    except OSError as error:
        raise ConfigError(f"the gateway's working folder: {error.strerror}") from None


def _resolved(references: References, written: dict[str, Any]) -> dict[str, Any]:
    for name, agent in {**_table(written, "agents"), "": written.get("defaults")}.items():
        command = agent.get("command") if isinstance(agent, dict) else None
        if isinstance(command, str) and "${" in command:
            # What only a shell understands is no longer seen once it was split into words.
            where = f"agents.{name}" if name else "defaults"
            _convert({"command": command}, AgentSettings, where)
    try:
        tables: dict[str, Any] = references.resolve(written, "")
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return tables


def _fleet(table: dict[str, Any], references: References) -> FleetSettings:
    """The table `[fleet]`, with the paths made absolute."""
    if table and "role" not in table:
        raise ConfigError('fleet: no role; expected role = "front" or "host" (--role)')
    paths = {
        name: references.path(table[name])
        for name in FLEET_FILES
        if isinstance(table.get(name), str) and table[name]
    }
    return _convert({**table, **paths}, FleetSettings, "fleet")


def _services(tables: dict[str, Any]) -> dict[str, ServiceSettings]:
    for name in tables:
        if not SERVICE_NAME.fullmatch(name):
            raise ConfigError(
                f"service name {name!r}: expected small letters, digits, '_' and '-' within"
            )
    return {
        name: _convert(_table(tables, name, "services."), ServiceSettings, f"services.{name}")
        for name in tables
    }


def _check_services(settings: Settings) -> None:
    for name, agent in settings.agents.items():
        try:
            check_together(agent.services, settings.services)
        except ValueError as error:
            raise ConfigError(f"agents.{name}.{error}") from None
    own = settings.server.port
    for name, service in settings.services.items():
        if own and service.port == own and service.is_this_machine(settings.server.host):
            raise ConfigError(
                f"services.{name}.url is {service.shown_address!r}, which is the gateway itself: "
                "agents never reach it"
            )


def _check_readers(settings: Settings) -> None:
    """The keys that may read the metrics exist, unless they stand in a file that may change."""
    allowed = settings.server.metrics
    if isinstance(allowed, list) and not settings.keys_file:
        for name in allowed:
            if name not in settings.keys and name != VARIABLE_KEY_NAME:
                shown = name.written if isinstance(name, Referenced) else name
                raise ConfigError(f"server.metrics: there is no [keys.{shown}]")


def read_services(settings: Settings, agent: str, environ: Mapping[str, str]) -> list[Service]:
    """The services of an agent, with their keys; `environ` is the gateway's. Raises ConfigError."""
    try:
        return [
            read_service(name, settings.services[name], environ)
            for name in settings.agents[agent].services
        ]
    except ValueError as error:
        raise ConfigError(str(error)) from None


def read_key_tables(tables: Any, where: str) -> dict[str, KeySettings]:
    """The tables `[keys.NAME]`, which stand at `where`. Raises ConfigError."""
    # What has been found is not shown here: it may be a key.
    if not isinstance(tables, dict):
        raise ConfigError(f"{where}: expected tables [keys.NAME]")
    for name, table in tables.items():
        if not KEY_NAME.match(name):
            raise ConfigError(
                f"{where}: a key's name has other characters than letters, digits, '_' and '-', or "
                "more than 64"
            )
        if name.startswith(PREFIX):
            raise ConfigError(
                f"{where}: a key's name begins with {PREFIX}, as keys do: names stand in logs, and "
                "a key is not to be written down here"
            )
        if not isinstance(table, dict):
            raise ConfigError(f"{where}.{name}: expected a table")
    return {
        name: _convert(_with_moment(table), KeySettings, f"{where}.{name}")
        for name, table in tables.items()
    }


def _with_moment(table: dict[str, Any]) -> dict[str, Any]:
    """The table of a key, in which `expires` may be a day: it is the beginning of that day, UTC."""
    day = table.get("expires")
    if isinstance(day, str):
        with suppress(ValueError):  # else a time, or an error that is told with its place
            day = date.fromisoformat(day)
    if isinstance(day, date) and not isinstance(day, datetime):
        return {**table, "expires": datetime.combine(day, time(), UTC)}
    return table


def _keys_file(path: Any) -> str:
    if not isinstance(path, str) or "\0" in path or (path and not os.path.isabs(path)):
        raise ConfigError(f"keys_file: expected an absolute path, got {path!r}")
    return path


def _agent(name: str, own: dict[str, Any], defaults: dict[str, Any]) -> AgentSettings:
    where = f"agents.{name}"
    if not AGENT_NAME.match(name):
        raise ConfigError(f"agent name {name!r}: expected letters, digits, '_' and '-' only")
    # Each table is checked by itself first, so that an error names the table at fault.
    _convert({"command": "x", **defaults}, AgentSettings, "defaults")
    _convert({"command": "x", **own}, AgentSettings, where)
    if "command" not in own and "command" not in defaults:
        raise ConfigError(f"{where}: no command; expected a string, or a list of words")
    return _convert(_merge(defaults, own), AgentSettings, where)


def _merge(defaults: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    merged = {**defaults, **own}
    for key, value in defaults.items():
        if isinstance(value, dict) and isinstance(own.get(key), dict):
            merged[key] = _merge(value, own[key])
    return merged


_T = TypeVar("_T")

_SECRET = frozenset({"env", "hash", "header", "password", "token"})
"""Keys below which a text may be a secret: messages leave it out."""


def _convert(
    value: dict[str, Any],
    into: type[_T],
    where: str,
    looked_up: Mapping[tuple[str, ...], Referenced] = MappingProxyType({}),
) -> _T:
    """`looked_up` are texts in place of which numbers stand, by their keys."""
    try:
        return msgspec.convert(value, into)
    except (msgspec.ValidationError, ValueError) as error:
        mismatch = read_mismatch(error)
        keys = mismatch.keys
        found, kind = _at(keys, value, inspect.type_info(into))
        if isinstance(found, Referenced) and (plain := _as_number(found)) is not None:
            return _convert(
                _with(value, keys, plain), into, where, {**looked_up, tuple(keys): found}
            )
        found = looked_up.get(tuple(keys), found)
        reason = _readable(mismatch, _masked(found) if _SECRET & {*keys} else found, kind)
        raise ConfigError(f"{'.'.join([where, *keys])}: {reason}") from None


def _as_number(text: str) -> float | bool | None:
    """The number, or true or false, that a text holds: all that a variable can hold is text."""
    try:
        value = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return None
    plain = value["value"] if len(value) == 1 else None
    return plain if isinstance(plain, int | float) else None


def _with(value: dict[str, Any], keys: list[str], plain: Any) -> dict[str, Any]:
    """The value with another one at the path `keys`."""
    first, *rest = keys
    return {**value, first: _with(value[first], rest, plain) if rest else plain}


def _masked(found: Any) -> Any:
    """The value, with asterisks for each text in it."""
    match found:
        case str():
            return "***"
        case dict():
            return {key: _masked(value) for key, value in found.items()}
        case list():
            return [_masked(value) for value in found]
    return found


_MOMENT = "a date such as 2030-01-31, or a time with an offset such as 2030-01-31T12:00:00Z"

_ABOVE_TABLES = "; it belongs at the top of the file, above all tables"


def _at(keys: list[str], value: Any, kind: inspect.Type) -> tuple[Any, inspect.Type]:
    """The value at the path `keys` in `value`, and the type expected there."""
    for key in keys:
        value = value.get(key)
        table = _table_type(kind)
        if table is not None:
            kind = next(field.type for field in table.fields if field.encode_name == key)
    return value, kind


def _table_type(kind: inspect.Type) -> inspect.StructType | None:
    """The table that may stand there, perhaps instead of a plain value: `state = true`."""
    kinds = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    return next((each for each in kinds if isinstance(each, inspect.StructType)), None)


def _readable(mismatch: Mismatch, found: Any, kind: inspect.Type) -> str:
    """The mismatch in words, with the value found and the alternatives."""
    table = _table_type(kind)
    if _is_moment(kind):
        return f"expected {_MOMENT}, got {str(found)!r}"
    match mismatch.problem:
        case Problem.UNKNOWN_KEY if table is not None:
            names = [field.encode_name for field in table.fields]
            unknown = mismatch.subject.strip("`'")
            hint = _ABOVE_TABLES if unknown == "keys_file" else meant(unknown, names)
            return f"unknown key {mismatch.subject}; expected one of {', '.join(names)}{hint}"
        case Problem.NOT_A_CHOICE if isinstance(kind, inspect.ListType) and isinstance(found, list):
            wrong = [each for each in found if each not in _words(kind.item_type)]
            return _readable(mismatch, wrong[0] if wrong else found, kind.item_type)
        case Problem.NOT_A_CHOICE:
            return f"expected {_choices(kind)}, got {found!r}{meant(found, _words(kind))}"
        case Problem.WRONG_TYPE:
            return f"expected {mismatch.subject.replace('`', '')}, got {found!r}"
    return mismatch.sentence


def _is_moment(kind: inspect.Type) -> bool:
    kinds = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    return any(isinstance(each, inspect.DateTimeType) for each in kinds)


def _words(kind: inspect.Type) -> list[object]:
    """The texts that the type allows."""
    match kind:
        case inspect.UnionType():
            return [word for each in kind.types for word in _words(each)]
        case inspect.LiteralType():
            return list(kind.values)
    return []


def _choices(kind: inspect.Type) -> str:
    match kind:
        case inspect.UnionType():
            said = [each for each in kind.types if not isinstance(each, inspect.NoneType)]
            return " or ".join(map(_choices, said))
        case inspect.LiteralType():
            return ", ".join(map(repr, kind.values))
        case inspect.BoolType():
            return "true or false"
        case inspect.ListType():
            return "a list"
    return "a number"


def read_file(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises ConfigError."""
    try:
        return tomllib.loads(read_bounded(path, MAX_CONFIGURATION_BYTES).decode())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except RecursionError:
        raise ConfigError(f"{path}: not valid TOML: too many brackets within each other") from None
    except ValueError as error:  # of TOML, of UTF-8, or of a number with thousands of digits
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


def _table(tables: dict[str, Any], key: str, where: str = "") -> dict[str, Any]:
    value = tables.get(key, {})
    if not isinstance(value, dict):
        at = f"{where}{key}"
        shown = _masked(value) if at.startswith("services") else value  # it may be a key
        raise ConfigError(f"{at}: expected a table, got {shown!r}")
    return value


def _refuse_unknown(where: str, table: dict[str, Any], known: tuple[str, ...]) -> None:
    for key in table:
        if key not in known:
            names = ", ".join(f"[{name}]" for name in known)
            raise ConfigError(f"{where}{key}: unknown table; expected {names}{meant(key, known)}")
