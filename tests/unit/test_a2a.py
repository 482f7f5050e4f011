"""A2A 1.0 as it is spoken here: requests, tasks, streams, going on, lists and errors."""

from __future__ import annotations

import base64
import json
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import Call
from gateway.config import Clocks
from gateway.config.limits import LimitSettings
from gateway.errors import AgentFailed, Cancelled, GatewayError, InvalidRequest, NotFound
from gateway.exchange import Exchange
from gateway.front.a2a import task
from gateway.front.a2a.card import Described, agent_card, gateway_card, strangers_card
from gateway.front.a2a.dialect import A2ACodec, A2ADialect
from gateway.front.a2a.errors import CODES, encode_error
from gateway.front.a2a.listing import MOST_PAGE_BYTES, ListParams, list_tasks
from gateway.front.a2a.sending import TOOLS
from gateway.front.a2a.task import Artifacts, Record
from gateway.front.a2a.telling import TaskStream, Work, framed
from gateway.front.dialect import RequestHead, RunRequest
from gateway.front.limits.permits import Limits
from gateway.front.run_codec import RunReader, Told
from protocol import MAX_INPUT_NESTING, Outcome, Ready
from tests.unit.asgi import DIALECTS
from tests.unit.runs import Client, RunScene, keyed, say, scene

VERSION = {"a2a-version": "1.0"}
MINE = {"authorization": "Bearer mine"}
ASKS = b'[{"id":"a1","reason":"input_required","message":"Which day?"}]'
TOOL = {"name": "weather", "description": "", "parameters": {"type": "object"}}


def message(*parts: Any, **more: Any) -> dict[str, Any]:
    found = [{"text": part} if isinstance(part, str) else part for part in parts]
    return {"messageId": "m1", "role": "ROLE_USER", "parts": found, **more}


def event(exchange: Exchange, **members: Any) -> None:
    exchange.add_words([json.dumps(members).encode()], trio.current_time())


@asynccontextmanager
async def a2a(story: Any, **more: Any) -> AsyncIterator[RunScene]:
    async with scene(story, dialects=(A2ADialect(), *DIALECTS), **more) as it:
        yield it


async def rpc(
    it: RunScene, method: str, params: Any = None, *, agent: str = "a", **headers: str
) -> Client:
    body = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params or {}}
    return await it.ask(f"/a2a/{agent}", body, headers={**VERSION, **headers})


async def send(it: RunScene, *parts: Any, **more: Any) -> Any:
    client = await rpc(it, "SendMessage", {"message": message(*parts, **more)})
    assert client.json["id"] == 7
    return client.json["result"]["task"]


def results(client: Client) -> list[Any]:
    """The results of a stream's events."""
    lines = [line for line in client.body.split(b"\n") if line.startswith(b"data: ")]
    told = [json.loads(line.removeprefix(b"data: ")) for line in lines]
    assert {(each["jsonrpc"], each["id"]) for each in told} == {("2.0", 7)}
    return [each["result"] for each in told]


def states(events: list[Any]) -> list[str]:
    found = [event.get("task", event.get("statusUpdate")) for event in events]
    return [each["status"]["state"].removeprefix("TASK_STATE_") for each in found if each]


def text_of(artifacts: list[Any]) -> str:
    return "".join(part.get("text", "") for each in artifacts for part in each["parts"])


async def talk(exchange: Exchange) -> None:
    say(exchange, "Hello, ")
    await trio.sleep(1)
    say(exchange, "there")
    exchange.end(outcome=Outcome("stop", b'{"input_tokens":7,"output_tokens":3}'))


async def hold(exchange: Exchange) -> None:
    say(exchange, "so far")
    await trio.sleep_forever()


def test_the_codec_reads_runs() -> None:
    assert isinstance(A2ACodec("a", None), RunReader)


# Messages and their tasks


async def test_a_message_is_answered_with_its_task_once_that_is_done(
    autojump_clock: object,
) -> None:
    async with a2a(talk) as it:
        told = await send(it, "hi", contextId="c1")
        assert told["status"]["state"] == task.COMPLETED
        assert (told["contextId"], told["metadata"]["usage"]["input_tokens"]) == ("c1", 7)
        [artifact] = told["artifacts"]
        assert artifact["parts"] == [{"text": "Hello, there"}]
        [said] = told["history"]
        assert (said["taskId"], said["parts"]) == (told["id"], [{"text": "hi"}])


async def test_a_message_need_not_wait_for_its_task(autojump_clock: object) -> None:
    async with a2a(talk) as it:
        params = {"message": message("hi"), "configuration": {"returnImmediately": True}}
        began = (await rpc(it, "SendMessage", params)).json["result"]["task"]
        assert began["status"]["state"] == task.WORKING
        await trio.sleep(0.5)
        now = (await rpc(it, "GetTask", {"id": began["id"]})).json["result"]
        assert text_of(now["artifacts"]) == "Hello, "
        await trio.sleep(1)
        then = (await rpc(it, "GetTask", {"id": began["id"], "history_length": 0})).json["result"]
        assert (text_of(then["artifacts"]), "history" in then) == ("Hello, there", False)
        preferred = await rpc(it, "SendMessage", {"message": message("hi")}, prefer="respond-async")
        assert preferred.json["result"]["task"]["status"]["state"] == task.WORKING


