"""Events: what may stand in one, what belongs together, and what becomes of a wrong one."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgspec
import pytest

from protocol import (
    MAX_LINE_BYTES,
    Chunk,
    End,
    Event,
    LocalProtocolError,
    Malformed,
    Outcome,
    Result,
    Violation,
)
from protocol.events import (
    MAX_ASK_MESSAGE,
    MAX_ASKS,
    MAX_CALLS,
    MAX_EVENT_BYTES,
    MAX_FILE_NAME,
    MAX_ID,
    MAX_PATH,
    MAX_SCHEMA_BYTES,
    MAX_STATUS_TEXT,
    MAX_TOOL_NAME,
    MAX_TYPE,
    MAX_USAGE_MEMBERS,
)
from protocol.gateway_side import GatewayConnection
from protocol.worker_side import WorkerConnection

from .helpers import gateway, request_line, said, said_however_split

V = Violation


def asking(method: str = "invoke") -> GatewayConnection:
    """A gateway's end whose one request, 1, asks for events."""
    connection = gateway()
    request_line(connection, method, b'[{"role":"user"}]', stream=True, request_id="r", events=True)
    return connection


def event_line(event: bytes, request_id: int = 1) -> bytes:
    return b'{"method":"event","params":{"id":%d,"event":%b}}\n' % (request_id, event)


def events(*each: bytes) -> list[Any]:
    return said(asking(), b"".join(map(event_line, each)))


LEGAL = [
    b'{"type":"reasoning","text":"Need the weather. "}',
    b'{"type":"reasoning","text":""}',
    b'{"type":"tool_call","call":"c1","name":"weather","arguments":{"city":"Oslo"}}',
    b'{"type":"tool_call","call":"c1","name":"weather","delta":"{\\"ci"}',
    b'{"type":"tool_result","call":"c1","content":"12"}',
    b'{"type":"tool_result","call":"c1","content":[null,{"a":1e999}],"is_error":true}',
    b'{"type":"file","name":"a.png","mime":"image/png","data":"aGVsbG8="}',
    b'{"type":"file","name":"a.png","mime":"image/png","path":"out/a.png"}',
    b'{"type":"status","text":"reading","progress":1,"total":3}',
    b'{"type":"status","text":"reading","progress":0.5}',
    b'{"type":"state","value":null}',
    b'{"type":"state","patch":[{"op":"remove","path":"/a"}]}',
    b'{"type":"usage","input_tokens":7,"output_tokens":3}',
    b'{"type":"usage"}',
    b'{"type":"x-mine","whatever":[1]}',
    b'{"text":"the type may come last","more":1,"type":"reasoning"}',
]


@pytest.mark.parametrize("event", LEGAL)
def test_an_event_passes_as_the_bytes_that_it_came_in(event: bytes) -> None:
    assert said_however_split(asking, event_line(event)) == [Event(1, event)]


@pytest.mark.parametrize("event", LEGAL)
def test_what_one_end_sends_the_other_takes(event: bytes) -> None:
    worker = WorkerConnection()
    peer = gateway()
    worker.receive_data(
        request_line(peer, "chat", b"[]", stream=True, request_id="r", events=True)[1]
    )
    assert said(peer, worker.send_event(1, msgspec.Raw(event))) == [Event(1, event)]


def sized(head: bytes, size: int, tail: bytes) -> bytes:
    return head + b"x" * size + tail


