"""Every row of the design's HTTP and status tables, each from a real request."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.http.conftest import Shared
from tests.http.raw import connected

HOT_PATHS = [
    f"/{root}/scripted/{kind}" for root in ("agent", "agents") for kind in ("invoke", "chat")
]


def body_for(path: str, script: Any, **more: Any) -> dict[str, Any]:
    """What asks for `script` on that path."""
    if path.endswith("/chat"):
        return {"messages": [{"role": "user", "content": script}], **more}
    return {"input": script, **more}


def check_error(answer: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    """The rules that every error obeys; returns its `error` object."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert list(answer.json()) == ["error"]
    error: dict[str, Any] = answer.json()["error"]
    assert error["type"] == kind
    assert error["message"]
    assert error["request_id"] == answer.headers["x-request-id"]
    assert "Traceback" not in error["message"]
    if "output_begun" in error and status >= 500:  # there was an exchange, and its worker had it
        assert answer.headers["x-should-retry"] == "false"
        assert "retry-after" not in answer.headers
    return error


# 200


@pytest.mark.parametrize("root", ["agent", "agents"])
async def test_both_spellings_of_the_path_are_the_same_api(client: httpx.AsyncClient, root) -> None:
    answer = await client.post(f"/{root}/scripted/invoke", json={"input": {"key": "value"}})
    assert (answer.status_code, answer.json()) == (200, {"output": {"key": "value"}})
    message = {"role": "user", "content": "Hello!"}
    answer = await client.post(f"/{root}/scripted/chat", json={"messages": [message]})
    assert answer.json() == {"message": {"role": "assistant", "content": "Hello!"}}
    assert answer.headers["content-type"] == "application/json"


async def test_everything_of_the_request_reaches_the_agent(client: httpx.AsyncClient) -> None:
    context = {"conversation_id": "c", "user_id": "u", "custom": {"tenant_id": "acme"}, "x": [1]}
    answer = await client.post(
        "/agent/scripted/invoke",
        json={"input": [["asked"]], "context": context, "x-note": True},
        headers={"X-Request-Id": "mine-1"},
    )
    assert answer.json()["output"] == {
        "input": [["asked"]],
        "stream": False,
        "context": context,
        "request_id": "mine-1",
    }


async def test_a_conversation_in_a_header_is_as_one_in_the_body(client: httpx.AsyncClient) -> None:
    headers = {"X-Conversation-Id": "c-1"}
    body = {"input": [["asked"]], "context": {"user_id": "u"}}
    answer = await client.post("/agent/scripted/invoke", json=body, headers=headers)
    assert answer.json()["output"]["context"] == {"user_id": "u", "conversation_id": "c-1"}


@pytest.mark.parametrize("path", HOT_PATHS)
async def test_a_conversation_in_a_header_that_contradicts_the_body_is_400(client, path) -> None:
    body = body_for(path, "x", context={"conversation_id": "c-2"})
    answer = await client.post(path, json=body, headers={"X-Conversation-Id": "c-1"})
    assert "X-Conversation-Id" in check_error(answer, 400, "invalid_request")["message"]


@pytest.mark.parametrize("path", HOT_PATHS)
async def test_what_is_null_is_as_what_is_missing(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.post(path, json=body_for(path, "x", stream=None, context=None))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "content_type",
    ["application/json;charset=utf8", "application/json;", 'application/json; a="b;c"; d=e'],
)
async def test_json_is_taken_however_it_is_announced(client, content_type: str) -> None:
    headers = {"Content-Type": content_type, "Content-Encoding": "identity"}
    answer = await client.post(HOT_PATHS[0], content=b'{"input": 1}', headers=headers)
    assert answer.json() == {"output": 1}


