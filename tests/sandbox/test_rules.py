"""What an agent may ask of a service, and what is sent instead of what it wrote."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sandbox.network.mask import Mask
from gateway.sandbox.network.rules import (
    Denied,
    Service,
    Target,
    build_headers,
    build_response_headers,
    build_target,
    check_head,
    read_target,
    why_unreadable,
)

KEY = "sk-proj-4fT9xYzABCDEFGHIJ"
OPENAI = Service(
    name="openai",
    scheme="https",
    host="api.example.com",
    port=443,
    base="/v1",
    headers={"Authorization": f"Bearer {KEY}"},
    mask=Mask([KEY]),
)


def head(*lines: str, first: str = "POST /openai/chat HTTP/1.1") -> bytes:
    return "\r\n".join([first, "Host: 127.0.0.1", *lines]).encode("latin-1")


@pytest.mark.parametrize(
    "good",
    [
        head(),
        head("Content-Length: 5"),
        head("Transfer-Encoding: chunked"),
        head("Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMA"),
        head("X-Empty:", "X-Text: caf\xe9"),
        b"GET /openai/models HTTP/1.0",
    ],
)
def test_a_plain_request_is_read(good: bytes) -> None:
    assert check_head(good) is None


@pytest.mark.parametrize(
    ("bad", "status"),
    [
        (head("Content-Length: 5", "Transfer-Encoding: chunked"), 400),
        (head("Content-Length: 5", "Content-Length: 6"), 400),
        (head("Content-Length: 5", "Content-Length: 5"), 400),
        (head("Content-Length: 5, 5"), 400),
        (head("Content-Length: +5"), 400),
        (head("Content-Length: 0x5"), 400),
        (head("Content-Length: " + "9" * 30), 400),
        (head("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), 400),
        (head("Transfer-Encoding: gzip, chunked"), 400),
        (head("Transfer-Encoding: xchunked"), 400),
        (head("Transfer-Encoding : chunked"), 400),
        (head("Transfer-Encoding\x0b: chunked"), 400),
        (head("X: a", " folded"), 400),
        (head("X: a\n Y: b"), 400),
        (head("X: a\rY: b"), 400),
        (head("X: a\x00b"), 400),
        (head("no colon"), 400),
        (head("Host: other"), 400),
        (b"GET /openai/models HTTP/1.1", 400),
        (head(first="CONNECT api.example.com:443 HTTP/1.1"), 405),
        (head(first="TRACE /openai/x HTTP/1.1"), 405),
        (head(first="GET http://169.254.169.254/ HTTP/1.1"), 400),
        (head(first="OPTIONS * HTTP/1.1"), 400),
        (head(first="GET /openai/a b HTTP/1.1"), 400),
        (head(first="GET /openai/caf\xe9 HTTP/1.1"), 400),
        (head(first="GET  /openai/x HTTP/1.1"), 400),
        (head(first="GET /openai/x HTTP/2.0"), 400),
        (head(first="GET /openai/x"), 400),
        (head("Upgrade: websocket", "Connection: Upgrade"), 501),
    ],
)
def test_what_two_readers_could_read_differently_is_refused(bad: bytes, status: int) -> None:
    denied = check_head(bad)
    assert denied is not None
    assert (denied.status, denied.rule) == (status, "http")


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/openai", "", ""),
        ("/openai/", "/", ""),
        ("/openai/chat/completions", "/chat/completions", ""),
        ("/openai/%63hat?a=%62&c=%2f", "/chat", "a=b&c=%2F"),
        ("/openai/models/x:generateContent?alt=sse", "/models/x:generateContent", "alt=sse"),
        ("/openai/caf%c3%a9", "/caf%C3%A9", ""),
        ("/openai/a%20b", "/a%20b", ""),
        ("/openai/x?q=[1]|{2}", "/x", "q=%5B1%5D%7C%7B2%7D"),
        ("/openai/x?next=http://a/../b", "/x", "next=http://a/../b"),
        ("/openai/.../..x", "/.../..x", ""),
    ],
)
def test_a_target_has_one_form(target: str, path: str, query: str) -> None:
    assert read_target(target.encode()) == Target("openai", path, query)


@pytest.mark.parametrize(
    "target",
    [
        "/openai/../admin",
        "/openai/./x",
        "/openai/x/..",
        "/openai/%2e%2e/admin",
        "/openai/.%2E/admin",
        "/openai/..;/admin",
        "/openai/%2e%2e;a=b/admin",
        "/openai/x%2fy",
        "/openai/x%2Fy",
        "/openai/x%5cy",
        "/openai/x\\y",
        "/openai/x%252e%252e",
        "/openai/x%00",
        "/openai/x%0d%0aHost:%20evil",
        "/openai/x%7f",
        "/openai//x",
        "/openai//evil.example/x",
        "/openai/x//",
        "/openai/%zz",
        "/openai/%4",
        "/openai/x#fragment",
        "/openai/x?q=%",
        "/openai/x?q=#",
        '/openai/x?q="',
        "/openai/<x>",
    ],
)
def test_a_path_that_could_lead_elsewhere_is_refused(target: str) -> None:
    denied = read_target(target.encode())
    assert isinstance(denied, Denied)
    assert denied.status == 400


@pytest.mark.parametrize("target", ["/", "//openai/x", "/?x", "/op%65nai/x", "/@openai/x"])
def test_a_path_without_a_service_is_refused(target: str) -> None:
    denied = read_target(target.encode())
    assert isinstance(denied, Denied)
    assert (denied.status, denied.rule) == (404, "services")


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=40))
def test_no_target_leaves_the_path_of_the_service(text: str) -> None:
    target = read_target(f"/openai/{text}".encode())
    if isinstance(target, Target):
        sent = build_target(OPENAI, target)
        assert sent.startswith(b"/v1/")
        path = sent.partition(b"?")[0].decode()
        assert not {".", ".."} & set(path.split("/"))
        assert "//" not in path
        # A second reading changes nothing.
        again = f"/openai{target.path}" + (f"?{target.query}" if target.query else "")
        assert read_target(again.encode()) == target


@pytest.mark.parametrize(
    ("method", "path", "rule"),
    [
        ("POST", "/chat/completions", "POST /chat/completions"),
        ("GET", "/chat/completions", None),
        ("POST", "/chat/completions/", None),
        ("POST", "/chat/completionsx", None),
        ("POST", "/x/chat/completions", None),
        ("GET", "/models", None),
        ("GET", "/models/gpt", "GET /models/*"),
        ("DELETE", "/files/1", "* /files/*"),
        ("POST", "/m/x:generateContent", "POST /m/*:generateContent"),
        ("POST", "/m/x:embed", None),
        ("POST", "/m[x", "POST /m[x"),
    ],
)
def test_what_is_allowed_is_a_method_and_a_path(method: str, path: str, rule: str | None) -> None:
    allow = ["POST /chat/completions", "GET /models/*", "* /files/*", "POST /m/*:generateContent"]
    service = replace(OPENAI, allow=[*allow, "POST /m[x"])
    assert service.allowed_by(method, path) == rule
    assert OPENAI.allowed_by(method, path) == "*"


@given(st.text("/ab*", max_size=8), st.text("/ab", max_size=12))
def test_a_pattern_allows_what_a_regular_expression_would(pattern: str, path: str) -> None:
    service = Service("llm", "https", "h", 443, "", allow=[f"GET /{pattern}"])
    expression = ".*".join(map(re.escape, f"/{pattern}".split("*")))
    allowed = service.allowed_by("GET", f"/{path}") is not None
    assert allowed == bool(re.fullmatch(expression, f"/{path}"))


def test_a_long_path_does_not_keep_the_door_busy() -> None:
    # By a regular expression this takes days.
    service = Service("llm", "https", "h", 443, "", allow=["GET /a*/b*/b*/b*/c"])
    assert service.allowed_by("GET", "/a" + "/b" * 30_000) is None
    assert service.allowed_by("GET", "/a" + "/b" * 30_000 + "/c") is not None


@pytest.mark.parametrize("blank", [b" ", b"\t"])
def test_blanks_within_a_field_do_not_keep_the_door_busy(blank: bytes) -> None:
    # By a regular expression that leaves out those at the end, each of these takes half a minute.
    head = b"GET /llm/x HTTP/1.1\r\nHost: x\r\nX: a" + blank * 60_000 + b"b"
    for _ in range(20):
        assert check_head(head) is None


def test_the_request_is_built_anew() -> None:
    sent = build_headers(
        replace(OPENAI, allow_headers=("x-own-*",)),
        [
            (b"host", b"evil.example"),
            (b"authorization", b"Bearer placeholder"),
            (b"x-api-key", b"placeholder"),
            (b"cookie", b"a=b"),
            (b"connection", b"close, content-type"),
            (b"x-forwarded-host", b"evil.example"),
            (b"x-http-method-override", b"DELETE"),
            (b"x-original-url", b"/admin"),
            (b"range", b"bytes=0-9"),
            (b"accept-encoding", b"gzip"),
            (b"content-type", b"application/json"),
            (b"x-own-thing", b"1"),
            (b"x-stainless-lang", b"python"),
            (b"expect", b"100-continue"),
        ],
        [(b"content-length", b"5")],
    )
    assert sent == [
        (b"host", b"api.example.com"),
        (b"accept-encoding", b"identity"),
        (b"content-type", b"application/json"),
        (b"x-own-thing", b"1"),
        (b"x-stainless-lang", b"python"),
        (b"Authorization", f"Bearer {KEY}".encode()),
        (b"content-length", b"5"),
    ]


@pytest.mark.parametrize(
    "name",
    [
        *("x-http-method-override", "x-method-override", "x-http-method", "forwarded", "x-host"),
        *("x-forwarded-host", "x-forwarded-for", "x-original-url", "x-rewrite-url", "x-real-ip"),
        *("x_http_method_override", "x*forwarded.host", "x-original_url", "proxy", "via"),
        *("x-host-override", "transfer_encoding", "content_length", "accept.encoding"),
    ],
)
@pytest.mark.parametrize("allowed", ["", "x-*", "*"])
def test_no_setting_passes_on_what_names_another_host_path_or_method(
    name: str, allowed: str
) -> None:
    service = replace(OPENAI, allow_headers=(allowed or name,))
    sent = build_headers(service, [(name.encode(), b"evil"), (b"x-mine", b"1")], [])
    assert b"evil" not in dict(sent).values()
    assert ((b"x-mine", b"1") in sent) is bool(allowed)


def test_no_other_spelling_passes_on_a_field_of_the_service() -> None:
    service = replace(OPENAI, headers={"X-Api-Key": "theirs"}, allow_headers=("x*",))
    sent = build_headers(service, [(b"x_api_key", b"mine"), (b"x-api.key", b"mine")], [])
    assert b"mine" not in dict(sent).values()


def test_a_field_of_the_service_is_the_services_alone() -> None:
    service = replace(OPENAI, headers={"OpenAI-Beta": "x"}, allow_headers=("authorization",))
    sent = build_headers(service, [(b"openai-beta", b"mine"), (b"authorization", b"Bearer me")], [])
    assert (b"openai-beta", b"mine") not in sent
    assert (b"authorization", b"Bearer me") in sent


@pytest.mark.parametrize(
    ("host", "port", "authority"),
    [("a.example", 443, "a.example"), ("a.example", 8443, "a.example:8443"), ("::1", 1, "[::1]:1")],
)
def test_the_host_is_the_one_of_the_url(host: str, port: int, authority: str) -> None:
    assert replace(OPENAI, host=host, port=port).authority == authority


def test_parameters_in_which_clients_put_keys_are_dropped() -> None:
    google = replace(OPENAI, drop_query=("key",))
    assert build_target(google, Target("openai", "/x", "key=p&alt=sse&key")) == b"/v1/x?alt=sse"
    assert build_target(google, Target("openai", "/x", "key=p")) == b"/v1/x"


@pytest.mark.parametrize(
    ("location", "seen"),
    [
        ("https://api.example.com/v1/files/1", b"/openai/files/1"),
        ("/v1/files/1?x=y", b"/openai/files/1?x=y"),
        ("2", b"/openai/files/2"),
        ("https://api.example.com:443/v1", b"/openai"),
        ("https://evil.example/v1/files/1", None),
        ("//evil.example/v1/x", None),
        ("http://api.example.com/v1/files/1", None),
        ("https://api.example.com:8443/v1/x", None),
        ("https://user@api.example.com/v1/x", None),
        ("http://127.0.0.1:8080/health", None),
        ("/v2/x", None),
        ("/v1/../admin", None),
        ("/v1/%2e%2e/admin", None),
        ("https://[", None),
        ("https://api.example.com:x/v1", None),
        (f"https://evil.example/?{KEY}", None),
    ],
)
def test_a_redirect_leads_only_to_the_same_service(location: str, seen: bytes | None) -> None:
    passed = build_response_headers(
        OPENAI, "/v1/files/1", [(b"location", location.encode()), (b"date", b"today")]
    )
    expected = [] if seen is None else [(b"location", seen)]
    assert passed == [*expected, (b"date", b"today")]


def test_an_answer_keeps_what_is_no_credential_and_names_nobody_else() -> None:
    passed = build_response_headers(
        OPENAI,
        "/v1/x",
        [
            (b"content-type", b"application/json"),
            (b"content-length", b"7"),
            (b"set-cookie", b"session=1"),
            (b"alt-svc", b'h3="evil.example:443"'),
            (b"connection", b"keep-alive"),
            (b"refresh", b"0; url=https://evil.example"),
            (b"x-echo", f"Bearer {KEY}".encode()),
            (f"x-{KEY}".lower().encode(), b"1"),
            (b"x-ratelimit-remaining", b"9"),
        ],
    )
    assert passed == [
        (b"content-type", b"application/json"),
        (b"content-length", b"7"),
        (b"x-echo", b"Bearer " + b"*" * len(KEY)),
        (b"x-ratelimit-remaining", b"9"),
    ]


def test_a_length_beside_a_coding_is_not_passed_on() -> None:
    fields = [(b"content-length", b"7"), (b"transfer-encoding", b"chunked")]
    assert build_response_headers(OPENAI, "/", fields) == []


@pytest.mark.parametrize("coding", [b"gzip", b"br", b"identity, gzip", b"GZIP"])
def test_a_compressed_answer_cannot_be_searched(coding: bytes) -> None:
    assert why_unreadable([(b"content-encoding", coding)])
    assert why_unreadable([(b"content-encoding", b"identity")]) is None
    assert why_unreadable([]) is None


def test_no_repr_shows_a_key() -> None:
    assert KEY not in repr(OPENAI)