async def test_a_stream_has_the_task_and_then_what_changes(autojump_clock: object) -> None:
    async def work(exchange: Exchange) -> None:
        event(exchange, type="status", text="Searching")
        event(exchange, type="reasoning", text="Hm.")
        event(exchange, type="tool_call", call="s1", name="search", arguments={"q": "x"})
        event(exchange, type="tool_result", call="s1", content="3 pages")
        say(exchange, "Found ", "it.")
        data = base64.b64encode(b"hello").decode()
        event(exchange, type="file", name="a.txt", mime="text/plain", data=data)
        event(exchange, type="usage", input_tokens=1)
        exchange.end()

    async with a2a(work) as it:
        client = await rpc(it, "SendStreamingMessage", {"message": message("hi")})
        told = results(client)
        assert states(told) == ["WORKING"] * 6 + ["COMPLETED"]
        ids = {told[0]["task"]["id"], *(each["statusUpdate"]["taskId"] for each in told[1:6])}
        assert len(ids) == 1
        shown = [each["statusUpdate"]["status"]["message"]["parts"] for each in told[2:6]]
        assert shown[0][0] == {"text": "Searching"}
        assert [parts[-1]["data"]["type"] for parts in shown] == [
            "status",
            "reasoning",
            "tool_call",
            "tool_result",
        ]
        updates = [each["artifactUpdate"] for each in told if "artifactUpdate" in each]
        assert [each["append"] for each in updates] == [False, True, False]
        assert text_of([each["artifact"] for each in updates]) == "Found it."
        [part] = updates[2]["artifact"]["parts"]
        assert part == {"raw": "aGVsbG8=", "filename": "a.txt", "mediaType": "text/plain"}
        kept = (await rpc(it, "GetTask", {"id": ids.pop()})).json["result"]
        assert [each["name"] for each in kept["artifacts"]] == ["answer", "a.txt"]


@pytest.mark.parametrize(
    ("error", "state"),
    [(AgentFailed("no luck"), task.FAILED), (InvalidRequest("no such city"), task.REJECTED)],
)
async def test_a_failure_is_a_state_of_the_task(error: Any, state: str) -> None:
    async def fail(exchange: Exchange) -> None:
        exchange.fail(error)

    async with a2a(fail) as it:
        told = (await send(it, "hi"))["status"]
        assert told["state"] == state
        parts = told["message"]["parts"]
        assert parts[0] == {"text": error.message}
        assert parts[1]["data"]["error"]["type"] == error.type
        client = await rpc(it, "SendStreamingMessage", {"message": message("hi")})
        assert states(results(client))[-1] == state.removeprefix("TASK_STATE_")


@pytest.mark.parametrize(
    ("outcome", "state", "finish"),
    [
        (Outcome("length"), task.COMPLETED, "length"),
        (Outcome("refused"), task.REJECTED, None),
        (Outcome("tool_calls"), task.COMPLETED, None),
    ],
)
async def test_how_an_answer_ended_is_told(outcome: Outcome, state: str, finish: Any) -> None:
    async def end(exchange: Exchange) -> None:
        exchange.end(outcome=outcome)

    async with a2a(end) as it:
        told = await send(it, "hi")
        assert (told["status"]["state"], told.get("metadata", {}).get("finish")) == (state, finish)


async def test_data_alone_is_the_input_of_an_invoke() -> None:
    async def echo(exchange: Exchange) -> None:
        assert exchange.call.method == "invoke"
        exchange.end(b'{"got":%b}' % bytes(exchange.call.payload))

    async with a2a(echo) as it:
        [artifact] = (await send(it, {"data": {"x": 1}}))["artifacts"]
        assert artifact["parts"][0]["data"] == {"got": {"x": 1}}


async def test_other_messages_reach_the_agent_as_a_chat() -> None:
    seen: list[Call] = []

    async def note(exchange: Exchange) -> None:
        seen.append(exchange.call)
        exchange.end(b'{"role":"assistant","content":{"k":1}}')

    async with a2a(note) as it:
        told = await send(it, "Hello")
        assert told["artifacts"][0]["parts"][0]["data"] == {"k": 1}
        await send(
            it,
            "See",
            {"data": [1]},
            {"raw": "iVBORw", "mediaType": "image/png"},
            {"url": "https://x.example/i", "mediaType": "image/png"},
            {"raw": "aGk=", "mediaType": "audio/wav"},
            {"raw": "aGk=", "mediaType": "application/pdf", "filename": "a.pdf"},
            metadata={"who": "me", TOOLS: [TOOL]},
        )
    plain, rich = seen
    assert json.loads(bytes(plain.payload)) == [{"role": "user", "content": "Hello"}]
    assert (plain.stream, plain.continues, plain.needs) == (True, True, frozenset())
    assert rich.needs == {"image", "audio", "file", "tools"}
    [said] = json.loads(bytes(rich.payload))
    types = ["text", "text", "image_url", "image_url", "input_audio", "file"]
    assert [part["type"] for part in said["content"]] == types
    assert said["content"][2]["image_url"]["url"] == "data:image/png;base64,iVBORw=="
    context = json.loads(rich.context)
    assert context["custom"] == {"who": "me"}
    assert context["parameters"]["message_id"] == "m1"
    assert context["conversation_id"].startswith("context_")


# Going on


async def test_a_question_is_answered_under_the_same_id(autojump_clock: object) -> None:
    seen: list[Call] = []

    async def ask(exchange: Exchange) -> None:
        seen.append(exchange.call)
        if exchange.call.resume is None:
            say(exchange, "One thing. ")
            exchange.end(outcome=Outcome("input_required", asks=ASKS))
        else:
            say(exchange, "Then Tuesday.")
            exchange.end()

    async with a2a(ask) as it:
        asked = await send(it, "Plan", contextId="c1")
        assert asked["status"]["state"] == task.INPUT_REQUIRED
        parts = asked["status"]["message"]["parts"]
        assert parts[0] == {"text": "Which day?"}
        assert parts[1]["data"]["asks"][0]["id"] == "a1"
        done = await send(it, "Tuesday", taskId=asked["id"])
        assert (done["id"], done["contextId"]) == (asked["id"], "c1")
        assert done["status"]["state"] == task.COMPLETED
        assert [text_of([each]) for each in done["artifacts"]] == ["One thing. ", "Then Tuesday."]
        assert [each["role"] for each in done["history"]] == [
            "ROLE_USER",
            "ROLE_AGENT",
            "ROLE_USER",
        ]
    first, second = seen
    assert json.loads(second.resume or b"") == [
        {"id": "a1", "status": "resolved", "payload": "Tuesday"}
    ]
    assert bytes(second.payload) == b'[{"role":"user","content":"Plan"}]'
    assert second.needs == {"asks"}
    assert second.conversation == first.conversation == "c1"


