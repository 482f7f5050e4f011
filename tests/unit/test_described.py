"""That what a description allows and what the check accepts are the same, and of which form it is.

Bodies are made at random: of members that the description names and of others, with values that
often fit and often do not. Each is put to the check that requests meet, and to the schema.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Raw, Struct

from gateway.config import ServerSettings
from gateway.errors import GatewayError, InvalidRequest
from gateway.front.anthropic.errors import encode_error as encode_anthropic_error
from gateway.front.anthropic.request import read_messages
from gateway.front.described import AgentView, described, error_types
from gateway.front.dialect import RequestHead
from gateway.front.dialects import serve_dialects
from gateway.front.docs.document import make_document
from gateway.front.docs.embedding import UnfitError, embedded
from gateway.front.native.body import read_call
from gateway.front.native.errors import encode_error
from gateway.front.openai.chat_request import read_chat
from gateway.front.openai.errors import encode_error as encode_openai_error
from gateway.front.openai.memory import Memory
from gateway.front.openai.response_request import read_response

HEAD = RequestHead(request_id="r1", fields={b"anthropic-version": b"2026-10-21"})

DIALECTS = [
    each.describe for each in serve_dialects({*ServerSettings().dialects, "anthropic", "a2a"})
]

DOCUMENT = msgspec.json.decode(
    msgspec.json.encode(
        make_document([AgentView("echo")], DIALECTS, version="1", keys=True, metrics=True)
    )
)


def checker(schema: Any) -> jsonschema_rs.Validator:
    whole = {**schema, "components": DOCUMENT["components"]}
    return jsonschema_rs.validator_for(whole, offline=True)


@cache
def body_of(path: str) -> jsonschema_rs.Validator:
    operation = DOCUMENT["paths"][path]["post"]
    return checker(operation["requestBody"]["content"]["application/json"]["schema"])


def error_of(status: int, prefix: str) -> jsonschema_rs.Validator:
    response = DOCUMENT["components"]["responses"][f"{prefix}{status}"]
    return checker(response["content"]["application/json"]["schema"])


def is_accepted(read: Any, body: Any) -> bool:
    try:
        read(msgspec.json.encode(body))
    except InvalidRequest:
        return False
    return True


SCALARS = st.none() | st.booleans() | st.integers(-2, 2) | st.floats(-1, 1) | st.sampled_from("ab")
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["a", "x-a", "type"]), inner, max_size=2)
    ),
    max_leaves=4,
)
NAMES = st.sampled_from(["", "a", "A b"])


def objects(needed: dict[str, Any], others: dict[str, Any]) -> Any:
    """Objects with members that mostly fit."""
    return st.fixed_dictionaries(
        {name: good | VALUES if name in needed else good for name, good in needed.items()},
        optional={name: good | VALUES for name, good in others.items()},
    )


MESSAGE = objects(
    {"role": st.sampled_from(["user", "assistant", "system", "tool", "bot"])},
    {"content": NAMES | st.just([]), "name": NAMES},
)
CONTEXT = objects({}, {"conversation_id": NAMES, "user_id": NAMES, "custom": st.just({})})
TOOL = objects({"name": NAMES}, {"description": NAMES, "parameters": st.just({})})
RESUMED = objects(
    {"id": NAMES}, {"status": st.sampled_from(["resolved", "cancelled", "no"]), "payload": VALUES}
)
SHARED = {
    "stream": st.booleans(),
    "context": CONTEXT,
    "events": st.just(True),
    "x-note": VALUES,
    "$schema": VALUES,
    "unknown": st.none(),
}


@pytest.mark.parametrize("method", ["invoke", "chat"])
def test_the_native_bodies_are_described_as_they_are_checked(method: Any) -> None:
    payload = {"input": VALUES} if method == "invoke" else {"messages": st.lists(MESSAGE)}
    allows = body_of(f"/agent/echo/{method}")

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(objects(payload, SHARED))
    def hold(body: Any) -> None:
        accepted = is_accepted(lambda text: read_call("echo", method, HEAD, text), body)
        assert accepted == allows.is_valid(body), body

    hold()


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(TOOL, max_size=2), st.lists(RESUMED, max_size=2))
def test_tools_and_answers_are_described_as_they_are_checked(
    tools: list[Any], resume: list[Any]
) -> None:
    allows = body_of("/agent/echo/invoke")
    for name, given_, key in (("tools", tools, "name"), ("resume", resume, "id")):
        body = {"input": 1, "events": True, name: given_}
        accepted = is_accepted(lambda text: read_call("echo", "invoke", HEAD, text), body)
        if accepted:
            assert allows.is_valid(body), body
        elif allows.is_valid(body):
            # What no schema can say: no two of one name, and nothing beside a withdrawn answer.
            keys = [each[key] for each in given_]
            withdrawn = any(each.get("status") == "cancelled" for each in given_)
            assert len(set(keys)) < len(keys) or withdrawn, body


OPENAI = {
    "temperature": st.floats(0, 1),
    "metadata": st.dictionaries(NAMES, NAMES, max_size=2),
    "user": NAMES,
    "stream": st.booleans(),
    "store": st.booleans(),
    "top_logprobs": st.sampled_from([0, 1]),
    "moderation": st.none(),
    "parallel_tool_calls": st.booleans(),
    "prompt_cache_key": NAMES,
    "unknown": st.none(),
}
COMPLETION = {
    **OPENAI,
    "n": st.sampled_from([1, 2]),
    "logprobs": st.booleans(),
    "modalities": st.lists(st.sampled_from(["text", "audio"]), max_size=2),
    "audio": st.none(),
    "functions": st.none(),
    "function_call": st.none(),
    "web_search_options": st.none(),
    "prediction": VALUES,
    "seed": st.integers(0, 3),
    "stop": NAMES | st.lists(NAMES),
    "logit_bias": st.dictionaries(NAMES, st.floats(0, 1)),
    "response_format": st.just({"type": "text"}),
    "stream_options": st.just({"include_usage": True}),
}
RESPONSE = {
    **OPENAI,
    "background": st.booleans(),
    "max_output_tokens": st.integers(0, 3),
    "truncation": NAMES,
    "prompt": st.none(),
    "context_management": st.none(),
    "stream_options": VALUES,
}
PART = objects({"type": st.sampled_from(["text", "image_url", "video"])}, {"text": NAMES})
OPENAI_MESSAGE = objects(
    {"role": st.sampled_from(["user", "developer", "tool", "bot"])},
    {"content": NAMES | st.lists(PART, max_size=2)},
)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(objects({"model": st.just("echo"), "messages": st.lists(OPENAI_MESSAGE)}, COMPLETION))
def test_a_completion_is_described_as_it_is_checked(body: Any) -> None:
    accepted = is_accepted(lambda text: read_chat(HEAD, text), body)
    allows = body_of("/v1/chat/completions").is_valid(body)
    assert accepted == (allows and body["model"] == "echo") or body["model"] != "echo", body


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.fixed_dictionaries(
        {"model": st.just("echo")},
        optional={"input": NAMES, **{name: good | VALUES for name, good in RESPONSE.items()}},
    )
)
def test_a_response_is_described_as_it_is_checked(body: Any) -> None:
    accepted = is_accepted(lambda text: read_response(HEAD, text, Memory()), body)
    assert accepted == body_of("/v1/responses").is_valid(body), body


MESSAGES = {
    "stream": st.booleans(),
    "temperature": st.floats(0, 1),
    "top_p": st.floats(0, 1),
    "top_k": st.integers(0, 3),
    "stop_sequences": st.lists(NAMES, max_size=2),
    "system": NAMES | st.just([{"type": "text", "text": "t"}]),
    "metadata": st.just({"user_id": "u", "more": 1}),
    "thinking": st.sampled_from([{"type": "adaptive"}, {"type": "often"}]),
    "tools": st.lists(
        objects(
            {"name": NAMES, "input_schema": st.just({})},
            {"type": st.sampled_from(["custom", "bash_20250124"]), "description": NAMES},
        ),
        max_size=1,
    ),
    "tool_choice": st.sampled_from([{"type": "auto"}, {"type": "some"}]),
    "output_config": st.sampled_from([{"effort": "low"}, {"format": {"type": "text"}}]),
    "container": st.none(),
    "mcp_servers": st.just([]),
    "fallbacks": st.just("default"),
    "context_management": VALUES,
    "service_tier": NAMES,
    "unknown": st.none(),
}
TURN = objects(
    {
        "role": st.sampled_from(["user", "assistant", "system", "tool"]),
        "content": NAMES | st.just([{"type": "text", "text": "t"}]),
    },
    {},
)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    objects(
        {
            "model": st.just("echo"),
            "max_tokens": st.integers(0, 3),
            "messages": st.lists(TURN, max_size=2),
        },
        MESSAGES,
    )
)
def test_a_message_is_described_as_it_is_checked(body: Any) -> None:
    body["model"] = "echo"
    accepted = is_accepted(lambda text: read_messages(HEAD, text), body)
    assert accepted == body_of("/v1/messages").is_valid(body), body


def test_a_path_of_two_dialects_is_described_as_one() -> None:
    item = DOCUMENT["paths"]["/v1/models/{model}"]
    assert set(item["get"]["tags"]) == {"openai", "anthropic"}
    [parameter] = item["parameters"]
    assert parameter["name"] == "model"
    for status, names in (
        ("200", ("Model", "AnthropicModel")),
        ("404", ("OpenAIError", "AnthropicError")),
    ):
        schema = item["get"]["responses"][status]["content"]["application/json"]["schema"]
        assert {each["$ref"].rpartition("/")[2] for each in schema["anyOf"]} == set(names)
    wished = [each["name"] for each in DOCUMENT["paths"]["/v1/models"]["get"]["parameters"][1:]]
    assert wished == ["anthropic-version", "limit", "after_id", "before_id"]


def kinds(kind: type[GatewayError] = GatewayError) -> list[type[GatewayError]]:
    return [kind, *(each for below in kind.__subclasses__() for each in kinds(below))]


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_every_error_is_described_in_every_dialect(kind: type[GatewayError]) -> None:
    assert kind.type in error_types()[kind.status]
    error = kind.__new__(kind)
    GatewayError.__init__(error, "a message", retry_after=1.0, limit="memory")
    error._fix(allow="POST", policies="", left="")
    for encode, prefix in (
        (encode_error, "Error"),
        (encode_openai_error, "OpenAIError"),
        (encode_anthropic_error, "AnthropicError"),
    ):
        encoded = json.loads(encode(error, "r1", None).body)
        error_of(kind.status, prefix).validate(encoded)
        wrong = {**encoded, "error": {**encoded["error"], "message": 5}}
        assert not error_of(kind.status, prefix).is_valid(wrong)


def test_a_member_that_nothing_describes_cannot_be_forgotten() -> None:
    class Body(Struct):
        kept: Raw

    with pytest.raises(TypeError, match=r"nothing describes Body\.kept"):
        described(Body, "Described")
    with pytest.raises(TypeError, match="has no other"):
        described(Body, "Described", kept=int, other=int)


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "text"}, "type"),
        ({"required": ["a", "a"]}, "required"),
        ({"minLength": -1}, "minLength"),
        ({"properties": []}, "properties"),
        ({"anyOf": []}, "anyOf"),
        ({"items": 5}, "neither"),
        ({"$ref": "other.json"}, "another document"),
        ({"$ref": "#/enum/0", "enum": [{}]}, "no schema"),
        ({"$ref": "#/allOf/" + "1" * 5000, "allOf": [{}]}, "no schema"),
        ({"$ref": "#/allOf/1", "allOf": [{}]}, "no schema"),
        ({"$ref": "#/allOf/-1", "allOf": [{}]}, "no schema"),
        ({"$id": "http://elsewhere.example/"}, "another place"),
    ],
)
def test_what_is_no_schema_is_not_embedded(schema: Any, reason: str) -> None:
    with pytest.raises(UnfitError, match=reason):
        embedded(json.dumps(schema).encode(), "#/components/schemas/it.input")


def test_references_start_at_the_schemas_own_place() -> None:
    schema = {
        "properties": {"$ref": {"$ref": "#/$defs/a~1b"}, "all": {"$ref": "#"}},
        "$defs": {"a/b": {"type": "string", "default": {"$ref": "#"}}},
        "allOf": [{}, {"not": {"$ref": "#/allOf/0"}}],
        "x-mine": {"$ref": "http://elsewhere.example/"},
    }
    copy = embedded(json.dumps(schema).encode(), "#/here")
    assert copy == {
        "properties": {"$ref": {"$ref": "#/here/$defs/a~1b"}, "all": {"$ref": "#/here"}},
        "$defs": {"a/b": {"type": "string", "default": {"$ref": "#"}}},
        "allOf": [{}, {"not": {"$ref": "#/here/allOf/0"}}],
    }
