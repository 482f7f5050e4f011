"""The settings, as checked and immutable values: what may be said of an agent and of the server.

Owns names, defaults and the checks that one table needs. Does not know where settings come from, or
what is done with them.
"""

from __future__ import annotations

import math
import re
import shlex
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from gateway.config.hosts import check_host_pattern
from gateway.config.sandbox import SandboxSettings, parse_size

AGENT_NAME = re.compile(r"[a-zA-Z0-9_-]+\Z")
"""The reference system's rule for agent names."""

LAME_DUCK_SECONDS = 5.0
"""Load balancers look at `/ready` every few seconds."""

Seconds = Annotated[float, Meta(ge=0)]
Clock = Seconds | Literal["off"]
Count = Annotated[int, Meta(ge=0)]
PositiveCount = Annotated[int, Meta(ge=1)]
Port = Annotated[int, Meta(ge=0, le=65535)]


def seconds(clock: Clock) -> float:
    """A clock's length; infinity when it is off."""
    return math.inf if clock in {0, "off"} else float(clock)


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
    hosts: list[str] = []
    """Hosts that are answered besides those that belong to `host`: names, IP addresses, `*.` and a
    name for all names below it, or `*` for any. Without ports."""
    sandbox: Literal["strict", "off"] = "strict"
    max_body: str = "7M"
    """The largest request body. With its envelope it must fit into one line of the wire, 8 MiB."""
    keep_alive: Annotated[float, Meta(gt=0)] = 75
    """How long a connection may be silent between two requests, in seconds. Longer than a proxy in
    front keeps its connections (nginx: 60 s), so that the proxy ends them, and no request is sent
    into an end of ours."""
    drain: Clock = 30
    """How long running requests have at shutdown."""
    lame_duck: Seconds | None = None
    """How long everything is still served at shutdown, before the drain, while `/ready` is 503
    already. By default 5 seconds, and none where only this machine can connect."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    def __post_init__(self) -> None:
        parse_size("max_body", self.max_body)
        for pattern in self.hosts:
            try:
                check_host_pattern(pattern)
            except ValueError:
                raise ValueError(
                    f"hosts has {pattern!r}, expected a name such as 'gateway.example', "
                    "'*.example.org', an IP address or '*', without a port"
                ) from None

    @property
    def drain_seconds(self) -> float:
        """Infinity when it is off."""
        return seconds(self.drain)

    def lame_duck_seconds(self, *, loopback: bool) -> float:
        """`loopback`: whether only this machine can connect, and no load balancer has to look."""
        default = 0 if loopback else LAME_DUCK_SECONDS
        return default if self.lame_duck is None else self.lame_duck

    @property
    def max_body_bytes(self) -> int:
        return parse_size("max_body", self.max_body)


class Settings(Struct, frozen=True, kw_only=True):
    """Everything, checked and merged."""

    server: ServerSettings = ServerSettings()
    agents: dict[str, AgentSettings] = {}
    path: Path | None = None
    """The file that they were read from."""
