"""Where the gateway listens: at every address of a name, under one port, or not at all."""

from __future__ import annotations

import errno
import math
import socket
from contextlib import nullcontext
from typing import Any

import pytest

from gateway.config import CallerKeys, ConfigError, ServerSettings
from gateway.front import sockets
from gateway.front.sockets import (
    ListenError,
    addresses_of,
    only_loopback,
    open_listeners,
    refuse_strangers,
    resolve,
    set_unread_limit,
    url_of,
)

FOUR, SIX = socket.AF_INET, socket.AF_INET6


class FakeSocket:
    """Of a machine with the addresses of `Machine`."""

    def __init__(self, machine: Machine, family: int) -> None:
        if family not in machine.families:
            raise OSError(errno.EAFNOSUPPORT, "no such family")
        self.machine = machine
        self.options: set[int] = set()
        self.address: tuple[Any, ...] = ()
        self.closed = self.listening = False

    def setsockopt(self, level: int, option: int, value: int) -> None:
        del level, value
        self.options.add(option)

    def bind(self, address: tuple[Any, ...]) -> None:
        host, port, *others = address
        if host not in self.machine.hosts:
            raise OSError(errno.EADDRNOTAVAIL, "no such address")
        port = port or next(self.machine.free_ports)
        if (host, port) in self.machine.in_use:
            raise OSError(errno.EADDRINUSE, "in use")
        self.address = (host, port, *others)

    def listen(self, backlog: int) -> None:
        assert backlog > 100
        self.listening = True

    def getsockname(self) -> tuple[Any, ...]:
        return self.address

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> FakeSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Machine:
    def __init__(self) -> None:
        self.families = {FOUR, SIX}
        self.hosts = {"127.0.0.1", "::1", "192.0.2.1", "2001:db8::1"}
        self.in_use: set[tuple[str, int]] = set()
        self.free_ports = iter(range(40_000, 50_000))
        self.names = {
            "localhost": ["::1", "127.0.0.1", "127.0.0.1"],
            "four": ["127.0.0.1"],
            "server": ["192.0.2.1", "2001:db8::1"],
            "elsewhere": ["192.0.2.99", "2001:db8::99"],
        }
        self.made: list[FakeSocket] = []

    def getaddrinfo(self, host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        if host not in self.names:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [
            (SIX, 1, 6, "", (each, port, 0, 0)) if ":" in each else (FOUR, 1, 6, "", (each, port))
            for each in self.names[host]
        ]

    def socket(self, family: int, kind: int) -> FakeSocket:
        assert kind == socket.SOCK_STREAM
        self.made.append(FakeSocket(self, family))
        return self.made[-1]

    @property
    def open(self) -> list[tuple[Any, ...]]:
        return [each.address[:2] for each in self.made if not each.closed and each.listening]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr(sockets.socket, "getaddrinfo", machine.getaddrinfo)
    monkeypatch.setattr(sockets.socket, "socket", machine.socket)
    return machine


def test_every_address_of_a_name_is_listened_on(machine: Machine) -> None:
    listeners = open_listeners("localhost", 8080)
    assert machine.open == [("::1", 8080), ("127.0.0.1", 8080)]
    assert url_of("localhost", listeners) == "http://localhost:8080"
    assert socket.IPV6_V6ONLY in machine.made[0].options


def test_a_free_port_is_free_at_every_address(machine: Machine) -> None:
    machine.in_use = {("127.0.0.1", 40_000), ("127.0.0.1", 40_001)}
    open_listeners("localhost", 0)
    assert machine.open == [("::1", 40_002), ("127.0.0.1", 40_002)]
    assert all(each.closed for each in machine.made[:-2])


def test_a_family_that_the_machine_does_not_have_is_left_out(machine: Machine) -> None:
    machine.families = {FOUR}
    listeners = open_listeners("localhost", 8080)
    assert machine.open == [("127.0.0.1", 8080)]
    assert url_of("localhost", listeners) == "http://127.0.0.1:8080"


def test_an_address_that_the_machine_does_not_have_is_left_out(machine: Machine) -> None:
    machine.hosts = {"127.0.0.1"}
    open_listeners("localhost", 8080)
    assert machine.open == [("127.0.0.1", 8080)]
    assert machine.made[0].closed


def test_a_name_without_an_address_of_this_machine_is_an_error(machine: Machine) -> None:
    with pytest.raises(ListenError, match="on elsewhere:8080: no such address; --host "):
        open_listeners("elsewhere", 8080)
    assert all(each.closed for each in machine.made)


@pytest.mark.parametrize("taken", ["::1", "127.0.0.1"])
def test_a_port_that_is_in_use_at_one_address_is_an_error(machine: Machine, taken: str) -> None:
    machine.in_use = {(taken, 8080)}
    with pytest.raises(ListenError, match="on localhost:8080: the port is in use; --host "):
        open_listeners("localhost", 8080)
    assert all(each.closed for each in machine.made)


@pytest.mark.parametrize("name", ["nobody", "a..b", "x" * 300])
def test_a_name_that_is_none_is_an_error(machine: Machine, name: str) -> None:
    with pytest.raises(ListenError, match=r"cannot listen on .*:8080: .*; --host "):
        open_listeners(name, 8080)


def test_a_write_that_nobody_reads_is_bounded_at_every_address(machine: Machine) -> None:
    open_listeners("localhost", 0)
    assert all(socket.TCP_USER_TIMEOUT in each.options for each in machine.made)


@pytest.mark.parametrize(
    ("seconds", "milliseconds"), [(30.0, 30_000), (0.5, 500), (0.0001, 1), (math.inf, 0)]
)
def test_what_a_client_may_leave_unread_is_set_for_its_connection_alone(
    seconds: float, milliseconds: int
) -> None:
    with socket.socket() as connection:
        set_unread_limit(connection, 7)
        set_unread_limit(connection, seconds)
        got = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        assert got == milliseconds
    set_unread_limit(connection, 7)  # it has ended: nothing is to be limited


@pytest.mark.parametrize(
    ("host", "url", "seconds"),
    [
        ("localhost", "http://localhost:80", 0),
        ("four", "http://127.0.0.1:80", 0),
        ("server", "http://server:80", 5),
    ],
)
def test_only_where_others_can_connect_is_there_a_lame_duck_by_default(
    machine: Machine, host: str, url: str, seconds: float
) -> None:
    listeners = open_listeners(host, 80)
    assert url_of(host, listeners) == url
    loopback = only_loopback(addresses_of(listeners))
    assert ServerSettings().lame_duck_seconds(loopback=loopback) == seconds
    assert ServerSettings(lame_duck=3).lame_duck_seconds(loopback=loopback) == 3
    assert ServerSettings(lame_duck=0).lame_duck_seconds(loopback=loopback) == 0


@pytest.mark.parametrize(
    ("addresses", "strangers"),
    [
        (["127.0.0.1"], False),
        (["127.0.0.1", "::1"], False),
        (["127.0.1.1"], False),
        (["::ffff:127.0.0.1"], False),
        (["0.0.0.0"], True),
        (["::"], True),
        (["192.168.1.5"], True),
        (["fe80::1%eth0"], True),
        (["::ffff:10.0.0.1"], True),
        (["127.0.0.1", "192.168.1.5"], True),
        (["::1", "2001:db8::1"], True),
    ],
)
def test_strangers_are_refused_where_any_address_can_be_reached_and_nobody_needs_a_key(
    addresses: list[str], strangers: bool
) -> None:
    with pytest.raises(ConfigError, match="no keys") if strangers else nullcontext():
        refuse_strangers(ServerSettings(host="box"), CallerKeys(), addresses)
    refuse_strangers(ServerSettings(allow_anonymous=True), CallerKeys(), addresses)
    refuse_strangers(ServerSettings(), CallerKeys(on=True), addresses)


def test_a_name_that_cannot_be_resolved_now_is_no_address() -> None:
    assert resolve("no.such.host.invalid") == []
    assert resolve("x" * 300) == []
    assert resolve("127.0.0.1") == ["127.0.0.1"]