@pytest.mark.parametrize(
    ("part", "resume"),
    [
        ({"data": True}, [{"id": "a1", "status": "resolved", "payload": True}]),
        (
            {"data": {"resume": [{"id": "a1", "status": "cancelled"}]}},
            [{"id": "a1", "status": "cancelled"}],
        ),
    ],
)
async def test_a_question_can_be_answered_with_data(part: Any, resume: Any) -> None:
    seen: list[Any] = []

    async def ask(exchange: Exchange) -> None:
        if exchange.call.resume is not None:
            seen.append(json.loads(exchange.call.resume))
        exchange.end(outcome=Outcome("input_required", asks=ASKS))

    async with a2a(ask) as it:
        asked = await send(it, "Plan")
        again = await send(it, part, taskId=asked["id"])
        assert again["status"]["state"] == task.INPUT_REQUIRED
    assert seen == [resume]


async def test_the_clients_tools_are_called_and_their_results_go_back() -> None:
    seen: list[Any] = []

    async def call(exchange: Exchange) -> None:
        messages = json.loads(bytes(exchange.call.payload))
        seen.append(messages)
        if messages[-1]["role"] == "tool":
            say(exchange, messages[-1]["content"])
            exchange.end()
            return
        say(exchange, "Let me see.")
        event(exchange, type="tool_call", call="o1", name="own", arguments={})
        for number in (1, 2):
            event(exchange, type="tool_call", call=f"c{number}", name="weather", arguments={"n": 1})
        exchange.end(outcome=Outcome("tool_calls"))

    async with a2a(call) as it:
        asked = await send(it, "Oslo?", metadata={TOOLS: [TOOL]})
        assert asked["status"]["state"] == task.INPUT_REQUIRED
        [part] = asked["status"]["message"]["parts"]
        assert [(each["id"], each["arguments"]) for each in part["data"]["toolCalls"]] == [
            ("c1", {"n": 1}),
            ("c2", {"n": 1}),
        ]
        given = [{"call": "c1", "content": "12 °C"}, {"call": "c2", "content": {"c": 13}}]
        short = await rpc(
            it,
            "SendMessage",
            {"message": message({"data": {"toolResults": given[:1]}}, taskId=asked["id"])},
        )
        assert (short.json["error"]["code"], "c2" in short.json["error"]["message"]) == (
            -32602,
            True,
        )
        done = await send(it, {"data": {"toolResults": given}}, taskId=asked["id"])
        assert text_of(done["artifacts"][1:]) == '{"c": 13}'
    user, assistant, *tools = seen[1]
    assert user["content"] == "Oslo?"
    assert (assistant["content"], len(assistant["tool_calls"])) == ("Let me see.", 2)
    assert [each["tool_call_id"] for each in tools] == ["c1", "c2"]


async def test_a_task_that_does_not_wait_takes_no_message(autojump_clock: object) -> None:
    async with a2a(talk) as it:
        params = {"message": message("hi"), "configuration": {"returnImmediately": True}}
        began = (await rpc(it, "SendMessage", params)).json["result"]["task"]
        more = {"message": message("more", taskId=began["id"])}
        assert (await rpc(it, "SendMessage", more)).json["error"]["code"] == -32004
        await trio.sleep(5)
        for method in ("SendMessage", "SendStreamingMessage"):
            assert (await rpc(it, method, more)).json["error"]["code"] == -32004
        other = {"message": message("more", taskId=began["id"], contextId="another")}
        assert (await rpc(it, "SendMessage", other)).json["error"]["code"] == -32602


async def test_what_was_too_long_to_be_kept_cannot_be_gone_on_from() -> None:
    async def ask(exchange: Exchange) -> None:
        exchange.end(outcome=Outcome("input_required", asks=ASKS))

    text = "x" * (task.MAX_HISTORY + 1)
    async with scene(ask, dialects=(A2ADialect(), *DIALECTS)) as it:
        it.routes.calling.max_body = 1_000_000
        asked = await send(it, text)
        assert "history" not in asked
        more = {"message": message("Tuesday", taskId=asked["id"])}
        error = (await rpc(it, "SendMessage", more)).json["error"]
        assert (error["code"], "too long" in error["message"]) == (-32004, True)


# Tasks


async def test_a_task_is_followed_after_a_cut(autojump_clock: object) -> None:
    async with a2a(talk) as it:
        first = it.begin(
            "/a2a/a",
            {
                "jsonrpc": "2.0",
                "id": 1,
                "method": "SendStreamingMessage",
                "params": {"message": message("hi")},
            },
            headers=VERSION,
        )
        await trio.sleep(0.5)
        first.leaves.set()
        run = first.headers[b"x-run-id"].decode().replace("run_", "task_")
        told = results(await rpc(it, "SubscribeToTask", {"id": run}))
        assert states(told) == ["WORKING", "COMPLETED"]
        assert text_of(told[0]["task"]["artifacts"]) == "Hello, "
        assert told[1]["artifactUpdate"]["artifact"]["parts"] == [{"text": "there"}]
        over = await rpc(it, "SubscribeToTask", {"id": run})
        assert over.json["error"]["code"] == -32004


