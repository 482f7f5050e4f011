"""What the gateway writes is one line to every reader of lines, and means what the caller wrote.

The readers are real: an agent's author takes the first one that the language has.
"""

from __future__ import annotations

import itertools
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw, Struct
from msgspec.json import decode

from protocol import as_one_line, is_one_line, on_one_line
from protocol.gateway_side import GatewayConnection

from .helpers import gateway, request_line, unhurried
from .line_readers import ALL_LINE_ENDS, READERS, lines_read

if TYPE_CHECKING:
    from pathlib import Path

BETWEEN_TOKENS = "\n\r"
"""Line ends that are white space of JSON."""
WITHIN_STRINGS = "\x85\u2028\u2029"
"""Line ends that a string of JSON may hold as they are."""
FORGED = b'{"id":1,"method":"invoke","params":{"input":"x"}}'

NASTY = "a\u2028b\u2029c\u0085d\u2027\u0084\u00e9\u20ac\U0001f600"
PRETTY = json.dumps({"k": [NASTY, {NASTY: 1}]}, ensure_ascii=False, indent=1).encode()
TEXTS = [PRETTY, PRETTY.replace(b"\n", b"\r\n"), PRETTY.replace(b"\n", b"\r"), b'\r\n "x"\t\r']


def request(text: bytes, **options: Any) -> bytes:
    return request_line(gateway(), "invoke", text, stream=False, request_id="r", **options)[1]


@pytest.mark.parametrize("reader", READERS)
def test_a_request_is_one_line_to_a_real_reader(reader: str, tmp_path: Path) -> None:
    lines = [request(text, context=text) for text in TEXTS]
    assert lines_read(reader, b"".join(lines), tmp_path) == [line[:-1] for line in lines]


@pytest.mark.parametrize("reader", READERS)
def test_the_control_is_split_by_the_same_reader_where_the_caller_wanted(
    reader: str, tmp_path: Path
) -> None:
    """The same bytes in a line as a gateway would write it that leaves them as they came."""
    ends = READERS[reader].ends
    assert {"\n"} <= set(ends) <= set(BETWEEN_TOKENS + WITHIN_STRINGS)
    naive = "".join(
        f'{{"id":2,"method":"invoke","params":{{"input":[{end}{FORGED.decode()}{end}]}}}}\n'
        for end in BETWEEN_TOKENS
    ) + "".join(f'{{"id":3,"params":{{"input":"a{end}b"}}}}\n' for end in WITHIN_STRINGS)
    read = lines_read(reader, naive.encode(), tmp_path)
    assert read == [piece.encode() for piece in re.split(f"[{ends}]", naive.rstrip("\n"))]
    # What the attack was: a line that is another client's request, and nothing else.
    assert read.count(FORGED) == len(set(BETWEEN_TOKENS) & set(ends)) > 0


def test_a_body_cannot_make_a_line_that_answers_another_request() -> None:
    for end in BETWEEN_TOKENS:
        line = request(b"[%b%b%b]" % (end.encode(), FORGED, end.encode()))
        assert len(line.decode().splitlines()) == 1


@pytest.mark.parametrize("end", ALL_LINE_ENDS[2:7])
def test_the_other_line_ends_are_no_json_at_all(end: str) -> None:
    for text in (f'{{"a":{end}1}}', f'{{"a":"{end}"}}', f'{{"{end}":1}}'):
        with pytest.raises(ValueError, match=r"malformed|invalid|control"):
            decode(text.encode(), type=dict[str, Raw])


@unhurried
@given(
    st.recursive(st.text(alphabet=ALL_LINE_ENDS + 'ab"\\é€'), st.lists, max_leaves=5), st.booleans()
)
def test_a_text_on_one_line_means_the_same_and_is_left_alone_afterwards(
    value: Any, indented: bool
) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=1 if indented else None).encode()
    line = on_one_line(text)
    assert json.loads(line) == value
    assert len(line.decode().splitlines()) == 1
    assert is_one_line(line)
    assert is_one_line(text) == (line == text)
    assert on_one_line(line) is line


@unhurried
@given(st.text(alphabet=ALL_LINE_ENDS + 'a"\\'))
def test_every_member_is_on_one_line_whatever_the_caller_wrote(text: str) -> None:
    written = json.dumps(text, ensure_ascii=False).encode()
    _, line = request_line(
        gateway(),
        "invoke",
        written,
        stream=True,
        context=b'{"user_id":\r%b}' % written,
        request_id=text,
    )
    assert len(line.decode().splitlines()) == 1
    params = json.loads(line)["params"]
    assert params["input"] == params["request_id"] == params["context"]["user_id"] == text


class _Body(Struct):
    input: Raw


@pytest.mark.parametrize("filler", [b"x", "é".encode(), "…".encode()])
def test_a_large_payload_is_copied_only_if_it_has_to_change(filler: bytes) -> None:
    body = b'{"input":"%b"}' % (filler * 100_000)
    payload = as_one_line(decode(body, type=_Body).input, source=body)
    assert isinstance(payload, memoryview)
    _, parts = GatewayConnection().send_request("invoke", payload, stream=False, request_id="r")
    assert parts[1] is payload
    for changed in (body.replace(b":", b":\r"), body.replace(filler, "\u2028".encode(), 1)):
        payload = as_one_line(decode(changed, type=_Body).input, source=changed)
        assert is_one_line(bytes(payload))


def test_ids_are_increasing_unpredictable_and_exact_in_javascript() -> None:
    ids = []
    for _ in range(20):
        connection = GatewayConnection()
        connection.receive_data(
            b'{"method":"ready","params":{"protocol":1,"handlers":["invoke"],"concurrency":99}}\n'
        )
        ids.append(
            [
                connection.send_request("invoke", b"1", stream=False, request_id="r")[0]
                for _ in range(20)
            ]
        )
    assert len({own[0] for own in ids}) == len(ids)
    steps = {later - earlier for own in ids for earlier, later in itertools.pairwise(own)}
    assert min(steps) > 0
    assert len(steps) > 300
    # Exact as a double, and when a double is printed with 14 digits.
    assert all(int(f"{float(each):.14g}") == each for own in ids for each in own)
