"""What a native body may hold beside its payload: tools, answers, notes, and nothing else."""

from __future__ import annotations

import tracemalloc

import pytest

from gateway.errors import InvalidRequest, RequestTooLarge
from gateway.front.dialect import RequestHead
from protocol import MAX_REQUEST_BYTES
from protocol.gateway_side import GatewayConnection
from tests.unit.native_bodies import read


@pytest.mark.parametrize(
    ("kind", "member"),
    [
        ("invoke", "webhook"),
        ("invoke", "messages"),
        ("chat", "input"),
        ("chat", "model"),
        ("chat", "temperature"),
        ("invoke", "Stream"),
        ("invoke", "event"),
        ("invoke", ""),
        ("invoke", "n" * 5000),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_member_that_is_not_known_is_refused_by_name(kind: str, member: str, first: bool) -> None:
    payload = '"input": 1' if kind == "invoke" else '"messages": [{"role": "user"}]'
    pair = (f'"{member}": "u"', payload)
    with pytest.raises(InvalidRequest) as caught:
        read(f"{{{', '.join(pair if first else reversed(pair))}}}", kind)
    assert f"unknown in the body: {member[:80]!r}; expected" in caught.value.message
    assert caught.value.details["field"] == member[:80]


def test_every_unknown_member_is_named() -> None:
    with pytest.raises(InvalidRequest, match="'a', 'b'; expected input, stream, context, events"):
        read('{"a": 1, "x-note": 1, "input": 1, "b": 0, "none": null}')


@pytest.mark.parametrize(
    "notes", ['"x-note": {"a": [1]}', '"$schema": "s"', '"webhook": null', '"x-": 1, "b": null']
)
@pytest.mark.parametrize("kind", ["invoke", "chat"])
def test_members_that_ask_for_nothing_are_ignored(kind: str, notes: str) -> None:
    payload = '"input": [1 ]' if kind == "invoke" else '"messages": [{"role": "user"} ]'
    call = read(f'{{{notes}, {payload}, "stream": true}}', kind)
    assert call == read(f'{{{payload}, "stream": true}}', kind)


def test_a_million_unknown_members_are_not_looked_at() -> None:
    body = b'{"input": 1, %b}' % b",".join(b'"%x":0' % n for n in range(500_000))
    tracemalloc.start()
    with pytest.raises(InvalidRequest, match="unknown in the body: '0'"):
        read(body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


TOOL = '{"name": "weather", "description": "d", "parameters": {"type": "object"}}'


def test_tools_and_answers_to_questions_come_with_events() -> None:
    call = read(f'{{"input": 1, "events": true, "tools": [{TOOL}], "resume": [{{"id": "a1"}}]}}')
    assert call.events is True
    assert call.tools == f"[{TOOL}]".encode()
    assert call.resume == b'[{"id": "a1"}]'
    assert call.needs == {"tools", "asks"}


@pytest.mark.parametrize("nothing", ["null", "[]", "[ ]"])
def test_no_tools_need_nothing_of_the_agent(nothing: str) -> None:
    call = read(f'{{"input": 1, "tools": {nothing}, "resume": {nothing}}}')
    assert (call.tools, call.resume, call.needs, call.events) == (None, None, frozenset(), False)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        (f'"tools": [{TOOL}]', "'tools' needs \"events\": true"),
        ('"resume": [{"id": "a"}], "events": false', "'resume' needs \"events\": true"),
        ('"events": "yes"', "events: expected `bool | null`, got `str`"),
        ('"events": true, "tools": {}', "tools: Expected `array`, got `object`"),
        ('"events": true, "tools": [{}]', "tools: Object missing required field `name`"),
        ('"events": true, "tools": [[[]]]', "tools: Expected `object`, got `array`"),
        (f'"events": true, "tools": [{TOOL}, {TOOL}]', "tools: two have the same name"),
        (
            '"events": true, "tools": [{"name": "a", "parameters": []}]',
            "tools[0].parameters is an array, expected an object, a JSON Schema",
        ),
        ('"events": true, "tools": [{"name": "%s"}]' % ("n" * 129), "length <= 128"),
        (f'"events": true, "tools": [{", ".join([TOOL] * 129)}]', "length <= 128"),
        (
            '"events": true, "tools": [%s{}]' % ('{"name":"a"},' * 90_000),
            "expected at most 1048576",
        ),
        ('"events": true, "resume": [%s{}]' % ('{"id":"a"},' * 99_000), "expected at most 1048576"),
        ('"events": true, "resume": [{"payload": 1}]', "resume: Object missing required"),
        ('"events": true, "resume": [{"id": "a", "status": "maybe"}]', "resume: Invalid enum"),
        ('"events": true, "resume": [{"id": "a"}, {"id": "a"}]', "resume: two answers are for"),
        (
            '"events": true, "resume": [{"id": "a", "status": "cancelled", "payload": true}]',
            "resume[0]: a cancelled answer has a payload",
        ),
    ],
)
def test_tools_and_answers_that_are_wrong_are_refused(members: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(f'{{"input": 1, {members}}}')
    assert words in caught.value.message


def test_what_goes_to_the_agent_fits_into_a_line_with_everything_beside_it() -> None:
    tools = b'[{"name":"a","description":"%b"}]' % (b"x" * 16_000)
    size = MAX_REQUEST_BYTES - len(tools) - len(b'[{"id":"a"}]') - 2 - len(b"{}")
    fields = {b"traceparent": TRACE, b"tracestate": b"a=%b" % (b'"' * 256)}
    head = RequestHead(request_id='"' * 128, fields=fields)
    body = b'{"events":true,"tools":%b,"resume":[{"id":"a"}],"input":"%b"}'
    call = read(body % (tools, b"x" * size), head=head)
    GatewayConnection().send_request(
        "invoke",
        call.payload,
        stream=True,
        context=call.context,
        request_id=call.request_id,
        events=True,
        tools=call.tools,
        resume=call.resume,
        traceparent=call.trace.parent,
        tracestate=call.trace.state,
    )
    with pytest.raises(RequestTooLarge):
        read(body % (tools, b"x" * (size + 1)), head=head)


TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("header", "passed_on"), [(TRACE, (TRACE.decode(), None)), (TRACE.upper(), None), (b"", None)]
)
def test_a_valid_trace_goes_to_the_agent(header: bytes, passed_on: object) -> None:
    head = RequestHead(request_id="r", fields={b"traceparent": header})
    assert read('{"input": 1}', head=head).trace == passed_on