async def test_a_task_is_cancelled_once(autojump_clock: object) -> None:
    async with a2a(hold) as it:
        dispatcher: Any = it.runs._dispatcher

        def leave(exchange: Exchange) -> None:
            exchange.fail(Cancelled())

        dispatcher.leave = leave
        params = {"message": message("hi"), "configuration": {"returnImmediately": True}}
        began = (await rpc(it, "SendMessage", params)).json["result"]["task"]
        told = (await rpc(it, "CancelTask", {"id": began["id"]})).json["result"]
        assert told["status"]["state"] == task.CANCELED
        await trio.sleep(1)
        kept = (await rpc(it, "GetTask", {"id": began["id"]})).json["result"]
        assert kept["status"]["state"] == task.CANCELED
        again = await rpc(it, "CancelTask", {"id": began["id"]})
        assert again.json["error"]["code"] == -32002


async def test_a_task_that_waits_can_be_followed_and_cancelled(autojump_clock: object) -> None:
    async def ask(exchange: Exchange) -> None:
        exchange.end(outcome=Outcome("input_required", asks=ASKS))

    async with a2a(ask) as it:
        asked = await send(it, "Plan")
        body = {
            "jsonrpc": "2.0",
            "id": 7,
            "method": "SubscribeToTask",
            "params": {"id": asked["id"]},
        }
        follower = it.begin("/a2a/a", body, headers=VERSION)
        await trio.sleep(1)
        told = (await rpc(it, "CancelTask", {"id": asked["id"]})).json["result"]
        assert told["status"]["state"] == task.CANCELED
        await follower.answered.wait()
        assert states(results(follower)) == ["INPUT_REQUIRED", "CANCELED"]
        more = {"message": message("Tuesday", taskId=asked["id"])}
        assert (await rpc(it, "SendMessage", more)).json["error"]["code"] == -32004


async def test_tasks_are_secrets_of_whoever_began_them(autojump_clock: object) -> None:
    async with a2a(talk) as it:
        client = await rpc(it, "SendMessage", {"message": message("hi")}, **MINE)
        mine = client.json["result"]["task"]["id"]
        for asked, agent, headers in [
            (mine, "a", {}),
            (mine, "b", MINE),
            ("task_" + "0" * 56, "a", MINE),
            ("nothing", "a", MINE),
        ]:
            for method in ("GetTask", "CancelTask", "SubscribeToTask"):
                error = await rpc(it, method, {"id": asked}, agent=agent, **headers)
                assert (error.status, error.json["error"]["code"]) == (200, -32001)
            told = {"message": message("hi", taskId=asked)}
            error = await rpc(it, "SendMessage", told, agent=agent, **headers)
            assert error.json["error"]["code"] == -32001


async def test_tasks_are_listed_for_whoever_has_a_key(autojump_clock: object) -> None:
    async with a2a(talk) as it:
        for number in range(3):
            params = {"message": message("hi", contextId=f"c{number % 2}")}
            await rpc(it, "SendMessage", params, **MINE)

        async def listed(**params: Any) -> Any:
            return (await rpc(it, "ListTasks", params, **MINE)).json["result"]

        everything = await listed()
        assert (everything["totalSize"], everything["pageSize"]) == (3, 50)
        assert everything["nextPageToken"] == ""
        assert not any("artifacts" in each for each in everything["tasks"])
        assert len((await listed(contextId="c0"))["tasks"]) == 2
        assert (await listed(status=task.WORKING))["tasks"] == []
        assert all("artifacts" in each for each in (await listed(includeArtifacts=True))["tasks"])
        assert (await listed(statusTimestampAfter="2999-01-01T00:00:00Z"))["totalSize"] == 0
        first = await listed(pageSize=2)
        rest = await listed(pageSize=2, pageToken=first["nextPageToken"])
        ids = [each["id"] for each in (*first["tasks"], *rest["tasks"])]
        assert ids == [each["id"] for each in everything["tasks"]]
        assert rest["nextPageToken"] == ""
        for nothing in ({}, *({"authorization": text} for text in ("", " ", "Bearer", "basic "))):
            nobody = await rpc(it, "ListTasks", **nothing)
            assert nobody.json["error"]["code"] == -32004
        for wrong in ({"pageSize": 0}, {"pageSize": 101}, {"status": "done"}, {"pageToken": "x"}):
            error = (await rpc(it, "ListTasks", wrong, **MINE)).json["error"]
            assert error["code"] == -32602


async def test_a_page_of_tasks_ends_where_it_has_enough_bytes(autojump_clock: object) -> None:
    size = MOST_PAGE_BYTES // 5 * 2

    async def fill(exchange: Exchange) -> None:
        say(exchange, "x" * size)
        exchange.end()

    async with a2a(fill) as it:
        began = [
            (await rpc(it, "SendMessage", {"message": message("hi")}, **MINE)).json["result"]
            for _ in range(5)
        ]
        seen, pages, token = [], [], ""
        while not pages or token:
            params = {"includeArtifacts": True, "pageToken": token}
            page = await rpc(it, "ListTasks", params, **MINE)
            assert len(page.body) < MOST_PAGE_BYTES + 1024
            told, token = page.json["result"], page.json["result"]["nextPageToken"]
            pages.append(len(told["tasks"]))
            seen += [each["id"] for each in told["tasks"]]
            assert told["totalSize"] == 5
        assert pages == [2, 2, 1]
        assert sorted(seen) == sorted(each["task"]["id"] for each in began)
        shorter = (await rpc(it, "ListTasks", {}, **MINE)).json["result"]
        assert (len(shorter["tasks"]), shorter["nextPageToken"]) == (5, "")


class _InList:
    """A `Listed`."""

    def __init__(self, record: Record) -> None:
        self.outline = record.summary
        self.record = record
        self.told = 0

    def tell(self) -> Told:
        self.told += 1
        return Told(self.record.write(), ended=False)