ILLEGAL = {
    "no object": b'"text"',
    "an array": b"[]",
    "null": b"null",
    "no type": b'{"text":"a"}',
    "a type that is no string": b'{"type":1}',
    "an unknown type": b'{"type":"thought","text":"a"}',
    "an empty custom type": b'{"type":"x-"}',
    "a long custom type": sized(b'{"type":"x-', MAX_TYPE - 1, b'"}'),
    "two types": b'{"type":"reasoning","text":"a","type":"usage"}',
    "a custom type that becomes a known one": b'{"type":"x-a","type":"usage","input_tokens":"7"}',
    "reasoning without text": b'{"type":"reasoning"}',
    "reasoning that is no text": b'{"type":"reasoning","text":1}',
    "8 MiB of reasoning": sized(b'{"type":"reasoning","text":"', MAX_EVENT_BYTES, b'"}'),
    "a huge custom event": sized(b'{"type":"x-a","text":"', MAX_EVENT_BYTES, b'"}'),
    "a call without an id": b'{"type":"tool_call","name":"a","arguments":{}}',
    "a call with an empty id": b'{"type":"tool_call","call":"","name":"a","arguments":{}}',
    "a call with a long id": sized(
        b'{"type":"tool_call","name":"a","arguments":{},"call":"', MAX_ID + 1, b'"}'
    ),
    "a call without a name": b'{"type":"tool_call","call":"c","arguments":{}}',
    "a call with a long name": sized(
        b'{"type":"tool_call","call":"c","arguments":{},"name":"', MAX_TOOL_NAME + 1, b'"}'
    ),
    "a call of nothing": b'{"type":"tool_call","call":"c","name":"a"}',
    "a call of both kinds": b'{"type":"tool_call","call":"c","name":"a","arguments":{},"delta":""}',
    "arguments in a list": b'{"type":"tool_call","call":"c","name":"a","arguments":[]}',
    "a delta that is no text": b'{"type":"tool_call","call":"c","name":"a","delta":{}}',
    "a result without content": b'{"type":"tool_result","call":"c"}',
    "a result of no call": b'{"type":"tool_result","content":1}',
    "is_error in words": b'{"type":"tool_result","call":"c","content":1,"is_error":"no"}',
    "a file of nothing": b'{"type":"file","name":"a","mime":"a/b"}',
    "a file of both kinds": b'{"type":"file","name":"a","mime":"a/b","data":"","path":"p"}',
    "data that is not base64": b'{"type":"file","name":"a","mime":"a/b","data":"?"}',
    "a mime type of one word": b'{"type":"file","name":"a","mime":"png","data":""}',
    "a mime type of two lines": b'{"type":"file","name":"a","mime":"a/b\\r\\nX: y","data":""}',
    "a long file name": sized(
        b'{"type":"file","mime":"a/b","data":"","name":"', MAX_FILE_NAME + 1, b'"}'
    ),
    "a long path": sized(b'{"type":"file","mime":"a/b","name":"a","path":"', MAX_PATH + 1, b'"}'),
    "a long status": sized(b'{"type":"status","text":"', MAX_STATUS_TEXT + 1, b'"}'),
    "progress without a number": b'{"type":"status","text":"a","progress":"1"}',
    "negative progress": b'{"type":"status","text":"a","progress":-1}',
    "progress beyond numbers": b'{"type":"status","text":"a","progress":1e999}',
    "a state of nothing": b'{"type":"state"}',
    "a state of both kinds": b'{"type":"state","value":1,"patch":[]}',
    "a patch that is no list": b'{"type":"state","patch":{}}',
    "negative usage": b'{"type":"usage","input_tokens":-1}',
    "usage beyond numbers": b'{"type":"usage","input_tokens":1e999}',
    "usage beyond what is exact": b'{"type":"usage","input_tokens":9007199254740992}',
    "usage of 5,000 digits": sized(b'{"type":"usage","input_tokens":1', 0, b"0" * 5000 + b"}"),
    "usage in words": b'{"type":"usage","input_tokens":"7"}',
    "usage by another's name": b'{"type":"usage","input_tokens":"usage"}',
    "usage in halves": b'{"type":"usage","input_tokens":0.5}',
    "usage that is nothing": b'{"type":"usage","input_tokens":null}',
    "usage that was right before": b'{"type":"usage","input_tokens":7,"input_tokens":-7}',
    "usage of too many things": b'{"type":"usage"%b}'
    % b"".join(b',"a%d":1' % n for n in range(MAX_USAGE_MEMBERS + 1)),
    "usage of a million things": b'{"type":"usage"%b}'
    % b"".join(b',"%x":1' % n for n in range(100_000)),
    "usage with a long name": sized(b'{"type":"usage","', 65, b'":1}'),
}


