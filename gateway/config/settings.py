"""The settings of the server and of an agent, as immutable values that have been checked.

This module owns names, defaults and the checks within one table. It does not know where settings
come from, or what is done with them.
"""

from __future__ import annotations

import math
import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from msgspec import Meta, Struct, field

from gateway.config.fleet import FleetSettings
from gateway.config.hosts import check_host_pattern
from gateway.config.keys import KeySettings
from gateway.config.limits import LimitSettings
from gateway.config.origins import ANY_ORIGIN, check_origin
from gateway.config.sandbox import SandboxSettings, parse_size
from gateway.config.services import ServiceSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

AGENT_NAME = re.compile(r"[a-zA-Z0-9_-]+\Z")
"""The reference system's rule for agent names."""

LAME_DUCK_SECONDS = 5.0
"""Load balancers look at `/ready` every few seconds."""

LEAST_RUN_MEMORY = 16 * 1024 * 1024
"""Bytes: an answer is a line of the wire, which is 8 MiB at most, and twice that once every
character is escaped."""

_SHELL_OPERATORS = frozenset(("&", "&&", ";", "<", "<<", ">", ">>", "|", "||", "|&"))
_SHELL_REDIRECTION = re.compile(r"[0-9]*(?:<<?|>>?)(?:&[0-9-])?|&>>?")

Seconds = Annotated[float, Meta(ge=0)]
Clock = Seconds | Literal["off"]
Count = Annotated[int, Meta(ge=0)]
PositiveCount = Annotated[int, Meta(ge=1)]
Port = Annotated[int, Meta(ge=0, le=65535)]


def seconds(clock: Clock) -> float:
    """A clock's length; infinity when it is off."""
    return math.inf if clock in {0, "off"} else float(clock)


class Clocks(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Time limits on the phases of a request and of a worker: seconds; 0 or "off" for none."""

    start: Clock = 60
    """From a worker's spawn, or its first request if that came later, to its `ready` or first line.
    An agent without the handshake must answer its first request within this time."""
    queue: Clock = 30
    """From a request's admission to its assignment to a worker."""
    first: Clock = 300
    """From the assignment to the first output: a model may think for minutes."""
    idle: Clock = 120
    """Between two chunks of a stream."""
    total: Clock = 3600
    """From a request's admission to its end."""
    cancel: Clock = 5
    """Grace period for a worker to end a cancelled request, before the worker is replaced."""
    write: Clock = 30
    """How long a client may leave a response unread."""
    stop: Clock = 5
    """Wait after each step of a worker's shutdown: stdin closed, SIGTERM, SIGKILL."""

    def seconds(self, name: str) -> float:
        """The clock's length; infinity when it is off."""
        return seconds(getattr(self, name))


class Workers(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many processes an agent has."""

    min: Count = 1
    """Always kept running; with 0, workers start on demand and an idle agent has none."""
    max: PositiveCount = 4
    """Never more of them than that."""
    spare: Count = 0
    """Idle workers kept ready ahead of need, within `max`."""

    def __post_init__(self) -> None:
        if self.min > self.max:
            raise ValueError(f"min is {self.min} and max is {self.max}; expected min <= max")
        if self.spare > self.max:
            raise ValueError(f"spare is {self.spare} and max is {self.max}; expected spare <= max")


class Restart(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Restarts after failures: backoff, then a circuit breaker. Times are in seconds."""

    backoff: Seconds = 0.1
    """Delay of the start after two failures in a row; doubled for each further failure."""
    backoff_max: Seconds = 30
    """The longest such delay."""
    failures: PositiveCount = 5
    """This many failures in a row within `window` open the circuit breaker."""
    window: Seconds = 60
    """See `failures`."""
    cooldown: Seconds = 15
    """How long the breaker stays open before one request probes the agent."""
    stable: Seconds = 10
    """A failure of a worker that lived at least this long resets the count before it is counted."""


_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhdw])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class StateSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Folders that outlive an agent's workers."""

    size: str | int = 0
    """Bytes that one folder may hold; 0 is no limit. No worker starts in one that holds more."""
    ttl: str | Clock = "off"
    """A folder is removed when nobody has worked in it for so long: seconds, or "30d"."""

    def __post_init__(self) -> None:
        parse_size("size", self.size)
        _ = self.ttl_seconds

    @property
    def size_bytes(self) -> int:
        return parse_size("size", self.size)

    @property
    def ttl_seconds(self) -> float:
        """The length of `ttl`; infinity when it is off. Raises ValueError."""
        if self.ttl == "off":
            return math.inf
        if not isinstance(self.ttl, str):
            return seconds(self.ttl)
        match = _DURATION.fullmatch(self.ttl)
        if match is None or not float(match[1]):
            raise ValueError(
                f'ttl is {self.ttl!r}, expected a time such as "30d" or "12h", seconds, or "off"'
            )
        return float(match[1]) * _UNITS[match[2]]


class AgentSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One agent: its command and its settings."""

    command: str | list[str]
    """What starts a worker, without a shell: one text, which is split as a shell splits words, or a
    list of words."""
    description: str | None = None
    """For people. The default is what a worker declares."""
    workers: Workers = Workers()
    concurrency: PositiveCount = 32
    """Concurrent requests per worker; a worker's `ready` may declare fewer."""
    queue: Count = 100
    """Requests that may wait for a worker; any further one is refused."""
    max_requests: Count = 0
    """A worker is replaced after this many requests (0: never), shortened at random by up to a
    tenth."""
    max_age: Clock = "off"
    """A worker is replaced at this age, shortened at random by up to a tenth."""
    max_rss: str | None = None
    """A worker with more resident memory than this ("512M") is replaced when it is next idle."""
    idle_timeout: Clock = 60
    """A worker beyond `min` that was idle for this long is stopped."""
    session: Literal["none", "sticky", "exclusive"] = "sticky"
    """What `context.conversation_id` binds requests to: nothing, the same worker while it lives, or
    a worker that serves no other conversation. Frameworks keep conversations in memory, and an
    agent with several workers would forget most of them under "none"."""
    session_by: Literal["conversation", "user", "key"] = "conversation"
    """What takes the conversation's place in `session` and `state`: all requests of one
    `context.user_id`, or with one key, which may share a process and a folder."""
    session_timeout: Clock = 600
    """A worker beyond `min` is kept idle for this long (not for `idle_timeout`) after a request
    of a conversation; under "exclusive" every worker that has one."""
    state: bool | StateSettings = False
    """Whether the agent has a folder that outlives its workers, which is their HOME. Under session
    "exclusive", each conversation has one of its own instead."""
    on_disconnect: Literal["cancel", "continue"] = "cancel"
    """What becomes of a request whose client leaves: its worker is told to end it, or it goes on as
    a run, which the client can come back for."""
    clocks: Clocks = Clocks()
    restart: Restart = Restart()
    limits: LimitSettings = LimitSettings()
    """What all callers together may ask of the agent."""
    sandbox: SandboxSettings = SandboxSettings()
    services: tuple[str, ...] = ()
    """Names of `[services.NAME]` that the agent may use, without seeing their keys."""

    def __post_init__(self) -> None:
        if not self.argv:
            raise ValueError("command is empty")
        if isinstance(self.command, str) and (found := _shell_operator(self.command)):
            raise ValueError(
                f"command has {found!r}, which only a shell understands, and there is none: write "
                f"sh -c {shlex.quote(self.command)}, or quote it if it is an argument"
            )
        if self.max_rss is not None:
            parse_size("max_rss", self.max_rss)

    @property
    def argv(self) -> tuple[str, ...]:
        """The command, split into words."""
        if isinstance(self.command, str):
            return tuple(shlex.split(self.command))
        return tuple(self.command)

    @property
    def kept(self) -> StateSettings | None:
        """The settings of the folders that outlive workers; None where there are none."""
        if isinstance(self.state, bool):
            return StateSettings() if self.state else None
        return self.state

    @property
    def state_per_conversation(self) -> bool:
        return self.kept is not None and self.session == "exclusive"

    @property
    def max_rss_bytes(self) -> float:
        """The limit in bytes; infinity when there is none."""
        return math.inf if self.max_rss is None else parse_size("max_rss", self.max_rss)


