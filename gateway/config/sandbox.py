"""One agent's sandbox, as the operator configures it: the TOML table `[agents.NAME.sandbox]`.

This module owns names, defaults and every check that does not depend on the machine. It does not
know how a limit is enforced, or whether it can be.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Literal

import msgspec

from gateway.config.hosts import is_address

Limit = Literal["memory", "pids", "cpu"]

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)([KMGT]?)(?:i?B)?", re.IGNORECASE)
_MOST = 1 << 63
"""Bytes: more than that, the kernel's own types do not hold."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HOST = re.compile(
    r"(?:http://)?(\*|(?:\*\.)?[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?):([0-9]{1,5}|\*)"
)

_MIN_PIDS = 8
"""A shell pipeline or Node's threads need this many; with fewer, neither starts."""
_MIN_NOFILE = 16
"""Standard streams take three, and loading shared libraries needs a few more."""
_MIN_MEMORY = 16 << 20
"""What an interpreter needs to start: with less, every worker would be killed before its first
output."""


class SandboxSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One agent's sandbox. Sizes are bytes, with K, M, G or T for powers of 1024.

    A size, `pids` or `cpu` of 0 is no limit. Decoding raises msgspec.ValidationError that names the
    key, the value and what was expected.
    """

    network: bool | tuple[str, ...] = False
    """`host:port` pairs that the agent may reach through the gateway's proxy; `true` allows every
    public address. A worker never has a network of its own."""
    allow_local: bool = False
    """Whether a host that `network` names without `*` may be this machine."""
    mounts_ro: tuple[str, ...] = ()
    """Paths that the agent may read, besides its own folder and its interpreter."""
    mounts_rw: tuple[str, ...] = ()
    """Paths that the agent may modify. They outlive a worker, and all workers of the agent share
    them."""
    env: dict[str, str] = {}
    """Environment variables and their values."""
    env_allow: tuple[str, ...] = ()
    """Variables copied from the gateway's own environment; no other variable of it is visible."""
    cwd: str | None = None
    """The working directory, mounted read-only. By default it is the gateway's, with only the
    mounts visible in it."""
    memory: str | int = "1G"
    """Memory of all processes of one worker together, with their files in /tmp and /dev/shm."""
    pids: int = 256
    """Processes and threads of one worker, counted together."""
    cpu: float = 0
    """CPUs that one worker may use: 0.5 is half of one."""
    tmp: str | int = "64M"
    """Size of each of /tmp, /dev/shm and the home folder."""
    nofile: int = 1024
    """Open file descriptors per process."""
    fsize: str | int = "1G"
    """Largest size of a single file."""
    require: tuple[Limit, ...] = ()
    """Limits without which the gateway must not start. Any other limit that cannot be enforced is
    reported as such."""

    def __post_init__(self) -> None:
        self._check_limits()
        self._check_names()

    def _check_limits(self) -> None:
        for key in ("memory", "tmp", "fsize"):
            parse_size(key, getattr(self, key))
        if 0 < self.memory_bytes < _MIN_MEMORY:
            raise _invalid("memory", self.memory, "0 for no limit, or at least 16M")
        if self.tmp_bytes == 0:
            raise _invalid(
                "tmp", self.tmp, "a size above 0: /tmp is kept in memory, so it needs a limit"
            )
        if self.pids != 0 and self.pids < _MIN_PIDS:
            raise _invalid("pids", self.pids, f"0 for no limit, or at least {_MIN_PIDS}")
        if self.nofile < _MIN_NOFILE:
            raise _invalid("nofile", self.nofile, f"at least {_MIN_NOFILE}")
        if not 0 <= self.cpu < float("inf"):
            raise _invalid("cpu", self.cpu, "a number of CPUs such as 0.5, or 0 for no limit")

    def _check_names(self) -> None:
        for host in self.network_hosts:
            _check_host(host)
        if self.allow_local and all("*" in each for each in self.network_hosts):
            raise _invalid("allow_local", True, "false where network names no host without *")
        for key, names in (("env", self.env), ("env_allow", self.env_allow)):
            for name in names:
                if not _NAME.fullmatch(name):
                    # Whoever writes NAME=VALUE there may have written a secret.
                    shown = name.partition("=")[0]
                    raise _invalid(key, shown, "a name of letters, digits and underscores")
        for name, value in self.env.items():
            if "\0" in value:
                # The message leaves the value out: it may be a secret.
                raise ValueError(f"env.{name} holds a null character, expected text without")
        for key in ("mounts_ro", "mounts_rw"):
            for path in getattr(self, key):
                if not path or "\0" in path:
                    raise _invalid(key, path, "the path of a file or folder")

    @property
    def network_hosts(self) -> tuple[str, ...]:
        """`host:port` patterns; `*` matches any name or any port."""
        if isinstance(self.network, bool):
            return ("*:*",) if self.network else ()
        return self.network

    @property
    def network_rules(self) -> dict[str, Any]:
        """What the proxy goes by, as plain values."""
        return {"network": list(self.network_hosts), "allow_local": self.allow_local}

    @property
    def memory_bytes(self) -> int:
        return parse_size("memory", self.memory)

    @property
    def tmp_bytes(self) -> int:
        return parse_size("tmp", self.tmp)

    @property
    def fsize_bytes(self) -> int:
        return parse_size("fsize", self.fsize)


def parse_size(key: str, value: str | int) -> int:
    """Bytes from `512M`, `1.5G`, `64KiB` or a plain number. Raises ValueError that names `key`."""
    size: float
    if isinstance(value, int):
        if value < 0:
            raise _invalid(key, value, "a size that is not negative")
        size = value
    elif match := _SIZE.fullmatch(value.strip()):
        size = float(match[1]) * _UNITS[match[2].upper()]
    else:
        raise _invalid(key, value, "a size such as 512M, 1.5G or a number of bytes")
    if size >= _MOST:
        raise _invalid(key, value, "less than 8388608T, which no machine has")
    return int(size)


def _check_host(value: str) -> None:
    match = _HOST.fullmatch(value)
    if not match or (match[2] != "*" and not 0 < int(match[2]) < 65536):
        expected = 'host:port, such as "api.example.com:443" or "*:443", or "http://host:port"'
        raise _invalid("network", value, expected)
    if _is_loopback(match[1]):
        # Clients connect to their own loopback device, whatever proxy they are told of.
        expected = (
            "a host elsewhere: agents never reach this machine by that name; a server of it can be "
            "one of [services.NAME]"
        )
        raise _invalid("network", value, expected)
    if _is_never_reached(match[1]):
        expected = "a host elsewhere: agents never reach this machine or link-local addresses"
        raise _invalid("network", value, expected)


def _is_loopback(host: str) -> bool:
    name = host.lower()
    return (
        name == "localhost"
        or name.endswith(".localhost")
        or (is_address(name) and ipaddress.ip_address(name).is_loopback)
    )


def _is_never_reached(host: str) -> bool:
    """Whether the proxy refuses the host whatever the settings say."""
    if not is_address(host):
        return False
    address = ipaddress.ip_address(host)
    return address.is_unspecified or address.is_link_local


def _invalid(key: str, value: object, expected: str) -> ValueError:
    return ValueError(f"{key} is {value!r}, expected {expected}")
