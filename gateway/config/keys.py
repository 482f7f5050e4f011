"""The keys of callers: the TOML tables `[keys.NAME]`, of the configuration or a file of their own.

This module owns what a key is, names, defaults and checks. It does not know how a request presents
a key (`gateway.front.auth` does).

Settings hold no key, but its SHA-256. That is enough, and a slow hash such as scrypt or Argon2
would be wrong here: those make up for passwords, which a person has chosen and a thief of the
hashes could guess. A key has 256 bits from the system's random source, which nobody searches
through at any speed, and a request must not cost the gateway the milliseconds that a slow hash
takes: whoever has no key could then have it compute all day. So that no password takes the place of
a key, a key must have `MIN_KEY_CHARACTERS` characters; a shorter one is accepted nowhere.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from datetime import datetime
from typing import Annotated

from msgspec import Meta, Struct

from gateway.config.limits import LimitSettings

KEY_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}\Z")
"""Stands in logs, in metrics, and before the ids that its holder chooses: never with a slash."""

KEY_VARIABLE = "AGENT_GATEWAY_KEY"
"""The variable of the gateway's environment that holds a single key."""

VARIABLE_KEY_NAME = "default"
"""The name of the key in `KEY_VARIABLE`."""

PREFIX = "agw_"
"""What the gateway's own keys begin with, so that scanners for secrets can know one."""

MIN_KEY_CHARACTERS = 32
"""Of 16 random bytes in hexadecimal, the least that anybody should use."""

MAX_KEY_CHARACTERS = 512

ANY_AGENT = "*"

_KEY = re.compile(rb"[!-~]{%d,%d}\Z" % (MIN_KEY_CHARACTERS, MAX_KEY_CHARACTERS))
_HASH = re.compile(r"sha256:([0-9a-f]{64})\Z")

_OF_NOTHING = frozenset(hashlib.sha256(each).hexdigest() for each in (b"", b"\n", b"\r\n", b" "))
"""What a shell hashes where the variable with the key was not set."""


def new_key() -> str:
    """A key that nobody has: 256 random bits, in characters that need no quotes anywhere."""
    return PREFIX + secrets.token_urlsafe(32)


def is_key(presented: bytes) -> bool:
    """Whether the bytes can be a key at all: visible ASCII characters, and enough of them."""
    return _KEY.match(presented) is not None


def hash_key(key: bytes) -> str:
    """What `[keys.NAME]` holds of a key."""
    return f"sha256:{hashlib.sha256(key).hexdigest()}"


class KeySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One caller, or one group of callers: what is done with its key belongs to its name."""

    hash: str | tuple[str, ...]
    """`sha256:` and 64 hexadecimal digits, as `gateway key new` prints it. Several while one key is
    replaced by another: each of them is good."""
    agents: tuple[str, ...] = (ANY_AGENT,)
    """The agents that may be called and seen; `*` for all."""
    expires: Annotated[datetime, Meta(tz=True)] | None = None
    """From when on the key is refused: a date and a time with an offset, such as
    2027-01-31T00:00:00Z."""
    limits: LimitSettings = LimitSettings()
    """Of all requests with the key, whichever agent they are for."""

    def __post_init__(self) -> None:
        if not self.hashes:
            raise ValueError("hash is empty, expected what `gateway key new` prints")
        for each in self.hashes:
            _check_hash(each)

    @property
    def hashes(self) -> tuple[str, ...]:
        return (self.hash,) if isinstance(self.hash, str) else self.hash

    @property
    def digests(self) -> tuple[bytes, ...]:
        """The SHA-256 digests of the keys."""
        return tuple(bytes.fromhex(each.removeprefix("sha256:")) for each in self.hashes)


class CallerKeys(Struct, frozen=True):
    """All keys, wherever they were found."""

    by_name: dict[str, KeySettings] = {}
    on: bool = False
    """Whether callers need a key. They do with a `keys_file`, even if that holds none: a file that
    is emptied by mistake lets nobody in, rather than everybody."""


def _check_hash(text: str) -> None:
    """Raises ValueError. What cannot be a hash is not shown: it may be the key itself."""
    if text.startswith(PREFIX):
        raise ValueError(
            "hash holds the key itself, which is not to be written down here: replace the key, and "
            "put in the hash that `gateway key new` prints"
        )
    match = _HASH.match(text)
    if match is None:
        raise ValueError(
            "hash is not `sha256:` and 64 hexadecimal digits in small letters, as `gateway key "
            "new` prints it; no other hash is known here"
        )
    if match[1] in _OF_NOTHING or len(set(match[1])) == 1:
        raise ValueError("hash is the hash of nothing: the key was empty when it was made")
