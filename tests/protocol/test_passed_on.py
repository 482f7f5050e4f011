"""The answers of many workers, passed on by somebody in between who is not trusted either."""

from __future__ import annotations

from itertools import count

from protocol import Chunk, End, Malformed, Result
from protocol.errors import Violation
from protocol.gateway_side import GatewayConnection


def passed_on() -> GatewayConnection:
    return GatewayConnection.of_host(ids=count(1))


def test_answers_of_any_number_of_requests_are_read() -> None:
    connection = passed_on()
    ids = [connection.open_request("invoke", events=False) for _ in range(1000)]
    lines = b"".join(b'{"jsonrpc":"2.0","id":%d,"result":{"output":1}}\n' % each for each in ids)
    assert [event.id for event in connection.receive_data(lines) if isinstance(event, Result)] == (
        ids
    )
    assert not connection.in_flight


def test_events_are_read_of_a_request_that_asked_for_them() -> None:
    connection = passed_on()
    with_events = connection.open_request("chat", events=True)
    without = connection.open_request("chat", events=False)
    event = b'{"type":"status","text":"x"}'
    line = b'{"jsonrpc":"2.0","method":"event","params":{"id":%d,"event":' + event + b"}}\n"
    assert len(connection.receive_data(line % with_events)) == 1
    assert connection.receive_data(line % without) == []


def test_a_line_for_a_request_that_was_closed_harms_no_other() -> None:
    connection = passed_on()
    first, second = (connection.open_request("chat", events=False) for _ in range(2))
    connection.close_request(first)
    chunk = b'{"jsonrpc":"2.0","method":"chunk","params":{"id":%d,"chunk":"x"}}\n'
    [late] = connection.receive_data(chunk % first)
    assert isinstance(late, Malformed)
    assert late.id is None
    assert late.error.violation is Violation.CHUNK_AFTER_END
    assert not connection.broken
    [event] = connection.receive_data(chunk % second)
    assert event == Chunk(second, b'"x"')
    [end] = connection.receive_data(b'{"jsonrpc":"2.0","id":%d,"result":{}}\n' % second)
    assert isinstance(end, End)


def test_a_line_for_a_request_that_never_was_breaks_the_connection() -> None:
    connection = passed_on()
    connection.open_request("chat", events=False)
    connection.receive_data(b'{"jsonrpc":"2.0","id":999,"result":{}}\n')
    assert connection.broken


def test_nobody_in_between_says_ready() -> None:
    connection = passed_on()
    connection.receive_data(
        b'{"jsonrpc":"2.0","method":"ready","params":{"protocol":1,"handlers":["chat"]}}\n'
    )
    assert connection.broken
