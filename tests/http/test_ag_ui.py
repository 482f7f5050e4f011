"""AG-UI over HTTP: what the gateway does for every request, in the forms of this protocol.

What its clients make of it is tested with those.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from gateway.config.keys import hash_key
from tests.harness import GatewayInThread, gateway_in_thread
from tests.http.conftest import SCRIPTED

KEYS = {name: f"agw_{name}{'x' * 40}" for name in ("ann", "bob", "eve")}
AGENTS = {"ann": ["*"], "bob": ["invoke-only"], "eve": ["*"]}
PATH = "/ag-ui/scripted"
ORIGIN = "https://page.example"


def toml() -> str:
    keys = "".join(
        f"[keys.{name}]\nhash = '{hash_key(key.encode())}'\nagents = {AGENTS[name]}\n"
        for name, key in KEYS.items()
    )
    return (
        "[server]\nsandbox = 'off'\ndialects = ['native', 'ag-ui']\n"
        f"cors = ['{ORIGIN}']\nmax_body = '64k'\n"
        f"{keys}[keys.eve.limits]\nrequests_per_minute = 3\n"
        f"[agents.scripted]\ncommand = {json.dumps(SCRIPTED)}\n"
        f"[agents.invoke-only]\ncommand = {json.dumps([*SCRIPTED, 'invoke'])}\n"
    )


@pytest.fixture(scope="module", name="gateway")
def gateway_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayInThread]:
    with gateway_in_thread(toml(), tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


def a_run(*steps: list[Any], **members: Any) -> dict[str, Any]:
    script = json.dumps(steps or [["say", "Hello"], ["end"]])
    message = {"id": "m1", "role": "user", "content": script}
    body = {"threadId": "t", "runId": "r", "protocolVersion": "1.0", "messages": [message]}
    return {**body, **members}


def of(name: str, **more: str) -> dict[str, str]:
    return {"authorization": f"Bearer {KEYS[name]}", **more}


def post(
    gateway: GatewayInThread, body: dict[str, Any], path: str = PATH, **headers: str
) -> httpx.Response:
    return httpx.post(gateway.url + path, json=body, headers=headers or of("ann"))


def events_of(text: str) -> list[dict[str, Any]]:
    lines = [line for line in text.split("\n") if line.startswith("data: ")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def test_every_answer_is_a_stream_whatever_the_client_accepts(
    gateway: GatewayInThread,
) -> None:
    accept = "application/vnd.ag-ui.event+proto, text/event-stream"
    answer = post(gateway, a_run(), **of("ann", accept=accept))
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["x-agent-session"] == "new"
    kinds = [event["type"] for event in events_of(answer.text)]
    assert (kinds[0], kinds[-1]) == ("RUN_STARTED", "RUN_FINISHED")


def test_errors_before_the_stream_have_its_form_and_a_status(gateway: GatewayInThread) -> None:
    ann = of("ann")
    asked: list[tuple[int, str, httpx.Response]] = [
        (401, "unauthorized", httpx.post(gateway.url + PATH, json=a_run())),
        (403, "forbidden", post(gateway, a_run(), "/ag-ui/scripted", **of("bob"))),
        (404, "agent_not_found", post(gateway, a_run(), "/ag-ui/nobody")),
        (404, "not_found", post(gateway, a_run(), "/ag-ui/scripted/x")),
        (405, "method_not_allowed", httpx.get(gateway.url + PATH, headers=ann)),
        (400, "invalid_request", post(gateway, {**a_run(), "threadId": 1})),
        (
            400,
            "invalid_request",
            post(gateway, a_run(tools=[{"name": "t", "description": ""}])),
        ),
        (413, "request_too_large", post(gateway, a_run(state="x" * 70_000))),
        (415, "unsupported_media_type", httpx.post(gateway.url + PATH, content="x", headers=ann)),
        (501, "handler_not_implemented", post(gateway, a_run(), "/ag-ui/invoke-only")),
        (500, "agent_error", post(gateway, a_run(["error", -32603, "no luck"]))),
    ]
    for status, code, answer in asked:
        error = answer.json()
        assert (answer.status_code, error["code"]) == (status, code)
        assert error["message"]
        assert error["metadata"]["request_id"] == answer.headers["x-request-id"]


def test_a_limit_is_a_429_that_says_when(gateway: GatewayInThread) -> None:
    answers = [post(gateway, a_run(), **of("eve")) for _ in range(4)]
    assert answers[-1].status_code == 429
    assert answers[-1].json()["code"] == "rate_limited"
    assert int(answers[-1].headers["retry-after"]) >= 1


def test_a_page_of_another_origin_may_call(gateway: GatewayInThread) -> None:
    ask = {"origin": ORIGIN, "access-control-request-method": "POST"}
    granted = httpx.options(gateway.url + PATH, headers=ask)
    assert granted.headers["access-control-allow-origin"] == ORIGIN
    answer = post(gateway, a_run(), **of("ann", origin=ORIGIN))
    assert answer.headers["access-control-allow-origin"] == ORIGIN


def test_an_error_in_mid_stream_is_an_event(gateway: GatewayInThread) -> None:
    answer = post(gateway, a_run(["say", "so far"], ["error", -32603, "no luck"]))
    *_, last = events_of(answer.text)
    assert (last["type"], last["message"], last["code"]) == ("RUN_ERROR", "no luck", "agent_error")
    assert last["metadata"] == {
        "code": -32603,
        "request_id": answer.headers["x-request-id"],
        "output_begun": True,
    }


def test_a_run_can_be_left_and_read_and_cancelled_from_elsewhere(
    gateway: GatewayInThread,
) -> None:
    begun = post(gateway, a_run(["say", "so far"], ["hold"]), **of("ann", prefer="respond-async"))
    assert begun.status_code == 202
    where = begun.headers["location"]
    assert (httpx.get(gateway.url + where, headers=of("bob"))).status_code == 404
    cancelled = httpx.post(f"{gateway.url}{where}/cancel", headers=of("ann"))
    assert cancelled.json()["state"] == "cancelled"
    rest = httpx.get(gateway.url + where, headers=of("ann", accept="text/event-stream"))
    *_, last = events_of(rest.text)
    assert last == {
        "type": "RUN_FINISHED",
        "threadId": "t",
        "runId": "r",
        "outcome": {"type": "cancelled"},
    }


def test_a_lost_stream_goes_on_after_the_last_event(gateway: GatewayInThread) -> None:
    key = of("ann", **{"idempotency-key": "k1"})
    whole = post(gateway, a_run(["say", "one"], ["say", "two"], ["end"]), **key)
    assert whole.text.startswith("id: 0\n")
    again = post(
        gateway,
        a_run(["say", "one"], ["say", "two"], ["end"]),
        **{**key, "last-event-id": "1"},
    )
    assert whole.text.endswith(again.text)
    assert again.text.startswith("id: 2\n")


def test_who_leaves_cancels_the_run(gateway: GatewayInThread) -> None:
    body = a_run(["say", "so far"], ["hold"])
    headers = of("ann", **{"x-request-id": "left"})
    with httpx.stream("POST", gateway.url + PATH, json=body, headers=headers) as answer:
        assert any("so far" in text for text in answer.iter_text())
    gateway.logged("cancelled left")
