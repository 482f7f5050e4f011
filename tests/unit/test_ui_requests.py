"""What `useChat` sends, as an agent gets it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import Call
from gateway.errors import InvalidRequest, RequestTooLarge
from gateway.front.chats import chat as chats
from gateway.front.chats.parameters import MOST_PARAMETER_BYTES
from gateway.front.dialect import RequestHead
from gateway.front.ui.request import ChatRequest, read_chat
from gateway.front.ui.resumable import MOST_CHATS, Resumable, chat_of
from tests.unit.conftest import unhurried

HEAD = RequestHead(request_id="r-1")
PNG = "data:image/png;base64,AAAA"


def read(
    *messages: dict[str, Any], head: RequestHead = HEAD, **body: Any
) -> tuple[Call, ChatRequest]:
    return read_chat("bot", head, json.dumps({"messages": messages, **body}).encode())


def message(role: str, *parts: dict[str, Any], name: str = "m1") -> dict[str, Any]:
    return {"id": name, "role": role, "parts": list(parts), "metadata": {"a": 1}}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said, "state": "done"}


def tool(name: str = "weather", call: str = "c1", **members: Any) -> dict[str, Any]:
    return {
        "type": f"tool-{name}",
        "toolCallId": call,
        "state": "output-available",
        "input": {"city": "Oslo"},
        "output": "12 °C",
        **members,
    }


HELLO = message("user", text("hello"))


def said(*messages: dict[str, Any], **body: Any) -> Any:
    return json.loads(bytes(read(*messages, **body)[0].payload))


def refused(*messages: Any, **body: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        read(*messages, **body)
    return caught.value


# Messages


def test_a_text_is_a_string() -> None:
    system = message("system", text("Be "), text("kind."))
    assert said(system, HELLO) == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "hello"},
    ]


def test_files_are_parts_for_agents_that_take_them() -> None:
    files = [("image/png", PNG), ("audio/mpeg", "data:audio/mpeg;base64,BB")]
    files.append(("text/plain", "data:text/plain;charset=utf-8;base64,CC"))
    parts = [{"type": "file", "mediaType": kind, "url": url} for kind, url in files]
    parts[2]["filename"] = "a.txt"
    call, _ = read(message("user", text("look"), *parts))
    assert json.loads(bytes(call.payload))[0]["content"] == [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": PNG}},
        {"type": "input_audio", "input_audio": {"data": "BB", "format": "mp3"}},
        {"type": "file", "file": {"filename": "a.txt", "file_data": files[2][1]}},
    ]
    assert call.needs == {"image", "audio", "file"}


def test_an_image_may_be_anywhere_and_another_file_may_not() -> None:
    url = "https://example.com/a"
    image = {"type": "file", "mediaType": "image/*", "url": url}
    assert said(message("user", image))[0]["content"][0]["image_url"] == {"url": url}
    for part in (
        {"type": "file", "mediaType": "text/plain", "url": url},
        {"type": "file", "mediaType": "audio/wav", "url": url},
        {"type": "file", "mediaType": "image/png", "url": "file:///etc/passwd"},
        {"type": "file", "mediaType": "image/png", "url": PNG, "providerReference": {"a": "b"}},
        {"type": "file", "url": PNG},
        {"type": "file", "mediaType": "image/png"},
    ):
        assert refused(message("user", part)).details["param"].startswith("messages[0].parts[0]")


def test_each_step_of_the_assistant_is_a_message_with_the_tools_that_the_page_has_run() -> None:
    assistant = message(
        "assistant",
        {"type": "step-start"},
        {"type": "reasoning", "text": "Hm."},
        text("Let me "),
        tool(),
        tool(call="c2", state="output-error", errorText="no network", output=None),
        text("see."),
        {"type": "step-start"},
        tool(call="c3", output={"degrees": 12}),
        {"type": "dynamic-tool", **(tool(call="c4") | {"type": "dynamic-tool", "toolName": "x"})},
        {"type": "source-url", "sourceId": "1", "url": "https://example.com"},
        {"type": "data-status", "data": {}},
    )

    def call(call_id: str, name: str = "weather") -> dict[str, Any]:
        function = {"name": name, "arguments": '{"city":"Oslo"}'}
        return {"id": call_id, "type": "function", "function": function}

    sent = json.dumps({"messages": [HELLO, assistant]}, separators=(",", ":")).encode()
    found = json.loads(bytes(read_chat("bot", HEAD, sent)[0].payload))
    assert found[1:] == [
        {"role": "assistant", "content": "Let me see.", "tool_calls": [call("c1"), call("c2")]},
        {"role": "tool", "tool_call_id": "c1", "content": "12 °C"},
        {"role": "tool", "tool_call_id": "c2", "content": "no network"},
        {"role": "assistant", "content": None, "tool_calls": [call("c3"), call("c4", "x")]},
        {"role": "tool", "tool_call_id": "c3", "content": '{"degrees":12}'},
        {"role": "tool", "tool_call_id": "c4", "content": "12 °C"},
    ]


@pytest.mark.parametrize(
    "part",
    [
        tool(providerExecuted=True),
        tool(state="input-streaming", output=None),
        tool(state="input-available", output=None),
        tool(state="approval-requested", output=None, approval={"id": "a1"}),
        {"type": "file", "mediaType": "image/png", "url": PNG},
        {"type": "reasoning-file", "mediaType": "image/png", "url": PNG},
        {"type": "custom", "kind": "a.b"},
        {"type": "data-chart", "data": [1]},
    ],
)
def test_what_an_agent_told_beside_its_answer_is_not_given_back(part: dict[str, Any]) -> None:
    found = said(HELLO, message("assistant", part, text("Done.")), HELLO)
    assert found[1] == {"role": "assistant", "content": "Done."}


def test_a_denied_call_of_the_pages_has_what_the_user_said() -> None:
    approval = {"id": "a1", "approved": False, "reason": "too cold"}
    denied = tool(state="output-denied", approval=approval, output=None)
    assert said(HELLO, message("assistant", denied), HELLO)[2]["content"] == "too cold"


def test_a_steering_message_is_the_users() -> None:
    steered = {"type": "steering-message", "id": "s1", "parts": [text("in Celsius")]}
    found = said(HELLO, message("assistant", text("It is"), steered, text(" 12.")))
    assert [each["content"] for each in found] == ["hello", "It is", "in Celsius", " 12."]


def test_a_part_that_nobody_knows_is_refused_by_its_name() -> None:
    for role in ("user", "assistant"):
        error = refused(message(role, {"type": "hologram"}))
        assert error.details["param"] == "messages[0].parts[0].type"
        assert "hologram" in error.message
    assert refused(message("assistant", {"type": "tool-x"})).status == 400


# Questions


QUESTION = {"type": "data-ask", "id": "a1", "data": {"id": "a1", "message": "Which day?"}}
ANSWER = {"type": "data-answer", "data": {"id": "a1", "payload": {"day": "Tuesday"}}}


def test_an_answer_in_the_last_message_resumes_and_is_no_message() -> None:
    asked = message("assistant", text("One thing."), QUESTION)
    call, _ = read(HELLO, asked, message("user", ANSWER))
    assert call.resume is not None
    assert json.loads(call.resume) == [
        {"id": "a1", "status": "resolved", "payload": {"day": "Tuesday"}}
    ]
    assert json.loads(bytes(call.payload))[-1] == {
        "role": "assistant",
        "content": "One thing.\n\nWhich day?",
    }
    assert call.needs == {"asks"}


def test_an_earlier_answer_is_what_the_user_said() -> None:
    asked = message("assistant", QUESTION)
    call, _ = read(HELLO, asked, message("user", ANSWER), message("assistant", text("Ok.")), HELLO)
    assert call.resume is None
    assert json.loads(bytes(call.payload))[2]["role"] == "user"
    assert json.loads(json.loads(bytes(call.payload))[2]["content"]) == {"day": "Tuesday"}


def test_a_text_beside_an_answer_is_a_message() -> None:
    call, _ = read(HELLO, message("user", text("if it is dry"), ANSWER))
    assert json.loads(bytes(call.payload))[-1]["content"] == "if it is dry"
    assert call.resume


def test_answers_may_stand_beside_the_messages() -> None:
    call, _ = read(HELLO, resume=[{"id": "a1", "status": "cancelled"}])
    assert call.resume is not None
    assert json.loads(call.resume) == [{"id": "a1", "status": "cancelled"}]
    twice = refused(HELLO, message("user", ANSWER), resume=[{"id": "a1", "payload": 1}])
    assert "same ask" in twice.message
    cancelled = {"type": "data-answer", "data": {"id": "a1", "status": "cancelled", "payload": 1}}
    assert "cancelled" in refused(HELLO, message("user", cancelled)).message


def approved(yes: bool, **approval: Any) -> dict[str, Any]:
    return tool(
        "delete",
        "d1",
        state="approval-responded",
        output=None,
        providerExecuted=True,
        approval={"id": "a1", "approved": yes, **approval},
    )


@pytest.mark.parametrize("yes", [True, False])
def test_an_approval_is_an_answer(yes: bool) -> None:
    call, request = read(HELLO, message("assistant", approved(yes, reason="why"), name="m9"))
    assert call.resume is not None
    assert json.loads(call.resume) == [{"id": "a1", "payload": {"approved": yes, "reason": "why"}}]
    assert request.approved == {"d1": yes}
    assert (request.message_id, request.calls) == ("m9", {"d1"})


def test_an_approval_of_an_earlier_step_or_message_was_answered() -> None:
    step = {"type": "step-start"}
    call, request = read(HELLO, message("assistant", step, approved(True), step, text("Gone.")))
    assert (call.resume, request.approved) == (None, {})
    assert read(HELLO, message("assistant", approved(True)), HELLO)[0].resume is None


# The body


def test_what_the_page_adds_is_for_the_agent() -> None:
    tools = {"weather": {"description": "The weather.", "inputSchema": {"type": "object"}}}
    call, request = read(
        HELLO,
        id="chat-1",
        trigger="regenerate-message",
        messageId="m1",
        tools=tools,
        userId="ann",
        resumable=True,
        model="fast",
        options={"web": True},
    )
    assert json.loads(bytes(call.context)) == {
        "conversation_id": "chat-1",
        "user_id": "ann",
        "custom": {"model": "fast", "options": {"web": True}},
    }
    assert call.tools is not None
    assert json.loads(call.tools) == [
        {"name": "weather", "description": "The weather.", "parameters": {"type": "object"}}
    ]
    assert (call.stream, call.events, call.continues, call.conversation) == (
        True,
        True,
        True,
        "chat-1",
    )
    assert call.needs == {"tools"}
    assert (request.chat, request.tools.names) == ("chat-1", {"weather"})


def test_the_header_names_the_conversation_where_there_is_one() -> None:
    head = RequestHead(request_id="r-1", conversation=b"c-9")
    call, request = read(HELLO, head=head, id="chat-1")
    assert (call.conversation, request.chat) == ("c-9", "chat-1")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"tools": [{"name": "a"}]}, "tools"),
        ({"tools": {"a b": {}}}, "tools"),
        ({"tools": {"a": {"inputSchema": 1}}}, "tools"),
        ({"tools": {f"t{n}": {} for n in range(200)}}, "tools"),
        ({"resume": {}}, "resume"),
        ({"resume": [{"payload": 1}]}, "resume"),
        ({"resumable": "yes"}, "resumable"),
        ({"id": 1}, "id"),
        ({"resumable": True}, "id"),
        ({"resumable": True, "id": "a/b"}, "id"),
    ],
)
def test_what_is_malformed_is_refused_by_its_name(body: dict[str, Any], param: str) -> None:
    assert refused(HELLO, **body).details["param"] == param


@pytest.mark.parametrize(
    "messages",
    [
        {},
        [],
        [1],
        [{"role": "tool", "parts": []}],
        [{"role": "user"}],
        [{"role": "user", "parts": {}}],
        [{"role": "user", "parts": [1]}],
        [{"role": "user", "parts": [{}]}],
        [{"role": "user", "parts": [ANSWER]}],
        [{"role": "user", "parts": [{"type": "data-answer", "data": 1}]}],
    ],
)
def test_messages_that_are_none_are_refused(messages: Any) -> None:
    body = json.dumps({"messages": messages}).encode()
    with pytest.raises(InvalidRequest, match="messages"):
        read_chat("bot", HEAD, body)


def test_a_body_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidRequest, match="at most"):
        read(HELLO, custom="x" * MOST_PARAMETER_BYTES)
    read(message("user", text("x" * MOST_PARAMETER_BYTES)))
    monkeypatch.setattr(chats, "MOST_THINGS", 10)
    assert "more than 10" in refused(message("user", *[text("a")] * 10)).message
    assert "more than 10" in refused(*[HELLO] * 11).message
    nested = message("assistant", {"type": "steering-message", "parts": [text("a")] * 10})
    assert "more than 10" in refused(nested).message
    deep = b'{"messages":[],"a":' + b"[" * 2000 + b"]" * 2000 + b"}"
    with pytest.raises(InvalidRequest):
        read_chat("bot", HEAD, deep)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
PART_TYPES = (
    "text", "file", "tool-a", "dynamic-tool", "data-ask", "data-answer", "data-x", "reasoning",
    "step-start", "steering-message", "source-url", "hologram", "tool-", "",
)  # fmt: skip
STATES = ("output-available", "output-error", "output-denied", "approval-responded", "x")
PARTS = st.fixed_dictionaries(
    {"type": st.sampled_from(PART_TYPES)},
    optional={
        "text": st.text(max_size=3) | JSON,
        "url": st.sampled_from([PNG, "https://a", "data:,x", ""]),
        "mediaType": st.sampled_from(["image/png", "audio/wav", "a/b", "image", ""]),
        "toolCallId": st.sampled_from(["c1", "c2"]),
        "toolName": st.just("a"),
        "state": st.sampled_from(STATES),
        "input": JSON,
        "output": JSON,
        "errorText": st.text(max_size=3),
        "providerExecuted": st.booleans(),
        "approval": st.fixed_dictionaries({"id": st.just("a1")}, optional={"approved": JSON}),
        "data": JSON | st.just({"id": "a1"}),
        "parts": st.lists(st.just(text("a")), max_size=2) | JSON,
    },
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system", "tool"])},
        optional={"parts": st.lists(PARTS, max_size=4) | JSON, "id": st.text(max_size=3) | JSON},
    ),
    max_size=3,
)


@unhurried
@given(MESSAGES, st.dictionaries(st.text(max_size=4), JSON, max_size=2))
def test_every_body_is_read_or_refused(messages: Any, more: dict[str, Any]) -> None:
    try:
        call, _ = read_chat("bot", HEAD, msgspec.json.encode({**more, "messages": messages}))
    except (InvalidRequest, RequestTooLarge):
        return
    roles = [each["role"] for each in json.loads(bytes(call.payload))]
    assert roles
    assert set(roles) <= {"system", "user", "assistant", "tool"}
    assert b"\n" not in bytes(call.payload)
    answered = {each.get("tool_call_id") for each in json.loads(bytes(call.payload))}
    for each in json.loads(bytes(call.payload)):
        assert all(made["id"] in answered for made in each.get("tool_calls", ()))


# Streams that are found again


def test_a_chat_is_known_to_whoever_started_it() -> None:
    alone = chat_of(HEAD, "bot", "c1")
    assert alone == chat_of(RequestHead(request_id="r-2"), "bot", "c1")
    others = [
        chat_of(RequestHead(request_id="", owner="ann"), "bot", "c1"),
        chat_of(RequestHead(request_id="", fields={b"authorization": b"x"}), "bot", "c1"),
        chat_of(RequestHead(request_id="", fields={b"x-api-key": b"x"}), "bot", "c1"),
        chat_of(HEAD, "bo", "tc1"),
        chat_of(HEAD, "bot", "c2"),
    ]
    assert len({alone, *others}) == 6
    assert chat_of(HEAD, "bot", "") is None
    assert chat_of(HEAD, "bot", "x" * 1000) is None


def test_the_oldest_chat_is_forgotten_first() -> None:
    known = Resumable()
    for number in range(MOST_CHATS):
        known.put(b"%d" % number, "t")
    known.put(b"0", "again")
    known.put(b"new", "t")
    assert (known.get(b"0"), known.get(b"1"), known.get(b"2")) == ("again", None, "t")
