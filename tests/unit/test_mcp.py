"""MCP without its SDK: messages, schemas, tools, answers, questions, responses."""

from __future__ import annotations

import json
import math
from base64 import urlsafe_b64decode, urlsafe_b64encode
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from gateway.errors import GatewayError, InvalidAgentResponse, InvalidRequest, RequestTooLarge
from gateway.exchange import MAX_COLLECTED_BYTES
from gateway.front.dialect import RequestHead
from gateway.front.mcp.answer import MOST_NEWS, Answering, file_block, object_in
from gateway.front.mcp.arguments import read_call
from gateway.front.mcp.asks import STATE_SECONDS, States, forms_of, resume_of
from gateway.front.mcp.envelope import MOST_REST, read_envelope
from gateway.front.mcp.schemas import MOST_NODES, accepts_objects_only, plain_text, shown_schema
from gateway.front.mcp.splice import Splices
from gateway.front.mcp.tools import make_tools, name_of, page_of, read_name
from protocol import Outcome, Ready
from protocol.events import File

HEAD = RequestHead(request_id="r1")
NEWEST = "2026-07-28"

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


# Messages


def message(method: str = "tools/call", **params: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()


@given(arguments=st.dictionaries(st.text(max_size=5), values))
def test_arguments_are_kept_aside_as_they_came(arguments: dict[str, Any]) -> None:
    text = json.dumps(arguments)
    body = message(name="a_chat", arguments="HERE", _meta={"x": 1}, other=[1, 2])
    envelope = read_envelope(body.replace(b'"HERE"', text.encode()))
    assert envelope.call is not None
    assert envelope.call.arguments == text.encode()
    assert json.loads(envelope.rest)["params"] == {
        "name": "a_chat",
        "arguments": {},
        "_meta": {"x": 1},
    }


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        message("ping"),
        message(name=1),
        message(name="a_chat", arguments=[]),
        message(name="a_chat", inputResponses=[]),
        json.dumps({"method": "tools/call", "params": []}).encode(),
    ],
)
def test_what_is_no_call_goes_on_as_it_came(body: bytes) -> None:
    envelope = read_envelope(body)
    assert (envelope.rest, envelope.call) == (body, None)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"\xff", InvalidRequest),
        (b'{"x":' + b"[" * MOST_REST, InvalidRequest),
        (message("ping", x="x" * MOST_REST), RequestTooLarge),
        (message(name="a_chat", _meta={"x": "x" * MOST_REST}), RequestTooLarge),
        (message(name="a_chat", requestState="x" * (MOST_REST + 1)), RequestTooLarge),
        (message(name="a_chat", arguments={"x": "@"}).replace(b'"@"', b"[" * 200 + b"]" * 200),
         InvalidRequest),
    ],
)  # fmt: skip
def test_what_would_be_many_objects_is_refused(body: bytes, error: type[GatewayError]) -> None:
    with pytest.raises(error):
        read_envelope(body)


# Tools


@given(agent=st.from_regex(r"[a-z0-9][a-z0-9_-]{0,20}", fullmatch=True))
def test_the_name_of_a_tool_names_its_agent_and_handler(agent: str) -> None:
    for method in ("invoke", "chat"):
        assert read_name(name_of(agent, method)) == (agent, method)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", "a", "chat", "_chat", "a_", "a_other", "a-chat", "a_Chat"])
def test_any_other_name_is_no_tools(name: str) -> None:
    assert read_name(name) is None


def ready(**declared: Any) -> Ready:
    schemas = {
        name: json.dumps(each).encode() if isinstance(each, dict | bool) else each
        for name, each in declared.items()
    }
    return Ready(protocol=1, handlers=("invoke", "chat"), **schemas)


OBJECT = {"type": "object", "properties": {"a": {"type": "string"}}}