@pytest.mark.parametrize("text", ["", "💡 é\u2028\x7f", '"quoted" \\ \n', "x" * 500_000])
async def test_what_goes_in_comes_out(client: httpx.AsyncClient, text: str) -> None:
    answer = await client.post("/agent/scripted/invoke", json={"input": {"text": text}})
    assert answer.json() == {"output": {"text": text}}


# 400


@pytest.mark.parametrize("path", HOT_PATHS)
@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"{}", b"\xff", b'{"input":1,"messages":[],"stream":0}']
)
async def test_a_bad_body_is_400(client: httpx.AsyncClient, path: str, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    check_error(await client.post(path, content=body, headers=headers), 400, "invalid_request")


async def test_an_input_that_the_agent_refuses_is_400_in_its_words(client) -> None:
    script = [["error", -32602, 'not a "number"']]
    answer = await client.post("/agent/scripted/invoke", json={"input": script})
    assert check_error(answer, 400, "invalid_request")["message"] == 'not a "number"'


async def test_a_timeout_that_is_none_is_400(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/agent/scripted/invoke", json={"input": 1}, headers={"X-Timeout": "soon"}
    )
    assert "X-Timeout" in check_error(answer, 400, "invalid_request")["message"]


# 404, 405, 413, 415


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("POST", "/agent/nobody/invoke", "agent_not_found"),
        ("POST", "/agents/nobody/chat", "agent_not_found"),
        ("GET", "/agent/nobody", "agent_not_found"),
        ("GET", "/agent/nobody/health", "agent_not_found"),
        ("POST", "/agent//invoke", "agent_not_found"),
        ("GET", "/", "not_found"),
        ("GET", "/nothing", "not_found"),
        ("POST", "/agent/scripted/other", "not_found"),
        ("POST", "/agent/scripted/invoke/more", "not_found"),
        ("POST", "/x/scripted/invoke", "not_found"),
        ("POST", "/agent/scripted%2Finvoke/x", "not_found"),
    ],
)
async def test_what_is_not_there_is_404(client, method: str, path: str, kind: str) -> None:
    answer = await client.request(method, path, json={"input": 1})
    check_error(answer, 404, kind)


@pytest.mark.parametrize("path", HOT_PATHS)
@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_the_hot_routes_take_post_only(client: httpx.AsyncClient, method, path) -> None:
    answer = await client.request(method, path)
    check_error(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("path", [*HOT_PATHS, "/agent/nobody/invoke"])
async def test_head_of_a_hot_route_is_405_without_a_body(client: httpx.AsyncClient, path) -> None:
    answer = await client.head(path)
    assert (answer.status_code, answer.content) == (405, b"")
    assert answer.headers["allow"] == "POST"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["/health", "/live", "/ready", "/agents", "/agent/scripted"])
async def test_the_other_routes_take_get_and_say_so(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.post(path, json={})
    check_error(answer, 405, "method_not_allowed")
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}
    got, head = await client.get(path), await client.head(path)
    assert head.status_code == got.status_code
    assert head.content == b""


