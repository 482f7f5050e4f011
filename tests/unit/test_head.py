"""From headers to what is used of them: every 415, request ids, and whether a body will come."""

from __future__ import annotations

import pytest

from gateway.errors import UnsupportedMediaType
from gateway.front.dialect import RequestHead
from gateway.front.head import check_media_type, new_request_id, read_head

JSON_TYPE = b"application/json"


@pytest.mark.parametrize(
    "content_type",
    [
        b"application/json",
        b"Application/JSON",
        b"application/json;charset=utf-8",
        b'application/json; charset="UTF-8"',
        b"application/vnd.api+json",
        b"application/json ; boundary=x",
        b"application/json;",
        b"application/json ; ; ;charset=utf-8;",
        b"application/json;charset=utf8",
        b"application/json; CHARSET=UTF8",
        b"application/json; charset=us-ascii",
        b'application/json; charset="utf\\-8"',
        b"application/json; profile=x; charset=utf-8; odata.metadata=minimal",
        b'application/json; profile="a; charset=utf-16, \\" b"; charset=utf-8',
        b'application/json; x=""',
        b"application/problem+json;\tx=1",
    ],
)
@pytest.mark.parametrize("coding", [None, b"identity", b"Identity", b"", b"identity, identity,"])
def test_json_is_taken_however_it_is_spelt(content_type: bytes, coding: bytes | None) -> None:
    check_media_type(
        RequestHead(request_id="r", content_type=content_type, content_encoding=coding)
    )


@pytest.mark.parametrize(
    ("content_type", "encoding", "words"),
    [
        (None, None, "no Content-Type; expected application/json"),
        (b"", None, "Content-Type is '', expected application/json"),
        (b"text/plain", None, "Content-Type is 'text/plain', expected application/json"),
        (b"application/x-www-form-urlencoded", None, "expected application/json"),
        (b"multipart/form-data; boundary=x", None, "expected application/json"),
        (b"application/jsonp", None, "expected application/json"),
        (b"application/json; charset=utf-16", None, "'charset=utf-16' is not supported"),
        (JSON_TYPE + b";a=b;charset=latin1", None, "'charset=latin1' is not supported"),
        (JSON_TYPE + b";charset=utf-8;charset=latin1", None, "'charset=latin1' is not supported"),
        (JSON_TYPE + b'; x="y" ; Charset="UTF-16"', None, "'charset=UTF-16' is not supported"),
        (JSON_TYPE + b';charset=""', None, "'charset=' is not supported"),
        (JSON_TYPE + b";charset = utf-16", None, "whose parameters cannot be read"),
        (JSON_TYPE + b"; charset", None, "whose parameters cannot be read"),
        (JSON_TYPE + b"; charset=", None, "whose parameters cannot be read"),
        (JSON_TYPE + b'; charset="utf-8', None, "whose parameters cannot be read"),
        (JSON_TYPE + b"; charset=utf-8 x", None, "whose parameters cannot be read"),
        (JSON_TYPE + b", text/plain", None, "expected application/json"),
        (JSON_TYPE + b"\ntext/plain", None, "expected application/json"),
        (JSON_TYPE + b" x", None, "whose parameters cannot be read"),
        (JSON_TYPE + b"; x=" + b"y" * 2000, None, "expected application/json"),
        (b"text/json", None, "expected application/json"),
        (b"+json", None, "expected application/json"),
        (b"application/x+jsonp", None, "expected application/json"),
        (JSON_TYPE, b"gzip", "Content-Encoding 'gzip' is not supported; send plain JSON"),
        (JSON_TYPE, b"identity, gzip", "Content-Encoding 'identity, gzip' is not supported"),
        (JSON_TYPE, b"gzip\nidentity", "is not supported; send plain JSON"),
    ],
)
def test_anything_else_is_an_unsupported_media_type(content_type, encoding, words) -> None:
    head = RequestHead(request_id="r", content_type=content_type, content_encoding=encoding)
    with pytest.raises(UnsupportedMediaType) as caught:
        check_media_type(head)
    assert words in caught.value.message


def test_headers_are_read_in_one_pass() -> None:
    fields = [
        (b"host", b"h"),
        (b"content-type", b"a/b"),
        (b"content-length", b"12"),
        (b"content-encoding", b"br"),
        (b"idempotency-key", b"k"),
        (b"x-request-id", b"mine"),
        (b"x-timeout", b"3"),
        (b"x-conversation-id", b"c"),
    ]
    head = read_head([*fields, (b"cookie", b"c")])
    assert head == RequestHead(
        request_id="mine",
        host=b"h",
        content_type=b"a/b",
        content_encoding=b"br",
        content_length=12,
        has_body=True,
        conversation=b"c",
        timeout=b"3",
        fields=dict(fields),
    )


def test_of_a_field_that_was_sent_twice_neither_value_is_used_alone() -> None:
    head = read_head(
        [
            (b"host", b"a"),
            (b"content-type", b"application/json"),
            (b"x-request-id", b"one"),
            (b"host", b"b"),
            (b"content-type", b"text/plain"),
            (b"x-request-id", b"two"),
        ]
    )
    assert (head.host, head.content_type) == (b"a\nb", b"application/json\ntext/plain")
    assert head.request_id not in {"one", "two"}


@pytest.mark.parametrize(
    ("headers", "has_body"),
    [
        ([], False),
        ([(b"content-length", b"0")], False),
        ([(b"content-length", b"1")], True),
        ([(b"transfer-encoding", b"chunked")], True),
    ],
)
def test_it_is_known_whether_a_body_will_come(headers, has_body: bool) -> None:
    assert read_head(headers).has_body is has_body


@pytest.mark.parametrize("good", [b"a", b"x" * 128, b"!~#[]", b"0191-af"])
def test_a_callers_request_id_is_taken_over(good: bytes) -> None:
    assert read_head([(b"x-request-id", good)]).request_id == good.decode()


@pytest.mark.parametrize("bad", [b"", b"x" * 129, b"two words", b"tab\t", b"caf\xc3\xa9", b"nl\n"])
def test_one_that_could_not_stand_in_a_header_or_a_log_is_replaced(bad: bytes) -> None:
    given_instead = read_head([(b"x-request-id", bad)]).request_id
    assert given_instead
    assert given_instead.encode() != bad


def test_own_request_ids_are_all_different() -> None:
    assert len({new_request_id() for _ in range(1000)}) == 1000
