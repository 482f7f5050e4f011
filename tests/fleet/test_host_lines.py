"""What a host writes of words and answers, a front reads as they were."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from gateway.fleet.host.lines import answer, words
from protocol import Burst, Chunk, End, Event, Method, Outcome, Result
from protocol.gateway_side import GatewayConnection

TEXTS = st.text(st.characters(exclude_categories=["Cs"])).map(
    lambda text: json.dumps(text, ensure_ascii=False).encode()
)
STATUSES = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).map(
    lambda text: json.dumps({"type": "status", "text": text}, ensure_ascii=False).encode()
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
OUTCOMES = st.none() | st.builds(
    Outcome,
    finish=st.none() | st.just("length"),
    usage=st.none() | st.just(b'{"input_tokens":3}'),
)


def a_connection(method: Method = "invoke") -> tuple[GatewayConnection, int]:
    connection = GatewayConnection.of_host()
    return connection, connection.open_request(method, events=True)


@given(st.lists(TEXTS | STATUSES, max_size=40))
def test_words_are_read_as_they_were_and_in_order(said: list[bytes]) -> None:
    connection, request_id = a_connection()
    read: list[bytes] = []
    for message in connection.receive_batch(words(request_id, said)):
        if isinstance(message, Burst):
            read += message.texts
        elif isinstance(message, Chunk):
            read.append(message.text)
        else:
            assert isinstance(message, Event), message
            read.append(message.event)
    assert [json.loads(word) for word in read] == [json.loads(word) for word in said]


@given(VALUES, OUTCOMES)
def test_an_output_is_read_as_it_was(value: object, outcome: Outcome | None) -> None:
    connection, request_id = a_connection()
    line = answer(request_id, "invoke", json.dumps(value).encode(), outcome)
    [result] = connection.receive_batch(line)
    assert isinstance(result, Result)
    assert json.loads(bytes(result.value)) == value
    assert (result.outcome or Outcome()) == (outcome or Outcome())


def test_a_message_and_an_end_are_read_as_they_were() -> None:
    connection, request_id = a_connection("chat")
    message = b'{"role":"assistant","content":"here"}'
    [result] = connection.receive_batch(answer(request_id, "chat", message, None))
    assert result == Result(request_id, message)
    connection, request_id = a_connection("chat")
    [end] = connection.receive_batch(answer(request_id, "chat", None, Outcome("stop")))
    assert end == End(request_id, Outcome("stop"))
