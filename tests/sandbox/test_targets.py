"""What an agent may ask the proxy for: the grammar of a request, and the settings' patterns."""

from __future__ import annotations

import ipaddress
import random
import re
import socket
from collections.abc import Callable

import pytest
from hypothesis import example, find, given, settings
from hypothesis import strategies as st

from gateway.sandbox.network.targets import (
    MAX_REASON,
    Asked,
    Policy,
    ProxyRefusal,
    parse_request,
    without_wildcard,
)


@pytest.mark.parametrize(
    ("hosts", "host", "port", "pattern"),
    [
        (("a.com:443",), "a.com", 443, "a.com:443"),
        (("a.com:443",), "A.COM.", 443, "a.com:443"),
        (("a.com:443",), "a.com", 80, None),
        (("a.com:*",), "a.com", 80, "a.com:*"),
        (("a.com:443",), "b.a.com", 443, None),
        (("*.a.com:443",), "b.a.com", 443, "*.a.com:443"),
        (("*.a.com:443",), "c.b.a.com", 443, "*.a.com:443"),
        (("*.a.com:443",), "a.com", 443, None),
        (("*.a.com:443",), "xa.com", 443, None),
        (("*:443",), "10.0.0.1", 443, "*:443"),
        (("*:*", "a.com:443"), "a.com", 443, "a.com:443"),
        (("a.com:443",), "a?com", 443, None),
        ((), "a.com", 443, None),
    ],
)
def test_patterns_fit_names_and_ports(
    hosts: tuple[str, ...], host: str, port: int, pattern: str | None
) -> None:
    assert Policy(hosts).match(host, port) == pattern


@pytest.mark.parametrize(
    ("head", "target"),
    [
        (b"CONNECT a.com:443 HTTP/1.1\r\nHost: a.com:443", ("a.com", 443)),
        (b"CONNECT [::1]:443 HTTP/1.0", ("::1", 443)),
        (b"CONNECT [0:0::0:1]:443 HTTP/1.1", ("::1", 443)),
        (b"CONNECT A.Com.:443 HTTP/1.1", ("a.com", 443)),
        (b"CONNECT 192.0.2.1:1 HTTP/1.1", ("192.0.2.1", 1)),
        (b"CONNECT xn--9ca.invalid:65535 HTTP/1.1", ("xn--9ca.invalid", 65535)),
        (b"CONNECT a.com:443 HTTP/1.1\r\nA: \xff\r\nB:", ("a.com", 443)),
    ],
)
def test_a_connect_names_host_and_port(head: bytes, target: tuple[str, int]) -> None:
    assert parse_request(head) == Asked("CONNECT", *target)


FORGED = b"Host: x\r\nProxy-Connection: keep-alive\r\nConnection: keep-alive\r\nUpgrade: x\r\nA: b"


@pytest.mark.parametrize(
    ("head", "asked"),
    [
        (
            b"GET http://a.com/x?y=z HTTP/1.1\r\n" + FORGED,
            Asked(
                "GET",
                "a.com",
                80,
                b"GET /x?y=z HTTP/1.1\r\nHost: a.com\r\nA: b\r\nConnection: close\r\n\r\n",
            ),
        ),
        (
            b"POST http://A.com:8000 HTTP/1.0",
            Asked(
                "POST",
                "a.com",
                8000,
                b"POST / HTTP/1.1\r\nHost: A.com:8000\r\nConnection: close\r\n\r\n",
            ),
        ),
        (
            b"GET http://[::1]:8000?x HTTP/1.1",
            Asked(
                "GET",
                "::1",
                8000,
                b"GET /?x HTTP/1.1\r\nHost: [::1]:8000\r\nConnection: close\r\n\r\n",
            ),
        ),
    ],
)
def test_a_request_without_tls_is_sent_in_the_form_for_a_server(head: bytes, asked: Asked) -> None:
    assert parse_request(head) == asked


