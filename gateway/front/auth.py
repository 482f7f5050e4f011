"""Who makes a request: the keys that callers present, and what each may call.

Theory of operation
-------------------

A *caller* is whoever has a key, and is known by the key's name. All that is done for one caller is
its own: it is scoped by that name (`own`), not by the key, so that one key can replace another
without anything being lost, and nothing of a key is written or shown anywhere.

A key is presented in a header field, one of `_PLACES`: to which of them a client library writes it
is the library's choice, so all of them are read on every path. A dialect whose clients use another
field adds it there and to what `head` reads. A key in the URL is never read: URLs stand in logs and
histories. What names two callers names none: a request with two different keys is refused, and so
is one with a field twice, since a proxy on the way may have looked at the other one.

**What an attempt can learn.** A key is looked up by its SHA-256 digest in a dictionary, and the one
that is found there is compared in constant time; where none is found, the same comparison is made
with a random one. The digest of a guess has nothing in common with the guess, so the time that the
look-up takes tells neither how near it is nor how many keys there are. Every refusal has the same
words, whether a key is wrong, has expired or was removed: the log says which. A caller that may
call some agents only gets the same 403 for any other name, whether there is such an agent or not.

A field with a good key that does not expire is remembered in memory, until the keys change, because
reading and hashing it anew takes some 10 µs of each request. To look a field up there is to compare
hashes of 64 bits, which Python keys with a secret of the process, before any byte of a key: that
tells an attempt no more than the digests do. There is at most one field for each digest.

**What an attempt costs.** A body is not read, an agent is not looked for, and the log has one line
for many attempts: the first at once, then a count (`Refusals`). Bounding the number of attempts is
for `limits` and for the connections of an address: 256 random bits are not found by trying.

**A change of keys** (`change`) counts from the next request on. A request that was admitted goes on
to its end, as it was begun rightly, and its clocks bound it; whoever comes back for a run needs a
key that is good then, with the name that the run was started under. A stream that has no end of its
own (`mcp`) ends when its caller is no longer good (`is_good`).

Without keys there is no caller to be told apart: every request is `ANONYMOUS`, and nothing here is
called.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
import re
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw, Struct, structs

from gateway.config.keys import ANY_AGENT, CallerKeys, KeySettings, is_key
from gateway.errors import Forbidden, Unauthorized
from gateway.front.refusals import Refusals
from protocol import on_one_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.call import Call

_encode = msgspec.json.encode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode

NO_KEYS = CallerKeys()

PAGE_PATHS = (
    "/docs",
    "/docs/docs.css",
    "/docs/docs.js",
    "/docs/favicon.png",
    "/docs/swagger-ui-bundle.js",
    "/docs/swagger-ui.css",
)
"""The page that shows the API, which is the same for everybody: a browser sends no key with it."""

OPEN_PATHS = frozenset({"/console", "/console/", "/live", "/metrics", "/ready", *PAGE_PATHS})
"""What needs no key: whoever watches the gateway or balances load has none. Who may read the
metrics, their route decides (`gateway.front.metrics`)."""

OPEN_FILES = "/console/page/"
"""What begins so needs no key either: the files of another page."""

CALLER = "caller"
"""The key of `scope["state"]` under which the routes that Quart serves find their `Caller`."""


class Caller(Struct, frozen=True, gc=False):
    """Who makes a request."""

    name: str
    """The key's name; empty for whoever has none."""
    settings: KeySettings | None
    agents: frozenset[str] | None = None
    """Those that may be called and seen; None for all."""

    def may_call(self, agent: str) -> bool:
        """Whether an agent with that name may be called and seen. There may be none."""
        return self.agents is None or agent in self.agents

    def check(self, agent: str) -> None:
        """Raises Forbidden, in the same words whether there is such an agent or not."""
        if self.agents is not None and agent not in self.agents:
            raise Forbidden(f"the key {self.name!r} may not be used for the agent {agent[:80]!r}")


ANONYMOUS = Caller("", None)
"""Everybody, where there are no keys."""

NOBODY = Caller("", None, frozenset())
"""Whoever has presented no good key, on a path that needs none."""


class _Known(Struct, frozen=True, gc=False):
    """One key that was good when it was read."""

    digest: bytes
    caller: Caller
    expires_at: float
    """On the clock of the day, in Unix seconds; infinity if never."""