def test_an_object_is_the_arguments_and_anything_else_a_member_of_them() -> None:
    plain = make_tools("x", ready(input=OBJECT, output=OBJECT), None).shapes
    assert (plain.wraps_input, plain.wraps_output) == (False, False)
    assert plain.input == plain.output == OBJECT
    other = make_tools("x", ready(input={"type": "array"}, output={"type": "string"}), None).shapes
    assert (other.wraps_input, other.wraps_output) == (True, True)
    assert other.input["required"] == ["input"]
    assert other.output is not None
    assert other.output["properties"]["result"]["type"] == "string"
    unknown = make_tools("x", None, None)
    assert list(unknown.listed) == ["x_invoke", "x_chat"]
    assert (unknown.shapes.wraps_input, unknown.shapes.output) == (True, None)


def test_a_reference_at_the_root_is_followed() -> None:
    schema = {"$ref": "#/$defs/A", "$defs": {"A": OBJECT, "B": {"type": "null"}}}
    assert accepts_objects_only(schema)
    assert shown_schema(schema)["type"] == "object"


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ({"type": "nonsense"}, {}),
        ({"type": ["string", 1]}, {}),
        ({"$ref": "https://evil.example/x"}, {}),
        ({"$ref": "#/$defs/none", "$defs": {}}, {}),
        ({"pattern": "(a+)+$", "$id": "x", "$schema": "y", "if": {}}, {}),
        ({"not": {}, "patternProperties": {"(": {}}, "additionalProperties": False}, {}),
        ({"enum": []}, {}),
        ({"enum": [{"a": 1}]}, {}),
        ({"required": [1]}, {}),
        ({"minLength": -1, "maximum": "x", "minimum": True}, {}),
        ({"oneOf": [{"type": "string"}, 5]}, {"anyOf": [{"type": "string"}, {}]}),
        ({"items": [{}]}, {}),
        ({"description": "a\x00b\u202ec"}, {"description": "a b c"}),
        ({"x-mcp-header": "Authorization"}, {}),
        (False, {}),
        ([], {}),
    ],
)
def test_a_schema_is_shown_as_far_as_clients_can_compile_it(hostile: Any, shown: Any) -> None:
    assert shown_schema(hostile) == shown


KEYWORDS = (
    "type", "properties", "anyOf", "$defs", "$ref", "items", "enum", "required", "const",
    "additionalProperties",
)  # fmt: skip


@given(schema=values | st.dictionaries(st.sampled_from(KEYWORDS), values))
def test_any_value_is_shown_as_a_schema(schema: Any) -> None:
    written = shown_schema(schema)
    event(f"shows {min(len(written), 2)} keywords")
    json.dumps(written)
    assert shown_schema(written) == written


def test_a_schema_of_any_size_and_depth_is_shown_small() -> None:
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(200):
        deep = {"type": "object", "properties": {"a": deep}}
    assert len(json.dumps(shown_schema(deep))) < 2000
    wide = {"type": "object", "properties": {f"p{n}": {"type": "null"} for n in range(10_000)}}
    assert len(shown_schema(wide)["properties"]) <= MOST_NODES
    loop = {"$defs": {"A": {"anyOf": [{"$ref": "#/$defs/A"}]}}, "type": "array",
            "items": {"$ref": "#/$defs/A"}}  # fmt: skip
    assert shown_schema(loop) == loop


def test_a_list_of_tools_has_pages_and_every_tool_is_on_one() -> None:
    tools = [(f"t{n:05}", b'{"x":"%s"}' % (b"x" * 1000)) for n in range(3000)]
    seen: list[bytes] = []
    after, pages = "", 0
    while True:
        page, more = page_of(tools, after)
        seen += page
        pages += 1
        if more is None:
            break
        after = more
    assert (seen, pages) == ([text for _, text in tools], 3)


def test_what_is_not_seen_is_not_in_a_description() -> None:
    assert plain_text("a\u200b\x1b[31mb\n\tc" + "x" * 9000, 12) == "a  [31mb\n\tcx"


# Calls