def test_no_more_is_read_of_tasks_that_are_not_on_the_page_than_their_summaries() -> None:
    runs = []
    for number in range(10):
        work = Work("c", frozenset(), None)
        work.id = f"task_{number}"
        if number < 2:
            work.text([msgspec.json.encode("x" * (MOST_PAGE_BYTES // 4 * 3))])
        runs.append(_InList(work.record("running")))
        assert work.summary("running") == runs[-1].record.summary
    ids = {each.record.task.id: each for each in runs}
    params = ListParams(
        page_size=3, include_artifacts=True, page_token="9999-01-01T00:00:00.000Z~x"
    )
    told = json.loads(list_tasks(params, runs))
    assert sum(each.told for each in runs) == 3
    assert all(ids[each["id"]].told == 1 for each in told["tasks"])
    largest = json.loads(list_tasks(params, runs[:2]))
    assert (len(largest["tasks"]), bool(largest["nextPageToken"])) == (1, True)


async def test_tasks_can_be_cancelled_though_no_more_may_be_begun(autojump_clock: object) -> None:
    limits = Limits({"a": LimitSettings(concurrent=1)}, {})
    async with a2a(hold, limits=limits) as it:
        params = {"message": message("hi"), "configuration": {"returnImmediately": True}}
        began = (await rpc(it, "SendMessage", params)).json["result"]["task"]
        refused = await rpc(it, "SendMessage", params)
        assert (refused.status, refused.json["error"]["code"]) == (429, -32000)
        assert refused.headers[b"retry-after"]
        for method in ("GetTask", "CancelTask"):
            told = (await rpc(it, method, {"id": began["id"]})).json["result"]
            assert told["id"] == began["id"]


async def test_what_is_kept_of_a_task_is_shown_by_a2a_alone(autojump_clock: object) -> None:
    async with a2a(talk) as it:
        token = (await send(it, "a secret question"))["id"].removeprefix(task.PREFIX)
        other = await it.ask(f"/v1/responses/resp_{token}", method="GET")
        assert other.status == 404
        run = await it.get(f"run_{token}")
        assert (run.status, run.json["state"]) == (200, "completed")
        assert b"a secret question" not in run.body + other.body


async def test_a_body_is_not_kept_with_its_task(autojump_clock: object) -> None:
    async with a2a(hold) as it:
        params = {"message": message("hi"), "configuration": {"returnImmediately": True}}
        await rpc(it, "SendMessage", params)
        [run] = it.runs._registry
        codec: Any = run._codec
        assert (codec._sent, codec._head, codec._done) == (None, None, None)


# Refusals


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
PART = st.one_of(
    JUNK,
    st.fixed_dictionaries(
        {},
        optional={
            "text": JUNK,
            "raw": JUNK | st.just("aGk="),
            "url": JUNK,
            "data": JUNK,
            "mediaType": JUNK | st.sampled_from(["image/png", "audio/wav", "a/b;c"]),
            "filename": JUNK,
        },
    ),
    st.just({"text": "x"}),
)
MESSAGE = st.fixed_dictionaries(
    {},
    optional={
        "messageId": JUNK | st.just("m"),
        "message_id": JUNK,
        "contextId": JUNK,
        "taskId": JUNK,
        "role": JUNK | st.just("ROLE_USER"),
        "parts": JUNK | st.lists(PART, max_size=3),
        "metadata": JUNK | st.fixed_dictionaries({TOOLS: JUNK}),
        "referenceTaskIds": JUNK,
    },
)
PARAMS = st.fixed_dictionaries(
    {},
    optional={
        "message": JUNK | MESSAGE,
        "configuration": JUNK
        | st.fixed_dictionaries(
            {}, optional={"historyLength": JUNK, "history_length": JUNK, "returnImmediately": JUNK}
        ),
        "metadata": JUNK,
        "tenant": JUNK,
        "id": JUNK,
        "pageSize": JUNK,
        "pageToken": JUNK,
        "status": JUNK,
        "statusTimestampAfter": JUNK,
    },
)
METHODS = (
    "SendMessage",
    "SendStreamingMessage",
    "GetTask",
    "ListTasks",
    "CancelTask",
    "SubscribeToTask",
    "GetExtendedAgentCard",
)


@given(st.sampled_from(METHODS), JUNK | PARAMS, JUNK | st.just(1))
def test_any_body_is_a_request_or_a_refusal(method: str, params: Any, rpc_id: Any) -> None:
    body = json.dumps({"jsonrpc": "2.0", "id": rpc_id, "method": method, "params": params})
    codec = A2ACodec("a", None)
    head = RequestHead("r", fields={b"a2a-version": b"1.0", b"authorization": b"x"})
    try:
        asked: Any = codec.decode(head, body.encode("utf-8", "replace"))
    except GatewayError as error:
        asked = error
    if isinstance(asked, GatewayError):
        told = json.loads(codec.encode_error(asked, "r").body)
        assert (asked.status in {400, 413}, told["jsonrpc"]) == (True, "2.0")
        assert told["error"]["code"] < 0
    else:
        assert isinstance(asked, Call | RunRequest)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", -32700),
        (b"\xff", -32700),
        (b"[]", -32600),
        (b"{}", -32600),
        (b'{"jsonrpc":"1.0","id":1,"method":"GetTask"}', -32600),
        (b'{"jsonrpc":"2.0","method":"GetTask"}', -32600),
        (b'{"jsonrpc":"2.0","id":{},"method":"GetTask"}', -32600),
        (b'{"jsonrpc":"2.0","id":"' + b"x" * 300 + b'","method":"GetTask"}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":5}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"GetTask","params":[]}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{}}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"message/send"}', -32601),
        (b'{"jsonrpc":"2.0","id":1,"method":"GetExtendedAgentCard"}', -32004),
        (b'{"jsonrpc":"2.0","id":1,"method":"CreateTaskPushNotificationConfig"}', -32003),
        (
            b'{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{"id":%b}}'
            % (b"[" * MAX_INPUT_NESTING + b"]" * MAX_INPUT_NESTING),
            -32602,
        ),
    ],
)
async def test_a_wrong_request_has_its_code(body: bytes, code: int) -> None:
    async with a2a(talk) as it:
        client = Client(body)
        scope = it.scope_of("/a2a/a", VERSION)
        await it.routes(scope, client.receive, client.send)
        assert (client.status, client.json["error"]["code"]) == (200, code)
        known = b'"id":1,' in body
        assert client.json["id"] == (1 if known else None)


@pytest.mark.parametrize(
    ("params", "code", "field"),
    [
        ({}, -32602, "message"),
        ({"message": message()}, -32602, "message.parts"),
        ({"message": {"role": "ROLE_USER", "parts": []}}, -32602, "message.messageId"),
        ({"message": message("x", role="ROLE_AGENT")}, -32602, "message.role"),
        ({"message": message("x", role="user")}, -32602, "message.role"),
        ({"message": message({})}, -32602, "message.parts[0]"),
        ({"message": message({"text": "x", "data": 1})}, -32602, "message.parts[0]"),
        ({"message": message({"text": 5})}, -32602, "message.parts[0].text"),
        ({"message": message({"raw": "!", "mediaType": "a/b"})}, -32602, "message.parts[0].raw"),
        ({"message": message({"raw": "", "mediaType": "x"})}, -32602, "message.parts[0].mediaType"),
        ({"message": message({"url": "file:///etc/passwd"})}, -32005, None),
        ({"message": message("x", contextId="c" * 300)}, -32602, "message.contextId"),
        ({"message": message("x"), "tenant": "b"}, -32602, "tenant"),
        ({"message": message("x", metadata=[])}, -32602, "message.metadata"),
        ({"message": message("x", metadata={TOOLS: 5})}, -32602, "metadata"),
        (
            {"message": message("x"), "configuration": {"historyLength": -1}},
            -32602,
            "configuration.historyLength",
        ),
        (
            {
                "message": message("x"),
                "configuration": {"taskPushNotificationConfig": {"url": "http://x"}},
            },
            -32003,
            None,
        ),
    ],
)
async def test_a_wrong_message_is_refused_by_the_name_of_what_is_wrong(
    params: Any, code: int, field: str | None
) -> None:
    async with a2a(talk) as it:
        error = (await rpc(it, "SendMessage", params)).json["error"]
        assert error["code"] == code
        if field is not None:
            [violation] = error["data"][1]["fieldViolations"]
            assert violation["field"] == field


MANY = 100_000
"""More than any list may have."""


@pytest.mark.parametrize(
    ("params", "field"),
    [
        (b'{"message":{"task_id":"t","parts":[%b]}}', "message.parts"),
        (b'{"message":{"taskId":"t","messageId":"m","role":"ROLE_USER","parts":[%b]}}', ""),
        (
            (
                b'{"message":{"messageId":"m","role":"ROLE_USER","parts":[{"text":"x"}],'
                b'"referenceTaskIds":[%b]}}'
            ),
            "message.referenceTaskIds",
        ),
        (
            (
                b'{"message":{"messageId":"m","role":"ROLE_USER","parts":[{"text":"x"}]},'
                b'"configuration":{"acceptedOutputModes":[%b]}}'
            ),
            "configuration.acceptedOutputModes",
        ),
    ],
)
def test_long_lists_are_refused_before_anything_is_made_of_them(params: bytes, field: str) -> None:
    body = b'{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":%b}' % (
        params % b",".join([b"{}"] * MANY)
    )
    with pytest.raises(InvalidRequest, match="has more than") as refused, most_memory(len(body)):
        A2ACodec("a", None).decode(RequestHead("r", fields={b"a2a-version": b"1.0"}), body)
    assert refused.value.message.startswith(field or "message.parts")


def test_members_that_are_not_known_cost_nothing_beside_one_in_snake_case() -> None:
    unknown = b",".join(b'"%d":0' % index for index in range(MANY))
    body = (
        b'{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{"history_length":0,"id":"task_x",%b}}'
        % unknown
    )
    with most_memory(2 * len(body)):
        asked = A2ACodec("a", None).decode(RequestHead("r", fields={b"a2a-version": b"1.0"}), body)
    assert asked == RunRequest("show", "x")


@contextmanager
def most_memory(size: int) -> Iterator[None]:
    """Fails for more bytes than these, and some for what is made once."""
    tracemalloc.start()
    try:
        yield
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < size + 1024 * 1024


@pytest.mark.parametrize("version", [None, "", "0.3", "1.1", "1", "1.0, 0.3"])
async def test_no_other_version_is_spoken(version: str | None) -> None:
    async with a2a(talk) as it:
        body = {"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": "x"}}
        headers = {} if version is None else {"a2a-version": version}
        error = (await it.ask("/a2a/a", body, headers=headers)).json["error"]
        assert (error["code"], error["data"][0]["reason"]) == (-32009, "VERSION_NOT_SUPPORTED")


async def test_the_version_may_have_a_patch_or_stand_in_the_query() -> None:
    async with a2a(talk) as it:
        body = {"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": "x"}}
        for headers, query in (({"a2a-version": "1.0.3"}, ""), ({}, "x=1&A2A-Version=1.0")):
            client = await it.ask("/a2a/a/", body, headers=headers, query=query)
            assert client.json["error"]["code"] == -32001


