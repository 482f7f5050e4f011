"""That the UI message stream's description and its check allow the same."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidRequest
from gateway.front.described import AgentView, error_types
from gateway.front.dialect import RequestHead
from gateway.front.dialects import serve_dialects
from gateway.front.docs.document import make_document
from gateway.front.ui.request import read_chat
from tests.unit.conftest import unhurried

DOCUMENT = msgspec.json.decode(
    msgspec.json.encode(
        make_document(
            [AgentView("echo"), AgentView("deaf", handlers=("invoke",))],
            [each.describe for each in serve_dialects(["ui"])],
            version="1",
            keys=True,
            metrics=True,
        )
    )
)
HEAD = RequestHead(request_id="r1")

JSON = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "a"])
NAMES = st.sampled_from(["a", "b"])
PART = st.just({"type": "text", "text": "hi"}) | st.just({"type": "data-x", "data": 1}) | JSON
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool"])},
    optional={"parts": st.lists(PART, max_size=2) | JSON, "id": NAMES | JSON, "metadata": JSON},
)
BODY = st.fixed_dictionaries(
    {"messages": st.lists(MESSAGE, min_size=1, max_size=2) | st.lists(MESSAGE, max_size=1)},
    optional={
        "id": NAMES | JSON,
        "trigger": NAMES | JSON,
        "messageId": NAMES | JSON,
        "userId": NAMES | JSON,
        "tools": st.dictionaries(
            NAMES | st.just("a b"),
            st.fixed_dictionaries(
                {}, optional={"description": NAMES | JSON, "inputSchema": st.just({}) | JSON}
            ),
            max_size=2,
        )
        | JSON,
        "resume": st.lists(
            st.fixed_dictionaries({"id": NAMES}, optional={"payload": JSON}), max_size=1
        )
        | JSON,
        "more": JSON,
    },
)


def test_a_body_is_described_as_it_is_checked() -> None:
    operation = DOCUMENT["paths"]["/ui/echo"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    described = jsonschema_rs.validator_for(
        {**schema, "components": DOCUMENT["components"]}, offline=True
    )
    seen = set()

    @unhurried
    @given(BODY)
    def hold(body: Any) -> None:
        try:
            read_chat("echo", HEAD, json.dumps(body).encode())
            accepted = True
        except InvalidRequest as error:
            # What no schema can say: messages of nothing but what is not for an agent.
            accepted = "says nothing" in error.message
        assert accepted == described.is_valid(body), body
        seen.add(accepted)

    hold()
    assert seen == {True, False}


def test_an_agent_that_does_not_chat_has_no_page() -> None:
    paths = {path for path in DOCUMENT["paths"] if path.startswith("/ui/")}
    assert paths == {"/ui/echo", "/ui/echo/{chat}/stream"}


@pytest.mark.parametrize("status", sorted(error_types()))
def test_every_error_is_described_as_a_text(status: int) -> None:
    response = DOCUMENT["components"]["responses"][f"UIError{status}"]
    assert response["content"].keys() == {"text/plain"}