async def test_a_body_that_is_too_large_is_413(client: httpx.AsyncClient) -> None:
    answer = await client.post("/agent/scripted/invoke", json={"input": "x" * 2_000_000})
    error = check_error(answer, 413, "request_too_large")
    assert str(1024 * 1024) in error["message"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": "application/json; x=y; charset=utf-16"},
        {"Content-Type": "application/json; charset=utf-8; charset=utf-16"},
    ],
)
async def test_what_is_not_json_is_415(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    answer = await client.post("/agent/scripted/invoke", content=b'{"input":1}', headers=headers)
    check_error(answer, 415, "unsupported_media_type")


# 500, 501, 502

BAD_ANSWER = (502, "invalid_agent_response")


OWN_FAILURES = {
    "it says so": ([["error", -32000, "no luck"]], 500, "agent_error"),
    "it was not cancelled": ([["error", -32800, "cancelled"]], 500, "agent_error"),
    "it lacks that": ([["error", -32601, "no such thing"]], 501, "handler_not_implemented"),
    "a wrong key": ([["raw", '{"id": <id>, "result": {"text": 1}}']], *BAD_ANSWER),
    "no object": ([["raw", '{"id": <id>, "result": 1}']], *BAD_ANSWER),
    "the other kind's key": (
        [["raw", '{"id": <id>, "result": {"x": 1, "output": 1}}']],
        *BAD_ANSWER,
    ),
}


@pytest.mark.parametrize("path", HOT_PATHS)
@pytest.mark.parametrize("case", OWN_FAILURES)
async def test_an_agents_own_failure_has_its_status_in_a_stream_too(
    client: httpx.AsyncClient, path: str, case: str
) -> None:
    script, status, kind = OWN_FAILURES[case]
    for stream in (False, True):
        answer = await client.post(path, json=body_for(path, script, stream=stream))
        error = check_error(answer, status, kind)
        assert error["output_begun"] is False


@pytest.mark.parametrize("stream", [False, True])
async def test_a_handler_that_the_agent_lacks_is_501_before_it_is_asked(client, stream) -> None:
    messages = [{"role": "user", "content": "x"}]
    answer = await client.post(
        "/agent/invoke-only/chat", json={"messages": messages, "stream": stream}
    )
    check_error(answer, 501, "handler_not_implemented")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("said", [False, True])
async def test_a_worker_that_exits_is_501_with_how_and_whether_output_had_begun(
    client: httpx.AsyncClient, stream: bool, said: bool
) -> None:
    script = [*([["say", "word"]] if said and not stream else []), ["exit", 3]]
    answer = await client.post("/agent/scripted/invoke", json={"input": script, "stream": stream})
    error = check_error(answer, 501, "worker_crashed")
    assert error["exit_status"] == 3
    assert error["output_begun"] is (said and not stream)
    answer = await client.post("/agent/scripted/invoke", json={"input": "and the next?"})
    assert answer.json() == {"output": "and the next?"}


@pytest.mark.parametrize(
    "line", ["Segmentation fault", "[]", '{"id": 10000, "result": {}}', "null"]
)
async def test_garbage_is_502_and_the_next_request_is_served(client, line: str) -> None:
    answer = await client.post("/agent/scripted/invoke", json={"input": [["raw", line], ["hold"]]})
    error = check_error(answer, 502, "invalid_agent_response")
    assert error["violation"]
    answer = await client.post("/agent/scripted/invoke", json={"input": "still there"})
    assert answer.json() == {"output": "still there"}


# 503, 504


async def test_a_full_queue_is_503_with_retry_after(shared: Shared, client) -> None:
    async with connected(shared.port) as busy:
        script = [["say", "busy"], ["hold"]]
        await busy.request("/agent/narrow/invoke", {"input": script, "stream": True})
        await busy.until(b"busy")
        answer = await client.post("/agent/narrow/invoke", json={"input": 1})
        check_error(answer, 503, "overloaded")
        assert int(answer.headers["retry-after"]) >= 1
        assert "x-should-retry" not in answer.headers


async def test_an_agent_that_was_given_up_is_503_and_says_why(client: httpx.AsyncClient) -> None:
    first = await client.post("/agent/broken/invoke", json={"input": 1})
    assert first.status_code in {501, 503}  # one that an earlier test had made cold is open by now
    answer = await client.post("/agent/broken/invoke", json={"input": 1})
    error = check_error(answer, 503, "agent_unavailable")
    assert "exited with status 7" in error["message"]
    assert int(answer.headers["retry-after"]) > 1000


@pytest.mark.parametrize("stream", [False, True])
async def test_a_clock_that_runs_out_is_504_and_named(client: httpx.AsyncClient, stream) -> None:
    answer = await client.post("/agent/hasty/invoke", json={"input": [["hold"]], "stream": stream})
    error = check_error(answer, 504, "timeout")
    assert error["clock"] == "first"
    assert error["elapsed"] >= 0.2
    assert error["output_begun"] is False


async def test_silence_after_a_word_runs_the_idle_clock(client: httpx.AsyncClient) -> None:
    script = [["say", "word"], ["hold"]]
    answer = await client.post("/agent/silenced/invoke", json={"input": script})
    error = check_error(answer, 504, "timeout")
    assert (error["clock"], error["output_begun"]) == ("idle", True)


async def test_a_caller_may_shorten_total(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/agent/scripted/invoke", json={"input": [["hold"]]}, headers={"X-Timeout": "0.1"}
    )
    error = check_error(answer, 504, "timeout")
    assert error["clock"] == "total"
    assert error["elapsed"] >= 0.1


# Request ids


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/agent/scripted/invoke", 200),
        ("POST", "/agent/nobody/invoke", 404),
        ("GET", "/agent/scripted/invoke", 405),
        ("GET", "/live", 200),
        ("GET", "/agents", 200),
        ("GET", "/nothing", 404),
        ("POST", "/health", 405),
        ("GET", "/agent/nobody", 404),
    ],
)
async def test_a_request_id_comes_back_and_a_bad_one_is_replaced(
    client: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    for given, taken in (("abc-123", True), ("two words", False), ("x" * 129, False), ("", False)):
        answer = await client.request(
            method, path, json={"input": 1}, headers={"X-Request-Id": given}
        )
        assert answer.status_code == status
        assert answer.headers.get_list("x-request-id") == [answer.headers["x-request-id"]]
        assert (answer.headers["x-request-id"] == given) is taken
        assert answer.headers["x-request-id"]


async def test_two_requests_without_an_id_get_different_ones(client: httpx.AsyncClient) -> None:
    answers = [await client.get("/live"), await client.get("/live")]
    assert len({answer.headers["x-request-id"] for answer in answers}) == 2


# What there is, and how it is


async def test_health_names_the_agents(client: httpx.AsyncClient) -> None:
    answer = await client.get("/health")
    assert "scripted" in answer.json()["agents"]
    # One agent of this gateway is broken, and that is its own trouble.
    assert (answer.status_code, answer.json()["status"]) == (200, "healthy")
    assert answer.json()["states"].keys() == set(answer.json()["agents"])
    assert (await client.get("/live")).json() == {"status": "live"}


async def test_the_list_and_the_description_of_an_agent_agree(client: httpx.AsyncClient) -> None:
    await client.post("/agent/echo/invoke", json={"input": 1})
    listed = {agent["name"]: agent for agent in (await client.get("/agents")).json()["agents"]}
    for path in ("/agent/echo", "/agents/echo"):
        described = (await client.get(path)).json()
        assert described["handlers"] == listed["echo"]["handlers"] == ["invoke", "chat"]
        assert described["description"] == "Answers with what it was asked."
        assert described["state"] == "ready"
        assert [worker["in_flight"] for worker in described["workers"]] == [0]


async def test_one_agent_that_cannot_serve_is_shown_where_it_is(client: httpx.AsyncClient) -> None:
    await client.post("/agent/broken/invoke", json={"input": 1})
    answer = await client.get("/agent/broken/health")
    assert (answer.status_code, answer.json()["state"]) == (503, "open")
    ready = await client.get("/ready")
    assert ready.status_code == 200, "the others can serve"
    assert ready.json()["agents"]["broken"] == "open"
    assert (await client.get("/agent/echo/health")).status_code == 200
    health = await client.get("/health")
    assert (health.status_code, health.json()["status"]) == (200, "healthy")
    assert health.json()["states"]["broken"] == "open"


@pytest.mark.parametrize("path", ["/health", "/live", "/ready", "/agents", "/agent/echo"])
async def test_what_is_true_only_now_is_not_to_be_stored(client, path: str) -> None:
    answer = await client.get(path)
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "application/json"
    json.loads(answer.content)
