"""Ids of runs, the credentials that they belong to, and what header fields say about runs."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidRequest
from gateway.front.runs.ids import Ids, Origin, credential_of
from gateway.front.runs.wishes import (
    MOST_KEY_BYTES,
    accepts_events,
    read_position,
    read_wish,
)
from tests.unit.conftest import unhurried

ME, OTHER = credential_of({b"authorization": b"Bearer me"}), credential_of({})


def test_an_id_tells_where_it_is_from_without_being_kept() -> None:
    ids, earlier = Ids(), Ids()
    token = ids.new(ME)
    assert ids.origin(token, ME) is Origin.OURS
    assert ids.origin(token, OTHER) is Origin.NOBODY
    assert ids.origin(earlier.new(ME), ME) is Origin.EARLIER
    assert ids.origin(earlier.new(ME), OTHER) is Origin.EARLIER


def test_no_id_is_like_another() -> None:
    ids = Ids()
    tokens = [ids.new(ME) for _ in range(1000)]
    assert len({token[8:40] for token in tokens}) == 1000


@given(st.integers(0, 55))
def test_an_id_that_was_changed_anywhere_was_never_given_out(place: int) -> None:
    ids = Ids()
    token = ids.new(ME)
    other = "0" if token[place] != "0" else "1"
    changed = token[:place] + other + token[place + 1 :]
    assert ids.origin(changed, ME) is (Origin.EARLIER if place < 8 else Origin.NOBODY)


@unhurried
@given(st.text() | st.text("0123456789abcdef", min_size=50, max_size=60))
def test_garbage_is_nobodys(text: str) -> None:
    expected = Origin.EARLIER if len(text) == 56 and set(text) <= set("0123456789abcdef") else None
    assert Ids().origin(text, ME) is (expected or Origin.NOBODY)


def test_a_credential_is_all_that_is_presented_and_how() -> None:
    presented = [
        {},
        {b"authorization": b""},
        {b"authorization": b"ab"},
        {b"authorization": b"a", b"x-api-key": b"b"},
        {b"authorization": b"ab", b"x-api-key": b""},
        {b"x-api-key": b"ab"},
        {b"authorization": b"1:a-", b"x-api-key": b"b"},
    ]
    for one, another in combinations(presented, 2):
        assert credential_of(one) != credential_of(another)
    assert credential_of({b"authorization": b"ab", b"accept": b"x"}) == credential_of(presented[2])


# Wishes


@pytest.mark.parametrize(
    "prefer",
    [
        b"respond-async",
        b"Respond-Async",
        b"wait=10, respond-async",
        b"a\nrespond-async ; x=1",
        b'a="b, c", respond-async=""',
    ],
)
def test_a_preference_to_be_answered_at_once_is_read(prefer: bytes) -> None:
    wish = read_wish({b"prefer": prefer}, "/")
    assert wish is not None
    assert wish.respond_async
    assert wish.key is None


@pytest.mark.parametrize(
    "prefer",
    [
        b"",
        b"wait=10",
        b"respond-asynchronously",
        b"respond-async=no",
        b'x="respond"',
        b'x="a, respond-async, b"',
    ],
)
def test_other_preferences_are_ignored(prefer: bytes) -> None:
    assert read_wish({b"prefer": prefer}, "/") is None


def key_of(key: bytes, path: str = "/a", **fields: bytes) -> bytes:
    more = {name.encode(): value for name, value in fields.items()}
    wish = read_wish({b"idempotency-key": key, **more}, path)
    assert wish is not None
    assert wish.key is not None
    return wish.key


def test_a_key_is_bound_to_the_path_and_to_whose_it_is() -> None:
    keys = {key_of(b"k"), key_of(b"l"), key_of(b"k", "/b"), key_of(b"k", authorization=b"Bearer x")}
    assert len(keys) == 4
    assert key_of(b"k") == key_of(b"k")


@pytest.mark.parametrize("key", [b"k", b'"8e03978e"', b"x" * MOST_KEY_BYTES])
def test_a_key_may_be_quoted_or_not(key: bytes) -> None:
    assert key_of(key) != key_of(b"another")


@pytest.mark.parametrize(
    ("key", "says"),
    [
        (b"", "expected visible"),
        (b"\xe9", "expected visible"),
        (b"a\tb", "expected visible"),
        (b"a\nb", "more than once"),
        (b"x" * (MOST_KEY_BYTES + 1), "256 bytes, expected at most 255"),
        (b"x" * 1_000_000, "1000000 bytes"),
    ],
)
def test_a_key_that_is_none_is_refused_with_the_reason(key: bytes, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says) as caught:
        read_wish({b"idempotency-key": key}, "/")
    assert len(caught.value.message) < 300


def test_what_is_asked_is_the_body_and_the_conversation() -> None:
    wish = read_wish({b"idempotency-key": b"k"}, "/")
    assert wish is not None
    asked = {
        wish.of_body(fields, body).fingerprint
        for fields in ({}, {b"x-conversation-id": b"c"})
        for body in (b"", b"1", b"c")
    }
    assert len(asked) == 6
    assert wish.of_body({}, b"1") == wish.of_body({}, b"1")


@pytest.mark.parametrize(("last", "position"), [(b"0", 1), (b"41", 42), (b"007", 8)])
def test_a_client_goes_on_after_its_last_event(last: bytes, position: int) -> None:
    assert read_position({b"last-event-id": last}) == position


def test_without_a_last_event_it_begins() -> None:
    assert read_position({}) is None
    assert read_position({b"last-event-id": b""}) is None


@pytest.mark.parametrize(
    "last", [b"x", b"-1", b"1.0", b" 1", b"1\n2", "\N{SUPERSCRIPT TWO}".encode(), b"9" * 19]
)
def test_a_last_event_that_is_no_number_is_refused(last: bytes) -> None:
    with pytest.raises(InvalidRequest, match="Last-Event-ID"):
        read_position({b"last-event-id": last})


@pytest.mark.parametrize(
    ("accept", "events"),
    [
        (b"text/event-stream", True),
        (b"application/json, Text/Event-Stream;q=0.9", True),
        (b"application/json\ntext/event-stream", True),
        (b"*/*", False),
        (b"text/event-streams", False),
        (b"text/event-stream;q=0, */*", False),
        (b"text/event-stream;charset=utf-8; q=0.00", False),
        (b"text/event-stream;q=0.01", True),
        (b'a/b;c="d, text/event-stream"', False),
        (b"", False),
    ],
)
def test_events_are_asked_for_by_name(accept: bytes, events: bool) -> None:
    assert accepts_events({b"accept": accept}) is events
