"""What a request's header fields say about runs: pure, and strict where a mistake would cost."""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl

from gateway.errors import InvalidRequest, RunGone
from gateway.front.dialect import shown
from gateway.front.runs.ids import credential_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    Fields = Mapping[bytes, bytes]

MOST_KEY_BYTES = 255
"""Of an Idempotency-Key: a UUID has 36. Keys are kept as digests, but each is read and hashed."""

_KEY = re.compile(rb"[\x20-\x7e]+\Z")

_NUMBER = re.compile(rb"[0-9]{1,18}\Z")

_ELEMENT = re.compile(rb'(?:[^,"\n]|"[^"]*")+')
"""Of a list; a comma in a quoted string divides nothing."""

_RESPOND_ASYNC = re.compile(
    rb'[ \t]*+respond-async[ \t]*+(?:=[ \t]*+(?:""[ \t]*+)?)?(?:;.*)?\Z',
    re.IGNORECASE | re.DOTALL,
)
"""An empty value is none (RFC 7240, 2). Possessive: no blanks are looked through twice."""

_EVENTS = re.compile(
    rb"[ \t]*text/event-stream[ \t]*(?:;(?!(?:.*;)?[ \t]*q=0(?:\.0*)?[ \t]*(?:;|\Z)).*)?\Z",
    re.IGNORECASE | re.DOTALL,
)
"""With any weight but 0, which says "not acceptable" (RFC 9110, 12.4.2)."""


class Wish(NamedTuple):
    """How a request that is to become a run says so."""

    respond_async: bool
    """Whether the client wants to be told at once where the run is."""
    key: bytes | None
    """A digest of the Idempotency-Key, the path, and whose it is."""
    fingerprint: bytes = b""
    """A digest of what is asked under that key."""

    def of_body(self, fields: Fields, body: bytes) -> Wish:
        """This wish, with the fingerprint of the body that has come."""
        if self.key is None:
            return self
        asked = _digest(fields.get(b"x-conversation-id", b""), body)
        return self._replace(fingerprint=asked)

    def of_answers(self, answers: bytes) -> Wish:
        """The wish of the same request where it goes on with these answers to its questions: that
        is another run, which a repetition with the same answers finds."""
        if self.key is None:
            return self
        return self._replace(key=_digest(self.key, answers))


class RawRequest(NamedTuple):
    """A request as it came: with its head, all that another process needs to read it again."""

    path: str
    body: bytes


def read_wish(fields: Fields, path: str, owner: str = "") -> Wish | None:
    """The wish in the header fields of a request with the key named `owner`, if it has one; None:
    there is no wish. Raises InvalidRequest.

    Of the preferences only `respond-async` is honoured (RFC 7240, 4.1); others may be ignored.
    """
    respond_async = _has(fields.get(b"prefer", b""), _RESPOND_ASYNC)
    key = fields.get(b"idempotency-key")
    if key is not None:
        key = _digest(
            credential_of(fields, owner), path.encode("utf-8", "replace"), _checked_key(key)
        )
    return Wish(respond_async, key) if respond_async or key is not None else None


def read_position(fields: Fields) -> int | None:
    """The number of the event after `Last-Event-ID`; None without one. Raises InvalidRequest."""
    last = fields.get(b"last-event-id", b"")
    if not last:
        return None
    if _NUMBER.match(last) is None:
        raise InvalidRequest(
            f"Last-Event-ID is {shown(last)}, expected the id of an event: a number"
        )
    return int(last) + 1


def refuse_to_resume(fields: Fields, wish: Wish | None) -> None:
    """Refuse a request that comes back for the rest of a stream where no run of it is kept: a new
    run would not be that. Raises RunGone and InvalidRequest."""
    if read_position(fields) is None:
        return
    if wish is not None and wish.key is not None:
        raise RunGone("there is a Last-Event-ID, and the run of this Idempotency-Key is not kept")
    raise InvalidRequest(
        "there is a Last-Event-ID, and no Idempotency-Key says of which run; use GET /runs/{id}"
    )


def read_query(query: bytes, fields: Fields) -> int | None:
    """The number of the event to begin with, by `?stream=true&starting_after=4`; None: no stream
    is asked for. Raises InvalidRequest."""
    asked = dict(parse_qsl(query.decode("ascii", "replace"), keep_blank_values=True))
    stream = asked.get("stream", "false")
    if stream not in {"true", "false"}:
        raise InvalidRequest(f"stream is {stream[:80]!r}, expected true or false")
    after = asked.get("starting_after")
    if after is not None:
        if stream == "false":
            raise InvalidRequest("starting_after is for a stream; expected stream=true beside it")
        if _NUMBER.match(after.encode()) is None:
            raise InvalidRequest(f"starting_after is {after[:80]!r}, expected a sequence number")
        return int(after) + 1
    return None if stream == "false" else read_position(fields) or 0


def accepts_events(fields: Fields) -> bool:
    """Whether a stream of events is asked for by name: `*/*` is what every client sends."""
    return _has(fields.get(b"accept", b""), _EVENTS)


def _has(elements: bytes, wanted: re.Pattern[bytes]) -> bool:
    return any(wanted.match(each) for each in _ELEMENT.findall(elements))


def _checked_key(key: bytes) -> bytes:
    if b"\n" in key:
        raise InvalidRequest("Idempotency-Key was sent more than once")
    if len(key) > MOST_KEY_BYTES:
        raise InvalidRequest(
            f"Idempotency-Key has {len(key)} bytes, expected at most {MOST_KEY_BYTES}"
        )
    if _KEY.match(key) is None:
        raise InvalidRequest(f"Idempotency-Key is {shown(key)}, expected visible ASCII characters")
    return key


def _digest(*parts: bytes) -> bytes:
    digest = blake2b(digest_size=32)
    for part in parts:
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return digest.digest()