@pytest.mark.parametrize("event", ILLEGAL.values(), ids=ILLEGAL)
def test_a_wrong_event_costs_its_request_and_no_other(event: bytes) -> None:
    connection = asking()
    other = request_line(connection, "invoke", b"1", stream=False, request_id="r", events=True)[0]
    assert said(connection, event_line(event)) == [(1, V.WRONG_SHAPE, 1)]
    assert connection.in_flight == {other}
    assert not connection.broken


@pytest.mark.parametrize("event", ILLEGAL.values(), ids=ILLEGAL)
def test_a_worker_that_uses_this_end_cannot_send_a_wrong_event(event: bytes) -> None:
    worker = worker_asked_for_events()
    before = repr(worker)
    with pytest.raises(LocalProtocolError):
        worker.send_event(1, msgspec.Raw(event))
    assert repr(worker) == before
    assert b'"chunk":"on"' in worker.send_chunk(1, "on")


def worker_asked_for_events(method: str = "chat") -> WorkerConnection:
    worker = WorkerConnection()
    line = request_line(gateway(), method, b"[]", stream=True, request_id="r", events=True)[1]
    worker.receive_data(line)
    return worker


def test_what_is_not_json_costs_the_connection_as_everywhere() -> None:
    for event in (b'{"type":"usage","input_tokens":NaN}', b'{"type":"usage"', b""):
        assert said(asking(), event_line(event)) == [(None, V.NOT_JSON, None)]


def test_an_event_that_nests_too_deeply_costs_the_connection_as_everywhere() -> None:
    deep = b'{"type":"x-a","a":%b%b}' % (b"[" * 600, b"]" * 600)
    assert said(asking(), event_line(deep)) == [(None, V.NESTED_TOO_DEEPLY, None)]


def test_an_event_within_all_bounds_passes() -> None:
    text = MAX_EVENT_BYTES - len(b'{"type":"reasoning","text":""}')
    largest = sized(b'{"type":"reasoning","text":"', text, b'"}')
    [event] = events(largest)
    assert event.event == largest


