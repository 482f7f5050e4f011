"""What the gateway is told to serve: the settings, their defaults, and where they may come from.

A TOML file and the command line give the same settings. Everything is checked before anything is
started, and an error names the key, what it holds and what was expected. Knows nothing of processes
or of HTTP.
"""

from __future__ import annotations

import math
import re
import shlex
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct, inspect

from gateway.sandbox.settings import SandboxSettings, parse_size

AGENT_NAME = re.compile(r"[a-zA-Z0-9_-]+\Z")
"""The reference system's rule for agent names."""

Seconds = Annotated[float, Meta(ge=0)]
Clock = Seconds | Literal["off"]
Count = Annotated[int, Meta(ge=0)]
PositiveCount = Annotated[int, Meta(ge=1)]
Port = Annotated[int, Meta(ge=0, le=65535)]


def seconds(clock: Clock) -> float:
    """A clock's length; infinity when it is off."""
    return math.inf if clock in {0, "off"} else float(clock)


class ConfigError(Exception):
    """The settings cannot be used as they are; the message names what is wrong."""


class Clocks(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long each part of a request or of a worker's life may take: seconds, or 0 or "off"."""

    start: Clock = 60
    """Spawn to `ready` or first line, counted from its first request where that came later. An
    agent without the handshake gives its first answer within it."""
    queue: Clock = 30
    """Admitted to given to a worker."""
    first: Clock = 300
    """Given to a worker to its first word: a model may think for minutes."""
    idle: Clock = 120
    """Between two words of a stream."""
    total: Clock = 3600
    """Admitted to the end."""
    cancel: Clock = 5
    """What a worker has, after a cancel, before it is replaced."""
    write: Clock = 30
    """How long a client may leave a stream unread."""
    stop: Clock = 5
    """Each step of a worker's shutdown: stdin closed, SIGTERM, SIGKILL."""

    def seconds(self, name: str) -> float:
        """The clock's length; infinity when it is off."""
        return seconds(getattr(self, name))


class Workers(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many processes an agent has."""

    min: Count = 1
    """Kept running always; 0 starts them on demand and lets an idle agent go cold."""
    max: PositiveCount = 4
    spare: Count = 0
    """Kept started and idle ahead of need, within `max`."""

    def __post_init__(self) -> None:
        if self.min > self.max:
            raise ValueError(f"min is {self.min} and max is {self.max}; expected min <= max")
        if self.spare > self.max:
            raise ValueError(f"spare is {self.spare} and max is {self.max}; expected spare <= max")


class Restart(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What follows when workers fail: backoff, then a circuit breaker. Times are in seconds."""

    backoff: Seconds = 0.1
    """Before the second start in a row after failures; doubled for each further one."""
    backoff_max: Seconds = 30
    failures: PositiveCount = 5
    """This many failures in a row within `window` open the circuit breaker."""
    window: Seconds = 60
    cooldown: Seconds = 15
    """How long the breaker stays open before one probe."""
    stable: Seconds = 10
    """A worker that lived this long since its start clears the count when it fails."""


class AgentSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One agent: its command, and everything that may be set per agent."""

    command: str | list[str]
    description: str | None = None
    workers: Workers = Workers()
    concurrency: PositiveCount = 32
    """Requests at a time per worker; what the worker's `ready` declares, if that is less."""
    queue: Count = 100
    """How many may wait for a worker; one more is refused."""
    max_requests: Count = 0
    """A worker is replaced after this many (0: never); spread by up to a tenth."""
    max_age: Clock = "off"
    """A worker is replaced after this long; spread by up to a tenth."""
    max_rss: str | None = None
    """A worker whose resident memory is over this ("512M") is replaced when it is next idle."""
    idle_timeout: Clock = 60
    """A worker over `min` that had nothing to do for this long is stopped."""
    session: Literal["none", "sticky", "exclusive"] = "none"
    """What `context.conversation_id` binds: nothing, the same worker while it lives, or a worker
    that no other conversation ever enters."""
    session_timeout: Clock = 600
    """An exclusive conversation that was silent for this long is ended."""
    on_disconnect: Literal["cancel", "continue"] = "cancel"
    clocks: Clocks = Clocks()
    restart: Restart = Restart()
    sandbox: SandboxSettings = SandboxSettings()

    def __post_init__(self) -> None:
        if not self.argv:
            raise ValueError("command is empty")
        if self.max_rss is not None:
            parse_size("max_rss", self.max_rss)

    @property
    def argv(self) -> tuple[str, ...]:
        """The command's words."""
        if isinstance(self.command, str):
            return tuple(shlex.split(self.command))
        return tuple(self.command)

    @property
    def max_rss_bytes(self) -> float:
        """Infinity when there is no limit."""
        return math.inf if self.max_rss is None else parse_size("max_rss", self.max_rss)


class ServerSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What belongs to the gateway as a whole."""

    host: str = "127.0.0.1"
    port: Port = 8080
    sandbox: Literal["strict", "off"] = "strict"
    max_body: str = "7M"
    """The largest request body. With its envelope it must fit into one line of the wire, 8 MiB."""
    drain: Clock = 30
    """How long running requests have at shutdown."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    def __post_init__(self) -> None:
        parse_size("max_body", self.max_body)

    @property
    def drain_seconds(self) -> float:
        """Infinity when it is off."""
        return seconds(self.drain)

    @property
    def max_body_bytes(self) -> int:
        return parse_size("max_body", self.max_body)


class Settings(Struct, frozen=True, kw_only=True):
    """Everything, checked and merged."""

    server: ServerSettings = ServerSettings()
    agents: dict[str, AgentSettings] = {}
    path: Path | None = None
    """The file that they were read from."""


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
) -> Settings:
    """Read the file, if any, add what the command line gives, and check the whole.

    `agents` are commands by name; one that the file has, too, replaces that one's command. `server`
    overrides keys of `[server]`. Raises ConfigError.
    """
    tables = _read_file(path) if path else {}
    _refuse_unknown("", tables, ("server", "defaults", "agents"))
    defaults = _table(tables, "defaults")
    named = dict(_table(tables, "agents"))
    for name, command in (agents or {}).items():
        named[name] = {**_table(named, name, "agents."), "command": command}
    if not named:
        raise ConfigError("no agent to serve; expected --agent NAME=COMMAND or [agents.NAME]")
    return Settings(
        server=_convert({**_table(tables, "server"), **(server or {})}, ServerSettings, "server"),
        agents={name: _agent(name, _table(named, name, "agents."), defaults) for name in named},
        path=path,
    )


def _agent(name: str, own: dict[str, Any], defaults: dict[str, Any]) -> AgentSettings:
    where = f"agents.{name}"
    if not AGENT_NAME.match(name):
        raise ConfigError(f"agent name {name!r}: expected letters, digits, '_' and '-' only")
    # Each table by itself first, so that an error names the table that it stands in.
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


def _convert(value: dict[str, Any], into: type[_T], where: str) -> _T:
    try:
        return msgspec.convert(value, into)
    except (msgspec.ValidationError, ValueError) as error:
        reason, _, place = str(error).partition(" - at `$")
        keys = [key for key in re.sub(r"\[.*?\]|`", "", place).split(".") if key]
        found, kind = _at(keys, value, inspect.type_info(into))
        raise ConfigError(f"{'.'.join([where, *keys])}: {_readable(reason, found, kind)}") from None


def _at(keys: list[str], value: Any, kind: inspect.Type) -> tuple[Any, inspect.Type]:
    """The value that stands there, and what was expected of it."""
    for key in keys:
        value = value.get(key)
        if isinstance(kind, inspect.StructType):
            kind = next(field.type for field in kind.fields if field.encode_name == key)
    return value, kind


def _readable(reason: str, found: Any, kind: inspect.Type) -> str:
    """msgspec's words, with the value and what might stand there instead."""
    if reason.startswith("Object contains unknown field") and isinstance(kind, inspect.StructType):
        known = ", ".join(field.encode_name for field in kind.fields)
        return f"unknown key {reason.rpartition(' ')[2]}; expected one of {known}"
    if reason.startswith("Invalid enum value"):
        return f"expected {_choices(kind)}, got {found!r}"
    if reason.startswith("Expected"):
        return f"expected {reason.partition(', got')[0][9:].replace('`', '')}, got {found!r}"
    return reason


def _choices(kind: inspect.Type) -> str:
    if isinstance(kind, inspect.UnionType):
        return " or ".join(_choices(each) for each in kind.types)
    return (
        ", ".join(map(repr, kind.values)) if isinstance(kind, inspect.LiteralType) else "a number"
    )


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


def _table(tables: dict[str, Any], key: str, where: str = "") -> dict[str, Any]:
    value = tables.get(key, {})
    if not isinstance(value, dict):
        raise ConfigError(f"{where}{key}: expected a table, got {value!r}")
    return value


def _refuse_unknown(where: str, table: dict[str, Any], known: tuple[str, ...]) -> None:
    for key in table:
        if key not in known:
            names = ", ".join(f"[{name}]" for name in known)
            raise ConfigError(f"{where}{key}: unknown table; expected {names}")