def test_errors_of_paths_are_not_of_tasks() -> None:
    dialect = A2ADialect()
    assert (
        dialect.match("/a2a/") is dialect.match("/a2a/x/y") is dialect.match_run("/a2a/x") is None
    )
    assert dialect.covers("/a2a/x/y") is True
    response = dialect.encode_error(NotFound("nothing"), "r1")
    assert (response.status, json.loads(response.body)["error"]["code"]) == (404, -32000)
    assert json.loads(response.body)["error"]["data"][0]["metadata"]["requestId"] == "r1"
    assert set(CODES.values()) & set(range(-32009, -32000)) == set(range(-32009, -32000)) - {
        -32007,
        -32008,
    }
    assert encode_error(AgentFailed("x"), "r").status == 500


# Words


WORDS = st.one_of(
    st.text().map(msgspec.json.encode),
    st.text(max_size=40).map(lambda text: msgspec.json.encode({"type": "reasoning", "text": text})),
    st.text(max_size=40).map(lambda text: msgspec.json.encode({"type": "status", "text": text})),
    st.binary(max_size=40).map(
        lambda data: msgspec.json.encode(
            {"type": "file", "name": "f", "mime": "a/b", "data": base64.b64encode(data).decode()}
        )
    ),
    st.sampled_from(
        [
            b'{"type":"tool_call","call":"c","name":"weather","delta":"{"}',
            b'{"type":"tool_call","call":"d","name":"own","arguments":{}}',
            b'{"type":"tool_result","call":"d","content":[1,\t2]}',
            b'{"type":"state","value":{"a":"\xe2\x80\xa8"}}',
            b'{"type":"x-own","y":1}',
        ]
    ),
)


