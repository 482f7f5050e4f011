"""The table `[fleet]`: the role of this process, how it reaches NATS, and clocks of the link."""

from __future__ import annotations

import os
import re
from fnmatch import fnmatchcase
from typing import Annotated, Literal
from urllib.parse import SplitResult, urlsplit

from msgspec import Meta, Struct, field

NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}\Z")
"""Of a process: one token of a NATS subject."""

_PREFIX = re.compile(r"[a-zA-Z0-9_-]{1,32}(?:\.[a-zA-Z0-9_-]{1,32}){0,3}\Z")
_PATTERN = re.compile(r"[a-zA-Z0-9_*-]{1,64}\Z")

DEFAULT_SERVER = "nats://127.0.0.1:4222"
"""The port is NATS's default."""

Clock = Annotated[float, Meta(gt=0)]


class FleetSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """More than one process, on one machine or many: fronts take requests, hosts run agents, and
    both are connected to NATS."""

    role: Literal["front", "host"] | None = None
    """What this process is. The default is both, without NATS."""
    servers: list[str] = field(default_factory=lambda: [DEFAULT_SERVER])
    """URLs of NATS servers of one cluster, tried in turn: nats://HOST:4222, or tls://HOST:4222,
    which is not spoken to without TLS."""
    name: str = ""
    """What fronts and hosts know this process by. The default is the machine's name."""
    prefix: str = "gw"
    """What the subjects of this fleet begin with, where several share a NATS."""
    credentials: str = ""
    """A file of credentials (.creds), as nsc makes it."""
    nkey: str = ""
    """A file that holds the seed of an nkey. It and `credentials` are read again for each
    connection."""
    user: str = ""
    """A user of NATS, who has a password."""
    password: str = ""
    """Of `user`; better "${NAME}" or "file:PATH"."""
    token: str = ""
    """What everybody shows who knows it, if NATS has no users."""
    ca: str = ""
    """A file of certificates (PEM) to trust instead of the machine's. Needs TLS, as `cert` does."""
    cert: str = ""
    """A file of certificates (PEM) by which NATS knows this process."""
    key: str = ""
    """The private key of `cert`, if that file does not hold it."""
    accept: Clock = 2
    """Of a front: until a host has said that it has a request."""
    link: Annotated[float, Meta(ge=0.4)] = 0.7
    """Of a front: silence after which a host is given up. Hosts are heard every 0.2 s."""
    grace: Clock = 10
    """How long requests outlive the connection to NATS."""
    hosts: dict[str, list[str]] = {}
    """Of a front: which agents the hosts of a name may serve. `*` stands for any characters in
    either. Empty: any host may serve any agent."""

    def __post_init__(self) -> None:
        if not self.servers:
            raise ValueError(f"servers is empty, expected a URL such as {DEFAULT_SERVER}")
        for server in self.servers:
            _check_server(server)
        if self.name and not NAME.match(self.name):
            raise ValueError(
                f"name is {self.name!r}, expected at most 64 letters, digits, '_' and '-'"
            )
        if not _PREFIX.match(self.prefix):
            raise ValueError(
                f"prefix is {self.prefix!r}, expected letters, digits, '_' and '-', and dots within"
            )
        self._check_credentials()
        for pattern, agents in self.hosts.items():
            for each in (pattern, *agents):
                if not _PATTERN.match(each):
                    raise ValueError(f"hosts has {each!r}, expected a name, or one with '*'")

    def _check_credentials(self) -> None:
        ways = [name for name in ("credentials", "nkey", "user", "token") if getattr(self, name)]
        if len(ways) > 1:
            raise ValueError(f"{ways[0]} and {ways[1]} are set, expected one way to log in")
        if bool(self.user) != bool(self.password):
            raise ValueError("user and password are expected together")
        if self.key and not self.cert:
            raise ValueError("key is set, expected cert too")

    @property
    def needs_tls(self) -> bool:
        """Whether a connection without TLS is refused, whatever its URL."""
        return bool(self.ca or self.cert)

    @property
    def process_name(self) -> str:
        """`name`, or what the machine's name gives for one."""
        if self.name:
            return self.name
        return re.sub(r"[^a-zA-Z0-9_-]", "-", os.uname().nodename)[:64] or "gateway"

    def may_serve(self, host: str, agent: str) -> bool:
        """Whether the hosts of a name may serve an agent."""
        return not self.hosts or any(
            fnmatchcase(host, pattern) and any(fnmatchcase(agent, each) for each in agents)
            for pattern, agents in self.hosts.items()
        )


def _check_server(server: str) -> None:
    """Raises ValueError, which does not show what stands before an @."""
    shown = re.sub(r"(?<=//).*@", "***@", server)
    try:
        url = urlsplit(server)
        good = _is_server(url)
    except ValueError:
        good = False
    if not good:
        raise ValueError(
            f"servers has {shown!r}, expected a URL such as {DEFAULT_SERVER} or "
            "tls://nats.example:4222"
        )
    if "@" in url.netloc:
        raise ValueError(
            f"servers has {shown!r}, expected user and password, or token, in settings of their own"
        )


def _is_server(url: SplitResult) -> bool:
    """Raises ValueError for a port that is none."""
    return (
        url.scheme in {"nats", "tls"}
        and bool(url.hostname)
        and url.port != 0
        and url.path in {"", "/"}
        and not url.query
        and not url.fragment
    )
