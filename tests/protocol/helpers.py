"""What the tests of the wire share: connections in a given state, and every way to feed one."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from hypothesis import settings

from protocol import Malformed
from protocol.gateway_side import GatewayConnection
from protocol.worker_side import WorkerConnection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

READY = b'{"method":"ready","params":{"protocol":1,"handlers":["invoke","chat"],"concurrency":8}}\n'

unhurried = settings(deadline=None)
"""A slow machine is not a failing one."""


def gateway(*methods: str, ready: bool = True, **options: Any) -> GatewayConnection:
    """A gateway's end with one request in flight for each of `methods`, ids from 1."""
    connection = GatewayConnection(**({"ids": itertools.count(1)} | options))
    if ready:
        connection.receive_data(READY)
    for method in methods:
        send(connection, method)
    return connection


def request_line(
    connection: GatewayConnection, method: Any, payload: bytes, **options: Any
) -> tuple[int, bytes]:
    """The id and the whole line of a request."""
    request_id, parts = connection.send_request(method, payload, **options)
    return request_id, b"".join(parts)


def send(connection: GatewayConnection, method: str = "invoke") -> int:
    """One request of no interest; returns its id."""
    payload = b"null" if method == "invoke" else b'[{"role":"user","content":"hi"}]'
    return request_line(connection, method, payload, stream=False, request_id="r")[0]


def worker(*methods: str, **options: Any) -> WorkerConnection:
    """A worker's end that owes an answer for each of `methods`, ids from 1."""
    connection = WorkerConnection(**options)
    peer = gateway()
    for method in methods:
        payload = b"null" if method == "invoke" else b"[]"
        connection.receive_data(
            request_line(peer, method, payload, stream=False, request_id="r")[1]
        )
    return connection


def splits(data: bytes) -> Iterator[list[bytes]]:
    """The whole, byte by byte, and in two at each of a few places."""
    yield [data]
    yield [data[i : i + 1] for i in range(len(data))]
    for at in {1, len(data) // 2, len(data) - 1}:
        yield [data[:at], data[at:]]


def said(connection: GatewayConnection, *reads: bytes) -> list[Any]:
    """The events of `reads`, with a violation as a tuple that can be compared."""
    events = [event for read in reads for event in connection.receive_data(read)]
    return [
        (event.id, event.error.violation, event.error.request_id)
        if isinstance(event, Malformed)
        else event
        for event in events
    ]


def said_however_split(make: Callable[[], GatewayConnection], data: bytes) -> list[Any]:
    """The same as `said`, having made sure that the split makes no difference."""
    outcomes = []
    for reads in splits(data):
        connection = make()
        outcomes.append((said(connection, *reads), repr(connection)))
    assert all(outcome == outcomes[0] for outcome in outcomes)
    return outcomes[0][0]