@given(st.lists(st.lists(WORDS, min_size=1, max_size=5), max_size=6), st.booleans())
def test_the_events_of_a_stream_add_up_to_the_task(batches: list[list[bytes]], fails: bool) -> None:
    call = Call(agent="a", method="chat", payload=b"[]", stream=True, request_id="r", events=True)
    exchange = Exchange(call, Clocks(), 0.0)
    work = Work("c", frozenset({"weather"}), None)
    work.id = "task_1"
    stream = TaskStream(work, exchange)
    sent = [stream.chunks(words) for words in batches]
    middle = len(sent) // 2
    if fails:
        sent.append(stream.error(AgentFailed("no")))
    else:
        exchange.outcome = Outcome("stop")
        sent.append(stream.end(None))
    kept = b"".join(b"id: 0\n" + each + b"\n\n" for each in b"".join(sent).split(b"\n\n") if each)
    lines = framed(kept, b'"x\\u2028"').split(b"\n")
    told = [json.loads(line.removeprefix(b"data: ")) for line in lines if line[:5] == b"data:"]
    assert len(told) == work.events
    assert all("\u2028" not in line.decode() for line in lines)
    assert middle <= len(told)
    assert states([each["result"] for each in told])[-1] == ("FAILED" if fails else "COMPLETED")
    record = Record.read(work.record("failed" if fails else "completed").write())
    shown = json.loads(record.show())
    updates = [
        each["result"]["artifactUpdate"] for each in told if "artifactUpdate" in each["result"]
    ]
    assert text_of(shown.get("artifacts", [])) == text_of([each["artifact"] for each in updates])
    files = [each["artifact"] for each in updates if each["artifact"]["name"] == "f"]
    assert [each for each in shown.get("artifacts", []) if each["name"] == "f"] == files


async def test_a_defect_in_mid_stream_is_told_as_an_error_to_each_reader(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: TaskStream, result: Any) -> bytes:
        raise ZeroDivisionError

    monkeypatch.setattr(TaskStream, "end", broken)
    async with a2a(talk) as it:
        params = {"message": message("hi")}
        first = it.begin(
            "/a2a/a",
            {"jsonrpc": "2.0", "id": "one", "method": "SendStreamingMessage", "params": params},
            headers=VERSION,
        )
        await trio.sleep(0.5)
        asked = {"id": "task_" + first.run.removeprefix("run_")}
        second = await rpc(it, "SubscribeToTask", asked)
        await first.answered.wait()
        for client, id_ in ((first, "one"), (second, 7)):
            lines = [line for line in client.body.split(b"\n") if line.startswith(b"data: ")]
            told = [json.loads(line.removeprefix(b"data: ")) for line in lines]
            assert {each["id"] for each in told} == {id_}
            assert all("result" in each for each in told[:-1])
            assert (set(told[-1]), told[-1]["error"]["code"]) == (
                {"jsonrpc", "id", "error"},
                -32603,
            )
        failed = (await rpc(it, "GetTask", asked)).json["result"]
        assert failed["status"]["state"] == task.FAILED
    assert "ZeroDivisionError" in caplog.text