def test_a_chat_is_its_last_message_after_those_before() -> None:
    arguments = b'{"message":"c","messages":[{"role":"user","content":"a"}],"conversation_id":"x"}'
    call = read_call(HEAD, "a", "chat", arguments, wraps_input=True)
    said = [(each["role"], each["content"]) for each in json.loads(bytes(call.payload))]
    assert said == [("user", "a"), ("user", "c")]
    assert (call.conversation, json.loads(call.context)) == ("x", {"conversation_id": "x"})
    assert (call.stream, call.events) == (True, True)


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("chat", b"{}"),
        ("chat", b'{"message":1}'),
        ("chat", b'{"message":null}'),
        ("chat", b'{"message":"a","messages":{}}'),
        ("chat", b'{"message":"a","messages":[{"role":"bot","content":"x"}]}'),
        ("chat", b'{"message":"a","conversation_id":1}'),
        ("chat", b'{"message":"a","stream":true}'),
        ("invoke", b"{}"),
        ("invoke", b'{"input":1,"other":2}'),
    ],
)
def test_arguments_that_would_not_be_honoured_are_refused(method: Any, arguments: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read_call(HEAD, "a", method, arguments, wraps_input=True)


# Answers


def test_an_answer_is_its_text_and_files_in_their_order() -> None:
    answering = Answering("a", "chat", NEWEST)
    file = b'{"type":"file","name":"x.txt","mime":"text/plain","data":"aGk="}'
    answering.add([b'"one "', b'"two"', file, b'"three"'])
    blocks = json.loads(b"[%b]" % answering.end(None, None).content)
    assert [each.get("text") for each in blocks] == ["one two", None, "three"]
    assert blocks[1]["resource"] == {
        "uri": "agent://a/x.txt",
        "mimeType": "text/plain",
        "text": "hi",
    }


@given(
    told=st.lists(
        st.none() | st.floats(min_value=0, allow_nan=False, allow_infinity=False), max_size=30
    )
)
def test_progress_only_grows(told: list[float | None]) -> None:
    answering = Answering("a", "chat", NEWEST)
    seen: list[float] = []
    for progress in told:
        status = {"type": "status", "text": "x"}
        if progress is not None:
            status |= {"progress": progress, "total": 10}  # type: ignore[dict-item]
        answering.add([json.dumps(status).encode(), b'{"type":"reasoning","text":"hm"}'])
        seen += [each.progress for each in answering.take_progress()]
    assert all(before < after for before, after in pairwise(seen))
    assert all(map(math.isfinite, seen))
    event("numbered" if any(each is not None for each in told) else "not numbered")


def test_of_much_progress_the_last_is_told() -> None:
    answering = Answering("a", "chat", NEWEST)
    answering.add([b'{"type":"status","text":"%d"}' % n for n in range(1000)])
    assert [each.message for each in answering.take_progress()] == [
        str(n) for n in range(1000 - MOST_NEWS, 1000)
    ]


def test_an_answer_of_any_pieces_is_bounded() -> None:
    answering = Answering("a", "chat", NEWEST)
    words = [b'"%b"' % (b"x" * 1_000_000)] * (MAX_COLLECTED_BYTES // 1_000_000 + 1)
    with pytest.raises(InvalidAgentResponse):
        answering.add(words)
    small = Answering("a", "chat", NEWEST)
    for _ in range(100):
        small.add([b'""'] * 10_000)
    assert json.loads(small.end(None, None).content)["text"] == ""


@pytest.mark.parametrize(
    ("mime", "version", "kind"),
    [
        ("image/png", NEWEST, "image"),
        ("audio/wav", NEWEST, "audio"),
        ("audio/wav", "2024-11-05", "resource"),
        ("application/zip", NEWEST, "resource"),
    ],
)
def test_a_file_is_what_the_version_has_for_it(mime: str, version: str, kind: str) -> None:
    block = json.loads(file_block(File("f", mime, data=b"\xff"), "a", version))
    assert block["type"] == kind


@pytest.mark.parametrize(
    ("path", "uri"),
    [("https://x.example/y", "https://x.example/y"), ("out/a b.txt", "file:///out/a%20b.txt")],
)
def test_a_file_elsewhere_is_a_link(path: str, uri: str) -> None:
    file = File("f", "text/plain", path=path)
    assert json.loads(file_block(file, "a", NEWEST))["uri"] == uri
    assert json.loads(file_block(file, "a", "2025-03-26"))["type"] == "text"


def test_an_object_in_a_text_is_found() -> None:
    assert object_in(json.dumps('{"a":\n1}').encode()) == b'{"a": 1}'
    assert object_in(b'"[1]"') is None
    assert object_in(b'"nothing"') is None


# Questions


def asks(*schemas: Any) -> Outcome:
    told = [
        {"id": f"q{at}", "reason": "input_required", "message": "?"}
        | ({} if each is None else {"schema": each})
        for at, each in enumerate(schemas)
    ]
    return Outcome(finish="input_required", asks=json.dumps(told).encode())


@pytest.mark.parametrize(
    ("schema", "kind", "content", "payload"),
    [
        (None, "field", {"answer": "x"}, "x"),
        ({"type": "boolean"}, "field", {"answer": True}, True),
        ({"type": "array"}, "json", {"answer": "[1]"}, [1]),
        ({"type": "array"}, "json", {"answer": "what?"}, "what?"),
        (OBJECT, "whole", {"a": "x"}, {"a": "x"}),
        (
            {"type": "object", "properties": {"a": OBJECT}},
            "json",
            {"answer": "{}"},
            {},
        ),
    ],
)
def test_a_question_is_a_form_and_its_answer_what_the_agent_asked_for(
    schema: Any, kind: str, content: Any, payload: Any
) -> None:
    form = forms_of(asks(schema))["q0"]
    assert form.kind == kind
    assert all(each["type"] in {"boolean", "string"} for each in form.schema["properties"].values())
    reply = {"q0": {"action": "accept", "content": content}}
    resume = json.loads(resume_of({"q0": kind}, json.dumps(reply).encode()))
    assert resume == [{"id": "q0", "status": "resolved", "payload": payload}]


def test_only_an_answer_that_ends_with_questions_has_forms() -> None:
    assert forms_of(None) == forms_of(Outcome(finish="stop")) == {}


@given(position=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_a_state_that_was_changed_is_nobodys(position: int, flip: int) -> None:
    states = States()
    state = states.make("alice", "call", forms_of(asks(None)), now=0)
    assert states.read(state, "alice", "call", now=1) == {"q0": "field"}
    changed = bytearray(urlsafe_b64decode(state))
    changed[position % len(changed)] ^= flip
    with pytest.raises(InvalidRequest):
        states.read(urlsafe_b64encode(changed).decode(), "alice", "call", now=1)


@pytest.mark.parametrize(
    ("owner", "call", "now"),
    [("bob", "call", 1.0), ("alice", "other", 1.0), ("alice", "call", STATE_SECONDS)],
)
def test_a_state_is_of_one_caller_one_call_and_one_hour(owner: str, call: str, now: float) -> None:
    states = States()
    state = states.make("alice", "call", forms_of(asks(None)), now=0)
    with pytest.raises(InvalidRequest):
        states.read(state, owner, call, now=now)
    with pytest.raises(InvalidRequest):
        States().read(state, "alice", "call", now=1)  # of a gateway that was restarted


# Responses


@given(text=values.map(lambda value: json.dumps({"x": value}).encode()))
def test_a_placeholder_becomes_the_text_and_the_rest_stays(text: bytes) -> None:
    splices = Splices()
    one, two = splices.add(text), splices.add(b'{"second":{}}')
    for inner in (f'{{"name":"{one}","s":{{"t":"o"}}}}', f'{{"s":{{"t":{{}}}},"name":"{one}"}}'):
        data = f'{{"id":1,"a":[{inner}],"b":{{"{two}":0}}}}'.encode()
        known = Splices()
        known._texts = dict(splices._texts)
        spliced = known.apply(data)
        assert spliced == b'{"id":1,"a":[%b],"b":{"second":{}}}' % text
        assert known.apply(spliced) == spliced
