"""From a body to a call: every 400, and payloads that stay the bytes they are."""

from __future__ import annotations

import json
import math
import tracemalloc
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.call import Call
from gateway.errors import InvalidRequest, RequestTooLarge
from gateway.front.dialect import RequestHead
from protocol import MAX_INPUT_NESTING, MAX_REQUEST_BYTES, on_one_line
from protocol.gateway_side import GatewayConnection
from tests.unit.conftest import unhurried
from tests.unit.native_bodies import read


def key_of(kind: str) -> str:
    return "input" if kind == "invoke" else "messages"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("", "the body is not JSON: it is empty"),
        ("  \n", "the body is not JSON: it is empty"),
        ("{", "the body is not JSON"),
        ('{"input": 1} x', "the body is not JSON"),
        ('{"input": NaN}', "the body is not JSON"),
        ('{"input": Infinity}', "the body is not JSON"),
        ('{"input": 01}', "the body is not JSON"),
        ("{'input': 1}", "the body is not JSON"),
        (b'\xef\xbb\xbf{"input": 1}', "byte-order mark"),
        (b'{"input": "\xff"}', "not UTF-8"),
        ('{"input": 1}'.encode("utf-16"), "not UTF-8"),
        (r'{"input": "\ud800"}', "the body is not JSON"),
        ("[]", "expected `object`, got `array`"),
        ("7", "expected `object`, got `int`"),
        ("null", "expected `object`, got `null`"),
        ("{}", "'input' is missing; expected {\"input\": …}"),
        ('{"messages": []}', "'input' is missing"),
        ('{"input": 1, "stream": 1}', "stream: expected `bool | null`, got `int`"),
        ('{"input": 1, "stream": "true"}', "stream: expected `bool | null`, got `str`"),
        ('{"input": 1, "context": []}', "context: expected `object`, got `array`"),
        ('{"input": 1, "context": "c"}', "context: expected `object`, got `str`"),
        ('{"input": 1, "context": {"conversation_id": 7}}', "context.conversation_id: expected"),
        ('{"input": 1, "context": {"custom": 1}}', "context.custom is not an object"),
    ],
)
def test_a_bad_invoke_body_is_refused_by_name(body: bytes | str, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(body)
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ("", '\'messages\' is missing; expected {"messages": [{"role"'),
        ("[]", "'messages' is empty; expected at least one message"),
        ("{}", "'messages' is not a list"),
        ('"Hello"', "'messages' is not a list"),
        ("null", "'messages' is not a list"),
        ("[1]", "messages[0]: expected `object`, got `int`"),
        ('[{"role": "user", "content": "x"}, []]', "messages[1]: expected `object`, got `array`"),
        ('[{"content": "x"}]', "messages[0]: object missing required field `role`"),
        ('[{"role": 1}]', "messages[0].role: expected `str`, got `int`"),
        (
            '[{"role": "bot"}]',
            "messages[0].role: invalid enum value 'bot', expected one",
        ),
        ('[{"role": "user", "content": 1}]', "messages[0].content is 1, expected a string"),
        ('[{"role": "user", "content": true}]', "messages[0].content is true, expected a string"),
    ],
)
def test_bad_messages_are_refused_by_place(messages: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(f'{{"messages": {messages}}}' if messages else "{}", "chat")
    assert words in caught.value.message


@pytest.mark.parametrize("content", ['"text"', "[]", '[{"type": "text"}]', "{}", "null"])
@pytest.mark.parametrize("role", ["system", "user", "assistant", "tool"])
def test_every_role_and_content_of_the_reference_api_is_taken(role: str, content: str) -> None:
    messages = f'[{{"role": "{role}", "content": {content}}}]'
    assert read(f'{{"messages": {messages}}}', "chat").payload == messages.encode()


def test_what_else_a_message_holds_passes_through() -> None:
    messages = b'[{"role":"assistant","tool_calls":[{"id":"1"}],"name":"n","else":1}]'
    assert read(b'{"messages": %b}' % messages, "chat").payload == messages


def test_a_whole_call_is_read() -> None:
    context = '{"conversation_id": "c", "user_id": "u", "custom": {"t": 1}, "more": [1]}'
    head = RequestHead(request_id="r-9", timeout=b"2.5")
    assert read(f'{{"context": {context}, "stream": true, "input": [1, 2]}}', head=head) == Call(
        agent="a",
        method="invoke",
        payload=b"[1, 2]",
        stream=True,
        context=context.encode(),
        conversation="c",
        user="u",
        request_id="r-9",
        total=2.5,
    )


def test_defaults_are_one_json_answer_no_context_and_no_limit_of_the_callers_own() -> None:
    call = read('{"input": null, "x-note": 1, "context": null}')
    assert (call.payload, call.stream, call.context) == (b"null", False, b"{}")
    assert (call.conversation, call.total) == (None, math.inf)


@pytest.mark.parametrize("kind", ["invoke", "chat"])
def test_a_stream_that_is_null_is_none(kind: str) -> None:
    payload = '"input": 1' if kind == "invoke" else '"messages": [{"role": "user"}]'
    assert read(f'{{{payload}, "stream": null}}', kind).stream is False


def read_in_conversation(header: bytes, context: str) -> Call:
    head = RequestHead(request_id="r", conversation=header)
    return read(f'{{"input": 1, "context": {context}}}', head=head)


@pytest.mark.parametrize(
    ("context", "members"),
    [
        ("null", {}),
        ("{}", {}),
        ("{ }", {}),
        ('{"conversation_id": null}', {}),
        ('{"user_id": "u", "custom": {"a": "}"} }', {"user_id": "u", "custom": {"a": "}"}}),
        ('{"conversation_id": "é,1"}', {}),
    ],
)
def test_a_conversation_may_be_named_in_a_header_and_the_agent_is_told(context, members) -> None:
    call = read_in_conversation("é,1".encode(), context)
    assert call.conversation == "é,1"
    assert json.loads(call.context) == {**members, "conversation_id": "é,1"}


def test_a_header_that_names_no_conversation_is_as_none() -> None:
    assert read_in_conversation(b"", '{"conversation_id": "c"}').conversation == "c"
    call = read_in_conversation(b"", "null")
    assert (call.conversation, call.context) == (None, b"{}")


@pytest.mark.parametrize(
    ("header", "context", "words"),
    [
        (b"a", '{"conversation_id": "b"}', "name different conversations: 'a' and 'b'"),
        (b"a", '{"conversation_id": ""}', "name different conversations: 'a' and ''"),
        (b"a\nb", "null", "X-Conversation-Id was sent more than once"),
        (b"a\na", "null", "X-Conversation-Id was sent more than once"),
        (b"\xe9", "null", "expected UTF-8"),
        (b"x" * 257, "null", "has 257 characters, expected at most 256"),
        (b"", f'{{"conversation_id": "{"x" * 257}"}}', "257 characters, expected at most 256"),
    ],
)
def test_a_conversation_that_cannot_be_is_refused(header: bytes, context: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_in_conversation(header, context)
    assert words in caught.value.message


def test_the_longest_conversation_id_is_taken_from_the_body_and_from_the_header() -> None:
    longest = "é" * 256
    assert read_in_conversation(longest.encode(), "null").conversation == longest
    context = json.dumps({"conversation_id": longest})
    assert read_in_conversation(b"", context).conversation == longest


def test_of_a_key_given_twice_the_last_counts() -> None:
    assert read('{"input": 1, "input": 2}').payload == b"2"


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)  # fmt: skip


def json_texts(value: Any) -> list[bytes]:
    """The same value written in several ways, each with its own bytes."""
    return [
        json.dumps(value).encode(),
        json.dumps(value, ensure_ascii=False, indent=2).encode(),
        msgspec.json.encode(value),
    ]


@unhurried
@given(JSON_VALUES.filter(lambda value: "\\ud" not in json.dumps(value)))
@example('💡\x7f\u2028 \\ " \n')
@example({"": [1e300, -0.0]})
def test_any_json_value_passes_byte_for_byte_but_for_what_ends_a_line(value: Any) -> None:
    for text in json_texts(value):
        line = on_one_line(text)
        assert json.loads(line) == json.loads(text)
        assert read(b'{"stream":false ,"input" : ' + text + b' ,"x-":1}').payload == line
        messages = b'[{"role":"user","content":"c","extra":%b}]'
        body = b'{"messages":' + messages % text + b"}"
        assert read(body, "chat").payload == messages % line


@unhurried
@given(JSON_VALUES)
def test_whatever_json_comes_instead_of_a_body_is_read_or_refused_never_a_defect(value) -> None:
    for kind in ("invoke", "chat"):
        for body in (value, {key_of(kind): value, "context": value, "tools": value}):
            with suppress(InvalidRequest):
                read(json.dumps(body), kind)


@unhurried
@given(st.binary(max_size=60))
def test_whatever_bytes_come_instead_of_a_body_are_refused_never_a_defect(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read(body)


@pytest.mark.parametrize("kind", ["invoke", "chat"])
@pytest.mark.parametrize("size", [1, 100_000], ids=["small", "above 64 KiB"])
@pytest.mark.parametrize("indent", [None, 2], ids=["on one line", "pretty-printed"])
def test_a_body_of_many_lines_is_one_line_of_the_wire(kind: str, size: int, indent) -> None:
    value = [{"role": "user", "content": ["x" * size]}]
    key = "input" if kind == "invoke" else "messages"
    call = read(json.dumps({key: value, "context": {"custom": {"a": 1}}}, indent=indent), kind)
    _, parts = GatewayConnection().send_request(
        call.method, call.payload, stream=False, context=call.context, request_id="r"
    )
    line = b"".join(parts)
    assert line.find(b"\n") == len(line) - 1
    assert json.loads(line)["params"][key] == value


HUGE_NUMBER = b"9" * 5000


def test_a_number_of_5000_digits_passes_as_it_is() -> None:
    assert read(b'{"input": %b}' % HUGE_NUMBER).payload == HUGE_NUMBER


def test_a_body_that_grows_past_the_wires_line_is_refused() -> None:
    grown = "\u0085".encode() * (MAX_REQUEST_BYTES // 6)
    assert len(read(b'{"input":"%b"}' % grown).payload) <= MAX_REQUEST_BYTES
    with pytest.raises(RequestTooLarge, match=f"the most is {MAX_REQUEST_BYTES}"):
        read(b'{"input":"%b"}' % (grown + grown))


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def test_a_body_nests_as_deeply_on_every_python() -> None:
    deepest = nested(MAX_INPUT_NESTING - 1)
    assert read(b'{"input": %b}' % deepest).payload == deepest
    for depth in (MAX_INPUT_NESTING, 900, 5000, 100_000):
        for body in (b'{"input": %b}', b'{"input": 1, "context": {"custom": {"a": %b}}}'):
            with pytest.raises(InvalidRequest, match="nests arrays and objects deeper than 100"):
                read(body % nested(depth))
        with pytest.raises(InvalidRequest, match="nests arrays and objects deeper than 100"):
            read(b'{"messages": [{"role": "user", "content": %b}]}' % nested(depth), "chat")


PLAIN = b'[{"role": "user", "content": "["}]'


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages": %b, "x-more": %b}' % (PLAIN, b"%b"),
        b'{"messages": %b, "messages": %b}' % (b"%b", PLAIN),
        b'{"messages": %b, "context": %b, "context": {}}' % (PLAIN, b"%b"),
    ],
    ids=["a key that is passed over", "messages given twice", "a context given twice"],
)
def test_what_goes_to_nobody_nests_as_little(body: bytes) -> None:
    assert read(body % nested(MAX_INPUT_NESTING - 1), "chat").payload == PLAIN
    for depth in (MAX_INPUT_NESTING, 900, 5000):
        with pytest.raises(InvalidRequest, match="nests arrays and objects deeper than 100"):
            read(body % nested(depth), "chat")


def test_beside_plain_messages_the_context_alone_is_looked_at_and_as_deeply() -> None:
    body = b'{"messages": [{"role": "user", "content": "["}], "context": {"a": %b}}'
    deepest = nested(MAX_INPUT_NESTING - 2)
    assert read(body % deepest, "chat").context == b'{"a": %b}' % deepest
    with pytest.raises(InvalidRequest, match="nests arrays and objects deeper than 100"):
        read(body % nested(MAX_INPUT_NESTING - 1), "chat")


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": [{"type": "text", "text": "x"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "user", "content": "x", "of_ours": True},
        {"role": "user", "name": 3},
    ],
)
def test_messages_that_are_not_plain_pass_as_they_are(message) -> None:
    messages = msgspec.json.encode([{"role": "user", "content": "x"}, message])
    assert read(b'{"messages":%b}' % messages, "chat").payload == messages