def test_only_a_pattern_with_a_scheme_allows_what_has_no_tls() -> None:
    policy = Policy(("a.com:80", "http://b.com:80", "http://*.c.com:*"))
    assert policy.match("a.com", 80, plain=True) is None
    assert policy.match("b.com", 80, plain=True) == "http://b.com:80"
    assert policy.match("x.c.com", 8000, plain=True) == "http://*.c.com:*"
    assert policy.match("c.com", 80, plain=True) is None
    assert policy.match("b.com", 80) == "http://b.com:80"
    assert without_wildcard("http://b.com:*")
    assert not without_wildcard("http://*.c.com:80")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET https://a.com/ HTTP/1.1", 405),
        (b"GET /x HTTP/1.1", 405),
        (b"GET http:///x HTTP/1.1", 405),
        (b"GET http://a@b.com/x HTTP/1.1", 400),
        (b"GET http://a.com:0/x HTTP/1.1", 400),
        (b"GET http://a..com/x HTTP/1.1", 400),
        (b"GET http://a.com#x HTTP/1.1", 405),
        (b"CONNECT a.com HTTP/1.1", 400),
        (b"CONNECT a.com:99999 HTTP/1.1", 400),
        (b"CONNECT :443 HTTP/1.1", 400),
        (b"CONNECT a.com:443", 400),
        (b"\x16\x03\x01\x02\x00", 400),
        (b"CONNECT evil.invalid\0.good.invalid:443 HTTP/1.1", 400),
        (b"CONNECT evil.invalid%00.good.invalid:443 HTTP/1.1", 400),
        (b"CONNECT ..example.invalid:443 HTTP/1.1", 400),
        (b"CONNECT a..invalid:443 HTTP/1.1", 400),
        (b"CONNECT .:443 HTTP/1.1", 400),
        (b"CONNECT a.invalid..:443 HTTP/1.1", 400),
        (b"CONNECT -a.invalid:443 HTTP/1.1", 400),
        (b"CONNECT a-.invalid:443 HTTP/1.1", 400),
        (b"CONNECT a_b.invalid:443 HTTP/1.1", 400),
        (b"CONNECT " + b"a" * 64 + b".invalid:443 HTTP/1.1", 400),
        (b"CONNECT " + b"a." * 126 + b"invalid:443 HTTP/1.1", 400),
        (b"CONNECT \xc3\xa9.invalid:443 HTTP/1.1", 400),
        (b"CONNECT u@a.invalid:443 HTTP/1.1", 400),
        (b"CONNECT http://a.invalid:443 HTTP/1.1", 400),
        (b"CONNECT a.invalid:443/x HTTP/1.1", 400),
        (b"CONNECT ::1:443 HTTP/1.1", 400),
        (b"CONNECT [::1%25lo]:443 HTTP/1.1", 400),
        (b"CONNECT [:::]:443 HTTP/1.1", 400),
        (b"CONNECT [a.invalid]:443 HTTP/1.1", 400),
        (b"CONNECT a.invalid:0 HTTP/1.1", 400),
        (b"CONNECT a.invalid:0443 HTTP/1.1", 400),
        (b"CONNECT a.invalid:+443 HTTP/1.1", 400),
        (b"CONNECT a.invalid:\xd9\xa4 HTTP/1.1", 400),
        (b"CONNECT  a.invalid:443 HTTP/1.1", 400),
        (b"CONNECT a.invalid:443 HTTP/1.1 ", 400),
        (b"CONNECT a.invalid:443 HTTP/2.0", 400),
        (b"CONNECT a.invalid:443 HTTP/1.1\nHost: a", 400),
        (b"CONNECT a.invalid:443 HTTP/1.1\r\nHost: a\0b", 400),
        (b"CONNECT a.invalid:443 HTTP/1.1\r\n folded", 400),
        (b"CONNECT\ta.invalid:443 HTTP/1.1", 400),
        (b"connect a.com:443 HTTP/1.1", 405),
        (b"", 400),
    ],
)
def test_any_other_request_is_refused_with_its_status(head: bytes, status: int) -> None:
    with pytest.raises(ProxyRefusal) as caught:
        parse_request(head)
    assert caught.value.status == status


