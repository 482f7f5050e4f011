"""Whose connection it is, and how many each client may have."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.front.addresses import AddressCounts, client_of


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("192.0.2.1", 4000), ("192.0.2.1", 4001), True),
        (("192.0.2.1", 4000), ("192.0.2.2", 4000), False),
        (("2001:db8::1", 1, 0, 0), ("2001:db8::ffff:1:2:3", 1, 0, 0), True),
        (("2001:db8::1", 1, 0, 0), ("2001:db8:0:1::1", 1, 0, 0), False),
        (("::ffff:192.0.2.1", 1, 0, 0), ("192.0.2.1", 1), True),
        (("fe80::1%eth0", 1, 0, 2), ("fe80::2", 1, 0, 2), True),
        (("c000:201::", 1, 0, 0), ("192.0.2.1", 1), False),
    ],
)
def test_a_client_is_its_address_or_the_first_half_of_it(one: Any, other: Any, same: bool) -> None:
    assert client_of(one) is not None
    assert (client_of(one) == client_of(other)) is same


@pytest.mark.parametrize(
    "address",
    [("127.0.0.1", 1), ("127.8.9.1", 1), ("::1", 1, 0, 0), ("::ffff:127.0.0.1", 1, 0, 0), "", b"x"],
)
def test_this_machine_is_not_counted(address: Any) -> None:
    assert client_of(address) is None


def test_one_more_connection_than_allowed_is_refused_until_one_ends() -> None:
    counts = AddressCounts(2)
    assert [counts.enter(b"a") for _ in range(3)] == [True, True, False]
    assert counts.enter(b"b")
    counts.leave(b"a")
    assert [counts.enter(b"a") for _ in range(2)] == [True, False]


def test_a_change_holds_for_those_that_come() -> None:
    counts = AddressCounts(2)
    assert counts.enter(b"a")
    assert counts.enter(b"a")
    counts.most = 1
    assert not counts.enter(b"a")
    counts.leave(b"a")
    assert not counts.enter(b"a")
    counts.leave(b"a")
    assert counts.enter(b"a")


@given(st.lists(st.binary(min_size=1, max_size=1)))
def test_nothing_is_kept_of_clients_without_connections(clients: list[bytes]) -> None:
    counts = AddressCounts(3)
    entered = [client for client in clients if counts.enter(client)]
    for client in entered:
        counts.leave(client)
    assert repr(counts) == "<AddressCounts 0 addresses, at most 3 each>"