def _shell_operator(command: str) -> str | None:
    """The first word of the command that is a shell's operator and stands there without quotes."""
    for word in shlex.split(command, posix=False):  # keeps quotes
        bare = word.removesuffix(";") if word.endswith(";") and word[0] not in "'\"" else word
        if word in _SHELL_OPERATORS or bare != word or _SHELL_REDIRECTION.fullmatch(word):
            return word[len(bare) :] or word
    return None


class RunSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is kept of requests that do not need their clients, until the gateway ends."""

    max: PositiveCount = 10_000
    """Runs that go on or are kept. One more takes the place of one that has ended and has no
    Idempotency-Key; where there is none, it is refused."""
    ttl: Annotated[float, Meta(gt=0)] = 600
    """How long a run is kept after its end, in seconds."""
    memory: str = "64M"
    """What runs keep of their answers, all together. One stream keeps at most a quarter of it."""

    def __post_init__(self) -> None:
        if parse_size("memory", self.memory) < LEAST_RUN_MEMORY:
            raise ValueError(
                f"memory is {self.memory!r}, expected at least {LEAST_RUN_MEMORY >> 20}M: "
                "one answer may be that large"
            )

    @property
    def memory_bytes(self) -> int:
        return parse_size("memory", self.memory)


class TraceSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where traces are sent to."""

    endpoint: str = ""
    """The base URL of a collector that takes OTLP over HTTP, such as "http://127.0.0.1:4318". The
    default is OTEL_EXPORTER_OTLP_ENDPOINT, and without that this port of this machine."""

    def __post_init__(self) -> None:
        if self.endpoint and not re.match(r"https?://[^/\s]", self.endpoint):
            raise ValueError(
                f'endpoint is {self.endpoint!r}, expected a URL such as "http://127.0.0.1:4318"'
            )


DialectName: TypeAlias = Literal["native", "openai", "anthropic", "a2a", "ag-ui", "mcp", "ui"]
"""See `front/dialects.py`."""


class ServerSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the gateway as a whole."""

    host: str = "127.0.0.1"
    """Where to listen: an address, or a name, which is listened on at all of its addresses."""
    port: Port = 8080
    """0 picks a free one."""
    hosts: list[str] = []
    """Hosts that are answered besides those that belong to `host`: names, IP addresses, `*.` and a
    name for all names below it, or `*` for any. Without ports."""
    allow_anonymous: bool = False
    """Whether anybody who can connect may call the agents, where other machines can and there are
    no keys."""
    cors: list[str] = []
    """Origins whose web pages may call the gateway, as browsers write them; `*` alone for all."""
    connections_per_address: Count = 0
    """Connections that one address may have at a time, and with IPv6 all that have the same first
    64 bits; 0 for any number. Those over the loopback device are not counted."""
    dialects: list[DialectName] = field(default_factory=lambda: ["native", "openai"])
    """The client protocols in which agents can be called: the gateway's own, OpenAI's API, and
    others. `mcp`, the Model Context Protocol, needs the extra of that name."""
    sandbox: Literal["strict", "off"] = "strict"
    """The isolation of every worker: never weaker than this. `off` is none."""
    max_body: str = "7M"
    """The largest request body. With its envelope it must fit on one line of the wire, 8 MiB."""
    keep_alive: Annotated[float, Meta(gt=0)] = 75
    """How long a connection may be silent between two requests, in seconds. Longer than a proxy in
    front keeps its connections (nginx: 60 s), so that the proxy ends them, and no request is sent
    into an end of ours."""
    drain: Clock = 30
    """How long running requests may take to finish at shutdown."""
    lame_duck: Seconds | None = None
    """How long requests are still served at shutdown, before the drain, while `/ready` is already
    503. The default is 5 seconds, and none where only this machine can connect."""
    state_dir: str = ""
    """Where agents' folders are kept that outlive their workers. The default is the first of
    $STATE_DIRECTORY (systemd's), /var/lib/agent-gateway for root, $XDG_STATE_HOME/agent-gateway and
    ~/.local/state/agent-gateway."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """From which level on records are written."""
    record: str = ""
    """A folder in which what is said with the workers is recorded, request by request."""
    record_size: str = "1G"
    """What the recordings may take; the oldest are removed."""
    metrics: bool | Literal["open"] | list[str] = False
    """Whether `/metrics` is served to Prometheus. Where there are keys, to those that may call
    every agent; to the keys of these names; or, "open", to whoever can connect."""
    log_format: Literal["auto", "json", "text"] = "auto"
    """How records are written: `auto` is text on a terminal, and JSON anywhere else."""
    access_log: bool = True
    """One line for each request."""
    log_payloads: bool = False
    """Have the access log hold the beginnings of requests and answers: whatever people say."""
    traces: bool | TraceSettings = False
    """Whether requests are traced. What is not said here is taken from OpenTelemetry's own
    variables (OTEL_*), which alone switch nothing on."""
    runs: RunSettings = RunSettings()
    console: bool | None = None
    """Whether `/console` is there, where people see agents, requests and the log, and try agents.
    The default is yes where callers need keys, and where only this machine can connect and `hosts`
    adds none."""
    docs: bool = True
    """Whether `/openapi.json` and the page `/docs` are there."""

    def __post_init__(self) -> None:
        parse_size("max_body", self.max_body)
        parse_size("record_size", self.record_size)
        if self.log_payloads and not self.access_log:
            raise ValueError("log_payloads needs access_log = true")
        for pattern in self.hosts:
            try:
                check_host_pattern(pattern)
            except ValueError:
                raise ValueError(
                    f"hosts has {pattern!r}, expected a name such as 'gateway.example', "
                    "'*.example.org', an IP address or '*', without a port"
                ) from None

        for origin in self.cors:
            _check_cors(origin, alone=len(self.cors) == 1)

    @property
    def traced(self) -> TraceSettings | None:
        """Where traces are sent to; None: there are none."""
        if isinstance(self.traces, bool):
            return TraceSettings() if self.traces else None
        return self.traces

    @property
    def drain_seconds(self) -> float:
        """The length of `drain`; infinity when it is off."""
        return seconds(self.drain)

    def lame_duck_seconds(self, *, loopback: bool) -> float:
        """The length of `lame_duck`. `loopback`: only this machine can connect, so that no load
        balancer has to notice first."""
        default = 0 if loopback else LAME_DUCK_SECONDS
        return default if self.lame_duck is None else self.lame_duck

    @property
    def record_folder(self) -> str:
        """The absolute path of `record`, which must be set."""
        return os.path.abspath(os.path.expanduser(self.record))

    @property
    def record_bytes(self) -> int:
        return parse_size("record_size", self.record_size)

    @property
    def max_body_bytes(self) -> int:
        return parse_size("max_body", self.max_body)


def _check_cors(origin: str, *, alone: bool) -> None:
    if origin == ANY_ORIGIN:
        if not alone:
            raise ValueError("cors has '*' beside other origins, which it includes")
        return
    try:
        check_origin(origin)
    except ValueError as error:
        raise ValueError(f"cors: {error}") from None


class Settings(Struct, frozen=True, kw_only=True):
    """All settings, merged and checked."""

    server: ServerSettings = ServerSettings()
    fleet: FleetSettings = FleetSettings()
    agents: dict[str, AgentSettings] = {}
    services: dict[str, ServiceSettings] = {}
    keys: dict[str, KeySettings] = {}
    """Those that the configuration holds itself; `read_keys` adds the others."""
    keys_file: str = ""
    """A TOML file with more tables `[keys.NAME]`, read again whenever it changes."""
    path: Path | None = None
    """The file that the settings were read from."""
    files: tuple[str, ...] = ()
    """Other files that values were read from (`references`)."""
    secret_files: tuple[str, ...] = ()
    """Those of `files` that are to be kept from every agent: they hold variables of one."""
    written: dict[str, str] = {}
    """What was written for values that were looked up, by their keys: `agents.a.command.2`."""

    @property
    def run_here(self) -> Mapping[str, AgentSettings]:
        """The agents whose workers are this process's to run: of a front, its hosts run them."""
        return {} if self.fleet.role == "front" else self.agents

    def shown_argv(self, agent: str) -> list[str]:
        """The words of an agent's command as they may be shown: what they refer to is not."""
        words = enumerate(self.agents[agent].argv)
        at = f"agents.{agent}.command"
        return [self.written.get(f"{at}.{number}", word) for number, word in words]

    def shown_command(self, agent: str) -> str:
        """The same as one line for a shell."""
        return shlex.join(self.shown_argv(agent))
