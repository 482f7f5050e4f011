"""Which hosts are answered: names that no stranger can have resolved, and what the settings add."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from werkzeug.routing import Map

from gateway.config import ServerSettings
from gateway.errors import InvalidRequest, MisdirectedRequest
from gateway.front import hosts as hosts_module
from gateway.front.hosts import KnownHosts, parse_authority
from tests.unit.conftest import unhurried

LOOPBACK = "127.0.0.1"
LAN = "192.168.1.5"


def known(*hosts: str, host: str = LOOPBACK) -> KnownHosts:
    return KnownHosts(ServerSettings(host=host, hosts=list(hosts)), "Box.lan")


ANSWERED = {
    "localhost": [
        (LOOPBACK, LOOPBACK, b"localhost"),
        (LOOPBACK, LOOPBACK, b"LocalHost:8080"),
        (LOOPBACK, LOOPBACK, b"localhost."),
        (LOOPBACK, LOOPBACK, b"agents.localhost:1"),
        (LAN, LAN, b"localhost"),
        ("0.0.0.0", LAN, b"localhost"),
        ("localhost", "::1", b"localhost:80"),
    ],
    "the address that it came to": [
        (LOOPBACK, LOOPBACK, b"127.0.0.1"),
        (LOOPBACK, LOOPBACK, b"127.0.0.1.:8080"),
        (LAN, LAN, b"192.168.1.5:8080"),
        (LAN, LAN, b"192.168.1.5:1"),
        ("box", "2001:db8::1", b"[2001:DB8:0::1]:8080"),
        ("fe80::1", "fe80::1%eth0", b"[fe80::1]"),
        ("fe80::1", "fe80::1%eth0", b"[fe80::1%25eth0]:80"),
        ("::1", "::ffff:192.168.1.5", b"192.168.1.5"),
        ("gateway.internal", LAN, b"192.168.1.5"),
    ],
    "any loopback address on loopback": [
        (LOOPBACK, LOOPBACK, b"127.1.2.3"),
        (LOOPBACK, LOOPBACK, b"[::1]:8080"),
        ("::1", "::1", b"127.0.0.1:8080"),
        ("::1", "::1", b"[::ffff:127.0.0.1]"),
    ],
    "the configured host": [
        ("gateway.internal", LAN, b"Gateway.Internal:9"),
        (LAN, "10.0.0.1", b"192.168.1.5"),
    ],
    "any address and the machine's name where it listens on all": [
        ("0.0.0.0", LAN, b"203.0.113.9:80"),
        ("0.0.0.0", LAN, b"[2001:db8::2]"),
        ("0.0.0.0", LAN, b"0.0.0.0:8080"),
        ("::", "::ffff:192.168.1.5", b"10.0.0.1"),
        ("0.0.0.0", LAN, b"box.lan"),
        ("::", "::1", b"BOX.LAN:8080"),
    ],
}


@pytest.mark.parametrize(
    ("listens_on", "own", "asked"), [case for cases in ANSWERED.values() for case in cases]
)
def test_a_host_that_belongs_to_where_it_listens_is_answered(listens_on, own, asked) -> None:
    gateway = known(host=listens_on)
    for _ in range(2):  # the second verdict is remembered
        gateway.check(asked, own)


@pytest.mark.parametrize(
    ("listens_on", "own", "asked"),
    [
        (LOOPBACK, LOOPBACK, b"evil.example"),
        (LOOPBACK, LOOPBACK, b"evil.example:8080"),
        (LOOPBACK, LOOPBACK, b"localhost.evil.example"),
        (LOOPBACK, LOOPBACK, b"evillocalhost"),
        (LOOPBACK, LOOPBACK, b"127.0.0.1.evil.example"),
        (LOOPBACK, LOOPBACK, b"box.lan"),
        (LOOPBACK, LOOPBACK, b"192.168.1.5"),
        (LOOPBACK, LOOPBACK, b"0.0.0.0:8080"),
        (LAN, LAN, b"127.0.0.1"),
        (LAN, LAN, b"192.168.1.6"),
        (LAN, LAN, b"box.lan"),
        ("0.0.0.0", LAN, b"evil.example"),
        ("0.0.0.0", LAN, b"box"),
        ("::", LAN, b"not.box.lan"),
        ("gateway.internal", LAN, b"internal"),
    ],
)
def test_any_other_is_misdirected_whatever_was_asked_before(listens_on, own, asked) -> None:
    gateway = known(host=listens_on)
    gateway.check(b"localhost", own)
    for _ in range(2):
        with pytest.raises(MisdirectedRequest):
            gateway.check(asked, own)


def test_a_verdict_holds_for_the_address_that_was_asked_alone() -> None:
    gateway = known(host="gateway.internal")
    gateway.check(b"192.168.1.5", LAN)
    with pytest.raises(MisdirectedRequest):
        gateway.check(b"192.168.1.5", "10.0.0.1")


def test_the_settings_add_names_addresses_and_all_names_below_one() -> None:
    gateway = known("Gateway.example.", "*.Example.org", "10.0.0.1", "2001:db8::1")
    for asked in (
        b"gateway.example:443",
        b"GATEWAY.EXAMPLE.",
        b"a.example.org",
        b"a.b.example.org:1",
        b"10.0.0.1",
        b"[2001:db8::1]:80",
        b"localhost",
    ):
        gateway.check(asked, LOOPBACK)
    for asked in (b"example.org", b"aexample.org", b"a.gateway.example", b"a.example.org.evil"):
        with pytest.raises(MisdirectedRequest):
            gateway.check(asked, LOOPBACK)


def test_an_asterisk_answers_every_host_that_can_be_read() -> None:
    gateway = known("*")
    gateway.check(b"evil.example", LOOPBACK)
    with pytest.raises(InvalidRequest):
        gateway.check(b"a..b", LOOPBACK)


def test_the_refusal_names_what_came_what_was_expected_and_the_setting() -> None:
    with pytest.raises(MisdirectedRequest) as caught:
        known("*.example.org").check(b"backend:8080", LOOPBACK)
    message = caught.value.message
    for words in ("'backend:8080'", "127.0.0.1", "localhost", "*.example.org", "[server] hosts"):
        assert words in message
    with pytest.raises(MisdirectedRequest, match="any IP address or localhost or"):
        known(host="0.0.0.0").check(b"backend", LAN)
    many = known(*(f"host-{n}.example" for n in range(1000)))
    with pytest.raises(MisdirectedRequest) as caught:
        many.check(b"evil.example", LOOPBACK)
    assert len(caught.value.message) < 400


UNREADABLE = [
    b"",
    b":8080",
    b".",
    b"a..b",
    b".a",
    b"a..",
    b"a b",
    b"a/b",
    b"a,b",
    b"a\nb",
    b"user@localhost",
    b"localhost:80:80",
    b"localhost:http",
    b"localhost:-1",
    b"localhost:65536",
    b"localhost:000080",
    b"::1",
    b"[::1",
    b"[::1]]",
    b"[]",
    b"[localhost]",
    b"[127.0.0.1]",
    b"[::g]",
    b"[::1]x",
    b"%6cocalhost",
    b"b\xc3\xbccher.example",
    b"x" * 64,
    b".".join([b"x" * 60] * 5),
    b"x." * 10_000,
]


@pytest.mark.parametrize("asked", UNREADABLE)
def test_what_is_no_host_is_a_bad_request(asked: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        known("*").check(asked, LOOPBACK)
    assert type(caught.value) is InvalidRequest
    assert caught.value.message.startswith("Host is ")
    assert len(caught.value.message) < 400


@unhurried
@given(st.binary(max_size=80) | st.text("aA.-_:[]%019", max_size=80).map(str.encode))
@example(b"[::1]:0")
@example(b"x" * 63 + b".")
def test_whatever_is_read_is_no_stumbling_block_for_the_routing_behind(asked: bytes) -> None:
    try:
        parse_authority(asked)
    except InvalidRequest:
        return
    Map().bind(asked.decode())  # raises BadHost otherwise, where nothing answers it


def test_verdicts_are_remembered_within_bounds() -> None:
    gateway = known("*")
    most = hosts_module._MOST_ACCEPTED
    for number in range(3 * most):
        gateway.check(b"host-%d.example" % number, LOOPBACK)
    assert len(gateway._accepted) <= most