def test_more_than_a_task_keeps_ends_it() -> None:
    call = Call(agent="a", method="chat", payload=b"[]", stream=True, request_id="r", events=True)
    exchange = Exchange(call, Clocks(), 0.0)
    work = Work("c", frozenset(), None)
    stream = TaskStream(work, exchange)
    word = msgspec.json.encode("x" * (task.MAX_OUTPUT // 2))
    assert b"artifactUpdate" in stream.chunks([word])
    stream.chunks([word])
    assert exchange.error is not None
    assert stream.chunks([word]) == b""
    assert b"TASK_STATE_FAILED" in stream.end(None)
    assert work.record("failed").task.state == task.FAILED


def test_the_text_of_a_task_takes_no_more_memory_in_small_pieces() -> None:
    artifacts = Artifacts()
    pieces = 200_000
    with most_memory(3 * 2 * pieces):  # the buffer grows by copies
        for index in range(pieces):
            artifacts.text(b"%02d" % (index % 100))
    assert len(artifacts.said) == 2 * pieces + 2


def test_chunks_that_say_nothing_are_no_events() -> None:
    work = Work("c", frozenset(), None)
    told = b"".join(work.text([text]) for text in (b'""', b'""', b'"a"', b'""', b'"b"'))
    assert (work.events, told.count(b"artifactUpdate")) == (3, 3)
    assert work.artifacts.said == b'"ab"'


def test_artifacts_keep_their_order() -> None:
    artifacts = Artifacts()
    artifacts.add("before", b'{"text":"1"}')
    assert artifacts.text(b"a") == ("artifact-2", True)
    artifacts.add("after", b'{"text":"2"}')
    assert artifacts.text(b"b") == ("artifact-2", False)
    told = json.loads(Artifacts(artifacts.render()).render())
    assert [(each["artifactId"], each["name"]) for each in told] == [
        ("artifact-1", "before"),
        ("artifact-2", "answer"),
        ("artifact-3", "after"),
    ]
    assert told[1]["parts"] == [{"text": "ab"}]


# Cards


def test_a_card_says_what_the_agent_declared() -> None:
    ready = Ready(
        protocol=1,
        handlers=("chat", "invoke"),
        description="Knows the weather.",
        metadata=b'{"version":"2.1"}',
        modes=("text", "image", "x-own"),
        tools=True,
        input=b'{"type":"object"}',
    )
    card = json.loads(agent_card(Described("bot", None, ready), "https://h:1", keys=True))
    assert card["supportedInterfaces"] == [
        {"url": "https://h:1/a2a/bot", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
    ]
    assert (card["version"], card["description"]) == ("2.1", "Knows the weather.")
    assert card["defaultInputModes"] == ["text/plain", "application/json", "image/*"]
    assert [skill["id"] for skill in card["skills"]] == ["chat", "invoke"]
    assert card["capabilities"]["extendedAgentCard"] is True
    assert card["capabilities"]["extensions"][0]["uri"] == TOOLS
    assert card["capabilities"]["extensions"][1]["params"] == {"input": {"type": "object"}}
    assert set(card["securitySchemes"]) == {"bearer", "apiKey"}
    bare = json.loads(agent_card(Described("jq"), "http://h", keys=False))
    assert "securitySchemes" not in bare
    assert bare["capabilities"] == {
        "streaming": True,
        "pushNotifications": False,
        "extendedAgentCard": False,
    }
    invoking = Described("i", "Adds.", Ready(protocol=1, handlers=("invoke",), metadata=b"[]"))
    [skill] = json.loads(agent_card(invoking, "http://h", keys=False))["skills"]
    assert (skill["id"], skill["inputModes"]) == ("invoke", ["text/plain", "application/json"])


def test_a_stranger_learns_nothing_from_a_card() -> None:
    one, other = strangers_card("x", "http://h"), strangers_card("y", "http://h")
    assert one.replace(b"/x", b"/y").replace(b'"x"', b'"y"') == other
    several = json.loads(gateway_card([Described("x"), Described("y", "Z")], "http://h", keys=True))
    assert [each["tenant"] for each in several["supportedInterfaces"]] == ["x", "y"]
    assert [each["description"] for each in several["skills"]] == ["The agent 'x'.", "Z"]


def test_a_head_without_a_query_has_no_version() -> None:
    codec = A2ACodec("a", None)
    with pytest.raises(InvalidRequest, match="no A2A-Version"):
        codec.decode(RequestHead("r"), b'{"jsonrpc":"2.0","id":1,"method":"GetTask"}')


async def test_a_task_that_waits_is_gone_on_from_though_its_reader_is_slow(
    autojump_clock: object,
) -> None:
    async def ask(exchange: Exchange) -> None:
        if exchange.call.resume is None:
            for size in (50_000, 150_000):
                say(exchange, "x" * size)
                await trio.sleep(0.1)
            asks = json.dumps([{"id": "a1", "reason": "input_required", "message": "?" * 90_000}])
            exchange.end(outcome=Outcome("input_required", asks=asks.encode()))
        else:
            await trio.sleep(100)
            exchange.end()

    reads = trio.Event()
    async with a2a(ask, ttl=50) as it:
        body = {
            "jsonrpc": "2.0",
            "id": 7,
            "method": "SendStreamingMessage",
            "params": {"message": message("Plan")},
        }
        slow = it.begin("/a2a/a", body, headers=VERSION, reads=reads)
        await trio.sleep(5)
        id_ = "task_" + slow.run.removeprefix("run_")
        told = (await rpc(it, "GetTask", {"id": id_, "historyLength": 0})).json["result"]
        params = {
            "message": message("Tuesday", taskId=id_),
            "configuration": {"returnImmediately": True},
        }
        assert told["status"]["state"] == task.INPUT_REQUIRED
        await rpc(it, "SendMessage", params)
        reads.set()
        await slow.answered.wait()
        await trio.sleep(70)  # the time for which the first run would be kept
        now = (await rpc(it, "GetTask", {"id": id_})).json
        assert now["result"]["status"]["state"] == task.WORKING
        await trio.sleep(40)
        then = (await rpc(it, "GetTask", {"id": id_})).json["result"]
        assert then["status"]["state"] == task.COMPLETED


async def test_going_on_is_repeated_by_its_idempotency_key(autojump_clock: object) -> None:
    seen: list[Call] = []

    async def ask(exchange: Exchange) -> None:
        seen.append(exchange.call)
        if exchange.call.resume is None:
            exchange.end(outcome=Outcome("input_required", asks=ASKS))
        else:
            await trio.sleep(1)
            exchange.end()

    async with a2a(ask) as it:
        first = {"message": message("Plan")}
        began = await rpc(it, "SendMessage", first, **keyed("k1"))
        asked = began.json["result"]["task"]
        params = {"message": message("Tuesday", taskId=asked["id"])}
        done = await rpc(it, "SendMessage", params, **keyed("k2"))
        assert done.json["result"]["task"]["status"]["state"] == task.COMPLETED
        again = await rpc(it, "SendMessage", params, **keyed("k2"))
        assert again.json == done.json
        other = await rpc(
            it, "SendMessage", {"message": message("No", taskId=asked["id"])}, **keyed("k2")
        )
        assert other.json["error"]["data"][0]["reason"] == "IDEMPOTENCY_KEY_REUSED"
        late = await rpc(it, "SendMessage", first, **keyed("k1"))
        assert late.json["result"]["task"]["id"] == asked["id"]
    assert len(seen) == 2