def peak_bytes(body: bytes, kind: str = "invoke") -> int:
    """What reading `body` allocates at its peak, beyond the body itself."""
    tracemalloc.start()
    try:
        with suppress(InvalidRequest):
            read(body, kind)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


MOST_COPIES = 1.5
"""Of a payload: it is cut out of the body, or its brackets are counted, and nothing else."""

# As objects, these are 20 to 100 times as large as their text.
PAYLOADS = {
    "a million empty lists": b"[" + b"[]," * 1_000_000 + b"[]]",
    "a list of a million numbers": b"[" + b"1.5," * 1_000_000 + b"0]",
    "nested a million deep": b"[" * 1_000_000 + b"]" * 1_000_000,
    "objects nested half a million deep": b'{"a":' * 500_000 + b"1" + b"}" * 500_000,
}


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_a_huge_or_deep_payload_costs_no_objects(payload: bytes) -> None:
    assert peak_bytes(b'{"input":' + payload + b"}") < MOST_COPIES * len(payload)


@pytest.mark.parametrize("space", [b"", b"\n"])
def test_a_huge_chat_costs_one_object_per_message_and_none_below(space: bytes) -> None:
    message = b'{"role":"user","content":[' + b"[]," * 100_000 + b"1]}"
    messages = b"[" + b",".join([message] * 10) + b"]"
    body = b'{"messages":' + space + messages + b"}"
    assert peak_bytes(body, "chat") < MOST_COPIES * len(messages)


@pytest.mark.parametrize("timeout", [b"0", b"-1", b"soon", b"", b"nan", b"inf", b"1e999"])
def test_a_timeout_that_is_no_length_of_time_is_refused(timeout: bytes) -> None:
    with pytest.raises(InvalidRequest, match=r"X-Timeout is .*, expected seconds, more than 0"):
        read('{"input": 1}', head=RequestHead(request_id="r", timeout=timeout))