def nearly_a_line(head: bytes, tail: bytes) -> bytes:
    return head + b"A" * ((MAX_LINE_BYTES - len(event_line(head + tail))) // 4 * 4) + tail


def test_an_event_as_long_as_a_line_is_refused_without_being_decoded() -> None:
    event = nearly_a_line(b'{"type":"reasoning","text":"', b'"}')
    line = event_line(event)
    connection = asking()
    tracemalloc.start()
    told = said(connection, line)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert told == [(1, V.WRONG_SHAPE, 1)]
    # The line, and its event in a buffer that grew by half; a string would be as much again.
    assert peak < 2.75 * len(line)
    assert not connection.broken


def test_a_file_as_long_as_a_line_passes() -> None:
    event = nearly_a_line(b'{"type":"file","name":"a","mime":"image/png","data":"', b'"}')
    assert events(event) == [Event(1, event)]


def test_only_a_file_may_be_longer_than_other_events() -> None:
    data = b"A" * (4 * MAX_EVENT_BYTES)
    large = b'{"type":"file","name":"a","mime":"image/png","data":"%b"}' % data
    [event] = events(large)
    assert event.event == large


def test_line_ends_between_the_tokens_of_an_event_do_not_reach_a_client() -> None:
    event = '{"type":\r"x-a",\r"text":"\u2028\u0085"}'.encode()
    assert events(event) == [Event(1, b'{"type": "x-a", "text":"\\u2028\\u0085"}')]


# Where events may stand


def test_events_stand_among_chunks_in_the_order_in_which_they_were_said() -> None:
    chunk = b'{"method":"chunk","params":{"id":1,"chunk":"%d"}}\n'
    thought = b'{"type":"reasoning","text":""}'
    lines = [line for n in range(9) for line in (chunk % n, chunk % n, event_line(thought))]
    expected = [
        each
        for n in range(9)
        for each in (Chunk(1, b'"%d"' % n), Chunk(1, b'"%d"' % n), Event(1, thought))
    ]
    assert said(asking(), b"".join(lines)) == expected


def test_a_result_may_follow_events_but_no_chunk() -> None:
    thought = event_line(b'{"type":"reasoning","text":""}')
    assert said(asking(), thought, b'{"id":1,"result":{"output":1}}\n')[1:] == [Result(1, b"1")]


def test_an_event_after_the_end_is_told_and_harms_nobody() -> None:
    connection = asking()
    said(connection, b'{"id":1,"result":{}}\n')
    thought = event_line(b'{"type":"reasoning","text":""}')
    assert said(connection, thought) == [(None, V.EVENT_AFTER_END, 1)]
    assert not connection.broken


def test_an_event_for_a_request_that_was_never_sent_costs_the_connection() -> None:
    thought = event_line(b'{"type":"reasoning","text":""}', request_id=7)
    assert said(asking(), thought) == [(None, V.UNKNOWN_ID, None)]


@pytest.mark.parametrize(
    ("line", "placed"),
    [
        (b'{"method":"event"}', False),
        (b'{"method":"event","params":{"event":{}}}', False),
        (b'{"method":"event","params":{"id":1}}', True),
        (b'{"method":"event","params":{"id":1,"chunk":"a"}}', True),
        (b'{"id":1,"method":"event","params":{"id":1,"event":{}}}', False),
        (b'{"method":"event","params":{"id":"1","event":{}}}', False),
    ],
)
def test_an_event_without_its_members_is_no_message(line: bytes, placed: bool) -> None:
    expected = (1, V.WRONG_SHAPE, 1) if placed else (None, V.WRONG_SHAPE, None)
    assert said(asking(), line + b"\n") == [expected]


@pytest.mark.parametrize("event", [*LEGAL, *ILLEGAL.values()])
def test_events_that_were_not_asked_for_are_dropped_unread(event: bytes) -> None:
    connection = gateway("invoke")
    assert said(connection, event_line(event), b'{"id":1,"result":{"output":1}}\n') == [
        Result(1, b"1")
    ]


def test_an_outcome_that_was_not_asked_for_is_dropped_unread() -> None:
    line = b'{"id":1,"result":{"output":1,"finish":7,"usage":[],"asks":"?"}}\n'
    assert said(gateway("invoke"), line) == [Result(1, b"1")]


def test_a_worker_does_not_say_what_it_was_not_asked_for() -> None:
    worker = WorkerConnection()
    worker.receive_data(request_line(gateway(), "invoke", b"1", stream=True, request_id="r")[1])
    with pytest.raises(LocalProtocolError, match="does not say 'events'"):
        worker.send_event(1, {"type": "reasoning", "text": ""})
    with pytest.raises(LocalProtocolError, match="does not say 'events'"):
        worker.send_end(1, outcome=Outcome("stop"))
    assert worker.open_requests == {1}


# What belongs together


def call(call_id: str, name: str = "a", **part: Any) -> bytes:
    return msgspec.json.encode({"type": "tool_call", "call": call_id, "name": name, **part})


def test_a_tool_call_comes_whole_or_in_pieces() -> None:
    whole = [
        call("1", arguments={}),
        call("2", delta='{"a"'),
        call("3", delta=""),
        call("2", delta=":1}"),
    ]
    assert [event.event for event in events(*whole)] == whole


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (call("1", arguments={}), call("1", arguments={}), "goes on after all its arguments"),
        (call("1", arguments={}), call("1", delta=""), "goes on after all its arguments"),
        (call("1", delta=""), call("1", arguments={}), "'arguments' after a 'delta'"),
        (call("1", delta=""), call("1", "b", delta=""), "was 'a', and is 'b' now"),
    ],
)
def test_a_tool_call_does_not_change_its_mind(first: bytes, second: bytes, words: str) -> None:
    connection = asking()
    assert len(said(connection, event_line(first))) == 1
    [malformed] = connection.receive_data(event_line(second))
    assert isinstance(malformed, Malformed)
    assert words in malformed.error.message