class Keys:
    """The keys that are good now. See the module's docstring."""

    def __init__(self, keys: CallerKeys = NO_KEYS) -> None:
        self._refusals = Refusals(logging.WARNING)
        # What no key has: compared with where a look-up finds none.
        self._none = _Known(secrets.token_bytes(32), NOBODY, -math.inf)
        self._known: dict[bytes, _Known] = {}
        self._recent: dict[bytes, Caller] = {}
        """Who has presented a key that does not expire, by the whole field as nearly everybody
        writes it."""
        self._keys = NO_KEYS
        self.open_suffixes: tuple[str, ...] = ()
        """How paths end that need no key: what is there tells strangers nothing, see `dialects`."""
        self.on = False
        """Whether callers need keys; if not, all else here does nothing."""
        self.change(keys)

    def __repr__(self) -> str:
        return f"<Keys {len(self._keys.by_name) if self.on else 'off'}>"

    @property
    def names(self) -> set[str]:
        """The names of the keys."""
        return set(self._keys.by_name)

    @property
    def keys(self) -> CallerKeys:
        """Those that count now."""
        return self._keys

    def is_good(self, name: str) -> bool:
        """Whether the caller with this name could make a request now."""
        if not self.on:
            return name == ANONYMOUS.name
        key = self._keys.by_name.get(name)
        return key is not None and (key.expires is None or key.expires.timestamp() > time.time())

    def change(self, keys: CallerKeys) -> bool:
        """Have these keys count from now on. Returns whether any is another than before."""
        changed = keys != self._keys
        self._keys, self.on = keys, keys.on
        self._recent.clear()
        self._known = {
            digest: _Known(
                digest, caller, math.inf if key.expires is None else key.expires.timestamp()
            )
            for name, key in keys.by_name.items()
            for caller in [_caller(name, key)]
            for digest in key.digests
        }
        return changed

    def identify(self, fields: Mapping[bytes, bytes], path: str) -> Caller:
        """Who makes a request for `path`: `NOBODY` has no good key, and needs none. `fields` are as
        in `RequestHead`. Raises Unauthorized."""
        recent = self._recent.get(fields.get(b"authorization", b""))
        if recent is not None and b"x-api-key" not in fields:
            return recent
        found = self._find(fields)
        if isinstance(found, Caller):
            return found
        if path in OPEN_PATHS or path.startswith(OPEN_FILES) or path.endswith(self.open_suffixes):
            return NOBODY
        raise self._refuse(*found)

    def _find(self, fields: Mapping[bytes, bytes]) -> Caller | tuple[str, str]:
        """Whose key a request presents; if nobody's, what is said of that in the log and to the
        client."""
        try:
            key = _presented(fields)
        except ValueError as error:
            return str(error), str(error)
        if key is None:
            return "no key", f"a key is needed: {EXPECTED}"
        known = self._look_up(key)
        if known is self._none:
            return "an unknown key", _NOT_GOOD
        if known.expires_at == math.inf:
            if fields.get(b"authorization") == (plain := b"Bearer " + key):
                self._recent[plain] = known.caller
        elif known.expires_at <= time.time():
            return f"the key {known.caller.name!r}, which has expired", _NOT_GOOD
        return known.caller

    def _look_up(self, key: bytes) -> _Known:
        if not is_key(key):
            return self._none
        digest = hashlib.sha256(key).digest()
        known = self._known.get(digest, self._none)
        return known if hmac.compare_digest(known.digest, digest) else self._none

    def _refuse(self, what: str, message: str) -> Unauthorized:
        self._refusals.add(f"401 unauthorized: a request with {what}")
        return Unauthorized(message)


EXPECTED = "expected Authorization: Bearer KEY, or X-API-Key: KEY"

_NOT_GOOD = "the key is not known here, or is not good any more"


def _caller(name: str, key: KeySettings) -> Caller:
    agents = None if ANY_AGENT in key.agents else frozenset(key.agents)
    return Caller(name, key, agents)


def _of_bearer(value: bytes) -> bytes:
    """RFC 6750, 2.1; schemes are known in any case (RFC 9110, 11.1). Other schemes are for somebody
    on the way: they hold no key."""
    scheme, _, key = value.partition(b" ")
    return key.strip(b" \t") if scheme.strip(b"\t").lower() == b"bearer" else b""


def _as_it_is(value: bytes) -> bytes:
    return value


_PLACES: tuple[tuple[bytes, Callable[[bytes], bytes]], ...] = (
    (b"authorization", _of_bearer),
    (b"x-api-key", _as_it_is),
)
"""The fields that hold keys, and how each is read: the former is OpenAI's and most others', the
latter Anthropic's. Each must be in `head._USED`."""


_PLAIN = re.compile(rb"Bearer [!-~]+\Z")


def _presented(fields: Mapping[bytes, bytes]) -> bytes | None:
    """The key that a request presents, if it does. Raises ValueError, with the reason."""
    bearer = fields.get(b"authorization")
    if bearer is not None and b"x-api-key" not in fields and _PLAIN.match(bearer) is not None:
        return bearer[7:]  # as nearly everybody sends it
    found = None
    for name, read in _PLACES:
        value = fields.get(name)
        if value is None:
            continue
        if b"\n" in value:
            raise ValueError(f"{name.decode()} was sent more than once")
        key = read(value.strip(b" \t"))
        if key and found is not None and key != found:
            raise ValueError("the request has two different keys")
        found = key or found
    return found


def own(call: Call, owner: str) -> Call:
    """The call as one of the key with the name `owner`: what the caller has chosen a name for is
    told to the agent as `owner/name`, which no other key's is. A key's name has no slash."""
    if call.owner == owner and call.conversation is None and call.user is None:
        return call
    members = {"conversation_id": call.conversation, "user_id": call.user}
    owned = {name: f"{owner}/{given}" for name, given in members.items() if given is not None}
    context = call.context
    if owned:
        # Set anew, not added: parsers differ in which of two members with one name they take.
        known = _decode_members(context)
        context = on_one_line(_encode({**known, **owned}))
    return structs.replace(
        call,
        owner=owner,
        conversation=owned.get("conversation_id"),
        user=owned.get("user_id"),
        context=context,
    )