def naive_connect(head: bytes) -> tuple[str, int]:
    """For controls: the target as a proxy reads it that has no grammar for the whole request."""
    method, target, version = head.split(b"\r\n")[0].decode("ascii", "replace").split(" ", 2)
    host, _, port = target.rpartition(":")
    if (method, version[:7]) != ("CONNECT", "HTTP/1.") or not port.isdigit():
        raise ProxyRefusal(400, "this is no request of HTTP/1.1")
    return host.removeprefix("[").removesuffix("]"), int(port)


def parsed(head: bytes) -> tuple[str, int]:
    asked = parse_request(head)
    return asked.host, asked.port


HEADS = st.binary(max_size=80) | st.builds(
    b"%b %b:%b HTTP/1.%b".__mod__,
    st.tuples(
        st.sampled_from([b"CONNECT", b"GET", b"connect"]),
        st.text(st.sampled_from("ab-.:[]%\0\r\n\té0")).map(str.encode),
        st.sampled_from([b"443", b"0", b"65536", b"-1", b"", b"4\0"]),
        st.sampled_from([b"1", b"1\r\nA: b", b"1\r\n\0", b""]),
    ),
)


def defect(parse: Callable[[bytes], tuple[str, int]], head: bytes) -> str | None:
    """What is wrong with what is made of these bytes, which may be any: None if it is a host of the
    grammar, or a refusal in one printable line."""
    try:
        host, port = parse(head)
    except ProxyRefusal as refusal:
        printable = re.fullmatch(rf"[ -~]{{1,{MAX_REASON}}}", str(refusal))
        return None if printable and refusal.status in {400, 405} else f"{refusal!r}"
    except Exception as error:
        return f"{error!r}"
    if not 0 < port < 65536:
        return f"port {port}"
    try:
        named = re.fullmatch(r"[0-9a-z]([0-9a-z.-]*[0-9a-z])?", host) and host.encode("idna")
        whole = named or str(ipaddress.IPv6Address(host)) == host
    except ValueError as error:
        return f"{host!r}: {error!r}"
    return None if whole else f"{host!r}"


@given(HEADS)
@example(b"CONNECT [::ffff:127.0.0.1]:1 HTTP/1.1")
def test_any_bytes_name_a_host_of_the_grammar_or_are_refused_in_one_printable_line(
    head: bytes,
) -> None:
    assert defect(parsed, head) is None


@pytest.mark.parametrize("kind", ["\0", "ValueError", "port 65536"])
def test_the_control_finds_defects_with_the_same_bytes_where_there_is_no_grammar(kind: str) -> None:
    head = find(
        HEADS,
        lambda head: kind in str(defect(naive_connect, head)).replace("\\x00", "\0"),
        settings=settings(max_examples=20_000, database=None, deadline=None),
        random=random.Random(0),
    )
    assert defect(parsed, head) is None


@pytest.mark.parametrize(
    "head",
    [
        b"CONNECT 127.0.0.1\0.good.invalid:443 HTTP/1.1",
        b"CONNECT x\n.good.invalid:443 HTTP/1.1",
        b"CONNECT evil.invalid/.good.invalid:443 HTTP/1.1",
    ],
)
def test_no_name_is_matched_that_another_reader_would_end_earlier(head: bytes) -> None:
    # The control: without the grammar, the name fits the pattern.
    assert Policy(("*.good.invalid:443",)).match(*naive_connect(head)) == "*.good.invalid:443"
    with pytest.raises(ProxyRefusal):
        parsed(head)


def test_the_resolver_does_end_a_name_at_a_nul_byte() -> None:
    """The control: what fits the pattern `*.good.invalid` is resolved to somebody else."""
    host, port = naive_connect(b"CONNECT 127.0.0.1\0.good.invalid:443 HTTP/1.1")
    [(*_, address)] = socket.getaddrinfo(host.encode(), port, type=socket.SOCK_STREAM)
    assert address == ("127.0.0.1", 443)