def test_the_pieces_of_one_call_are_bounded_together() -> None:
    piece = call("1", delta="x" * (MAX_EVENT_BYTES // 4))
    *passed, last = events(*[piece] * 5)
    assert [type(event) for event in passed] == [Event] * 4
    assert last == (1, V.WRONG_SHAPE, 1)


def test_the_calls_of_one_request_are_bounded() -> None:
    *passed, last = events(*[call(str(n), delta="") for n in range(MAX_CALLS + 1)])
    assert len(passed) == MAX_CALLS
    assert last == (1, V.WRONG_SHAPE, 1)


# How an answer ends


def outcome_of(result: bytes, *before: bytes) -> Any:
    connection = asking()
    [*_, answer] = said(connection, b"".join(before), b'{"id":1,"result":%b}\n' % result)
    assert not connection.in_flight
    return answer.outcome if isinstance(answer, Result | End) else answer


ASK = b'{"id":"a1","reason":"confirmation","message":"Sure?"}'


def test_an_outcome_comes_with_a_result_or_with_an_end() -> None:
    assert outcome_of(b'{"finish":"stop"}') == Outcome("stop")
    assert outcome_of(b'{"output":1,"finish":"length"}') == Outcome("length")
    assert outcome_of(b'{"usage":{"input_tokens":7 }}') == Outcome(None, b'{"input_tokens":7}')
    asks = b"[%b]" % ASK
    assert outcome_of(b'{"finish":"input_required","asks":%b}' % asks) == Outcome(
        "input_required", None, asks
    )
    assert outcome_of(b"{}") is None
    assert outcome_of(b'{"finish":null,"usage":null,"asks":null}') is None


def test_a_member_of_usage_that_is_told_twice_is_passed_on_once() -> None:
    assert outcome_of(b'{"usage":{"a":1,"a":2}}') == Outcome(None, b'{"a":2}')


def test_the_last_usage_event_counts_where_the_result_tells_none() -> None:
    told = [event_line(b'{"type":"usage","input_tokens":%d}' % n) for n in (1, 2)]
    assert outcome_of(b'{"finish":"stop"}', *told) == Outcome("stop", b'{"input_tokens":2}')
    assert outcome_of(b"{}", *told) == Outcome(None, b'{"input_tokens":2}')
    assert outcome_of(b'{"usage":{"input_tokens":3}}', *told) == Outcome(
        None, b'{"input_tokens":3}'
    )


def asks(*each: bytes) -> bytes:
    return b'{"finish":"input_required","asks":[%b]}' % b",".join(each)


WRONG_OUTCOMES = {
    "an unknown finish": b'{"finish":"done"}',
    "a finish that is no text": b'{"finish":1}',
    "usage that is no object": b'{"usage":7}',
    "negative usage": b'{"usage":{"input_tokens":-1}}',
    "usage beyond numbers": b'{"usage":{"input_tokens":1e999}}',
    "usage in words": b'{"usage":{"input_tokens":"7"}}',
    "nested usage": b'{"usage":{"details":{"cached":1}}}',
    "input_required without asks": b'{"finish":"input_required"}',
    "asks without input_required": b'{"finish":"stop","asks":[%b]}' % ASK,
    "asks that are no list": b'{"finish":"input_required","asks":%b}' % ASK,
    "no ask at all": asks(),
    "an ask without an id": asks(b'{"reason":"a","message":"b"}'),
    "an ask with an empty id": asks(b'{"id":"","reason":"a","message":"b"}'),
    "an ask without a message": asks(b'{"id":"1","reason":"a"}'),
    "an ask without a reason": asks(b'{"id":"1","message":"a"}'),
    "two asks with one id": asks(ASK, ASK),
    "a long question": asks(
        sized(b'{"id":"1","reason":"a","message":"', MAX_ASK_MESSAGE + 1, b'"}')
    ),
    "a schema that is a list": asks(b'{"id":"1","reason":"a","message":"b","schema":[]}'),
    "a long schema": asks(
        sized(b'{"id":"1","reason":"a","message":"b","schema":{"a":"', MAX_SCHEMA_BYTES, b'"}}')
    ),
    "a million asks": asks(*[b'{"id":"a","reason":"","message":""}'] * 40_000),
    "usage of a million things": b'{"usage":{%b}}'
    % b",".join(b'"%x":1' % n for n in range(100_000)),
    "too many asks": asks(
        *[b'{"id":"%d","reason":"a","message":"b"}' % n for n in range(MAX_ASKS + 1)]
    ),
    "a misspelt member": b'{"usages":{}}',
}


@pytest.mark.parametrize("result", WRONG_OUTCOMES.values(), ids=WRONG_OUTCOMES)
def test_a_wrong_outcome_costs_its_request(result: bytes) -> None:
    assert outcome_of(result) == (1, V.WRONG_SHAPE, 1)


def test_a_worker_tells_its_outcome_in_every_kind_of_answer() -> None:
    outcome = Outcome("input_required", b'{"output_tokens":3}', b"[%b]" % ASK)
    for method, answer in (
        ("invoke", lambda worker: worker.send_output(1, {}, outcome=outcome)),
        ("invoke", lambda worker: worker.send_end(1, outcome=outcome)),
        (
            "chat",
            lambda worker: worker.send_message(
                1, {"role": "assistant", "content": ""}, outcome=outcome
            ),
        ),
    ):
        [told] = said(asking(method), answer(worker_asked_for_events(method)))
        assert told.outcome == outcome


def test_a_worker_that_uses_this_end_cannot_tell_a_wrong_outcome() -> None:
    worker = worker_asked_for_events()
    for wrong in (
        Outcome("done"),
        Outcome("input_required"),
        Outcome("stop", b'{"a":-1}'),
        Outcome("input_required", None, b"[]"),
    ):
        with pytest.raises(LocalProtocolError):
            worker.send_end(1, outcome=wrong)
    assert worker.open_requests == {1}


# What a request asks


def test_a_request_that_asks_for_nothing_is_the_line_that_it_was() -> None:
    _, line = request_line(gateway(), "invoke", b"1", stream=False, request_id="r", events=False)
    assert line.endswith(b'"context":{},"request_id":"r"}}\n')


def test_a_worker_reads_what_a_request_asks() -> None:
    tools = '[{"name":"a",\n"description":"\u2028"}]'.encode()
    _, line = request_line(
        gateway(),
        "chat",
        b"[]",
        stream=True,
        request_id="r",
        events=True,
        tools=tools,
        resume=b'[{"id":"a1"}]',
        traceparent="00-1-2-03",
        tracestate='a="1"',
    )
    [request] = WorkerConnection().receive_data(line)
    assert isinstance(request, msgspec.Struct)
    assert request.events is True  # type: ignore[attr-defined]
    assert request.tools == b'[{"name":"a", "description":"\\u2028"}]'  # type: ignore[attr-defined]
    assert request.resume == b'[{"id":"a1"}]'  # type: ignore[attr-defined]
    assert request.traceparent == "00-1-2-03"  # type: ignore[attr-defined]
    assert request.tracestate == 'a="1"'  # type: ignore[attr-defined]


def test_a_request_of_an_older_gateway_asks_for_nothing() -> None:
    [request] = WorkerConnection().receive_data(
        b'{"id":1,"method":"invoke","params":{"input":1}}\n'
    )
    assert request.events is False  # type: ignore[union-attr]
    assert request.tools is request.resume is request.traceparent is None  # type: ignore[union-attr]
    assert request.tracestate is None  # type: ignore[union-attr]
