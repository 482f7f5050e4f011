"""The ids of runs: secrets, bound to the credential that a run was started with.

    run_ + incarnation (8 hex digits) + secret (32) + seal (16)

The *incarnation* is this process's, chosen at its start. The *secret* is 128 random bits. The
*seal* is a keyed hash of the secret and the credential, whose key never leaves the process. So
without keeping anything, the gateway can tell an id that it gave out to this very credential, and
whose run it has forgotten since (410), from one that it never gave out, or gave to somebody else
(404). It cannot check the seals of a process before it: an id of another incarnation is gone (410)
for whoever asks, which tells nobody anything.

A *credential* is the name of the key that a request was made with, which another key may have by
now. Where there are no keys, it is what the client presents, in `Authorization` and `X-API-Key`, as
it was sent; presenting none is a credential as well. It is not judged here: whoever comes for a run
must have the one that it was started with.
"""

from __future__ import annotations

import hmac
import re
import secrets
from enum import Enum
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_INCARNATION_DIGITS = 8
_SECRET_BYTES = 16
_SEAL_BYTES = 8

_TOKEN = re.compile(rf"[0-9a-f]{{{_INCARNATION_DIGITS + 2 * (_SECRET_BYTES + _SEAL_BYTES)}}}\Z")


def is_token(text: str) -> bool:
    """Whether a text has the form of an id, whoever gave it out."""
    return _TOKEN.match(text) is not None


CREDENTIALS = (b"authorization", b"x-api-key")


class Origin(Enum):
    """Where an id comes from under which no run is kept."""

    OURS = "ours"
    """This process gave it out to this credential."""
    EARLIER = "earlier"
    """It has the form of one that another process gave out."""
    NOBODY = "nobody"
    """It was never given out, or not to this credential."""


def credential_of(fields: Mapping[bytes, bytes], owner: str = "") -> bytes:
    """A digest of the credential of a request, from its header fields with names in lower case, or
    from the name of its key, if it has one."""
    if owner:
        return blake2b(owner.encode(), person=b"key", digest_size=32).digest()
    digest = blake2b(digest_size=32)
    for name in CREDENTIALS:
        value = fields.get(name)
        # The length first: no two values of the fields run together into the same bytes.
        digest.update(b"-" if value is None else b"%d:%b" % (len(value), value))
    return digest.digest()


class Ids:
    """Makes the ids of one process, and recognises them.

    An id without its prefix is called a token: dialects have prefixes of their own.
    """

    def __init__(self) -> None:
        self._incarnation = secrets.token_hex(_INCARNATION_DIGITS // 2)
        self._key = secrets.token_bytes(32)

    def new(self, credential: bytes) -> str:
        """A token that nobody can guess, for the holder of a credential."""
        secret = secrets.token_hex(_SECRET_BYTES)
        return f"{self._incarnation}{secret}{self._seal(secret, credential)}"

    def origin(self, token: str, credential: bytes) -> Origin:
        """Where a token comes from. It may be any text."""
        if _TOKEN.match(token) is None:
            return Origin.NOBODY
        if token[:_INCARNATION_DIGITS] != self._incarnation:
            return Origin.EARLIER
        secret, seal = token[_INCARNATION_DIGITS : -2 * _SEAL_BYTES], token[-2 * _SEAL_BYTES :]
        genuine = hmac.compare_digest(seal, self._seal(secret, credential))
        return Origin.OURS if genuine else Origin.NOBODY

    def _seal(self, secret: str, credential: bytes) -> str:
        sealed = blake2b(secret.encode() + credential, key=self._key, digest_size=_SEAL_BYTES)
        return sealed.hexdigest()
