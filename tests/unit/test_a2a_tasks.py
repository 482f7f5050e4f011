"""Tasks of A2A that are kept: read, followed, cancelled and listed by whoever began them."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import msgspec
import trio

from gateway.config.limits import LimitSettings
from gateway.errors import Cancelled
from gateway.exchange import Exchange
from gateway.front.a2a import task
from gateway.front.a2a.dialect import A2ACodec
from gateway.front.a2a.listing import MOST_PAGE_BYTES, ListParams, list_tasks
from gateway.front.a2a.task import Record
from gateway.front.a2a.telling import Work
from gateway.front.limits.permits import Limits
from gateway.front.run_codec import RunReader, Told
from protocol import Outcome
from tests.unit.a2a import (
    ASKS,
    MINE,
    VERSION,
    a2a,
    begin,
    body_of,
    hold,
    message,
    results,
    rpc,
    send,
    states,
    talk,
    text_of,
)
from tests.unit.runs import say


def test_the_codec_reads_runs() -> None:
    assert isinstance(A2ACodec("a", None), RunReader)


async def test_a_task_is_followed_after_a_cut(autojump_clock: object) -> None:
    async with a2a(talk) as it:
        body = body_of("SendStreamingMessage", {"message": message("hi")})
        first = it.begin("/a2a/a", body, headers=VERSION)
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
        began = await begin(it, "hi")
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
        body = body_of("SubscribeToTask", {"id": asked["id"]})
        follower = it.begin("/a2a/a", body, headers=VERSION)
        await trio.sleep(1)
        told = (await rpc(it, "CancelTask", {"id": asked["id"]})).json["result"]
        assert told["status"]["state"] == task.CANCELED
        await follower.answered.wait()
        assert states(results(follower)) == ["INPUT_REQUIRED", "CANCELED"]
        more = {"message": message("Tuesday", taskId=asked["id"])}
        assert (await rpc(it, "SendMessage", more)).json["error"]["code"] == -32004


async def test_who_follows_a_task_that_waits_is_told_that_the_gateway_ends(
    autojump_clock: object,
) -> None:
    async def ask(exchange: Exchange) -> None:
        exchange.end(outcome=Outcome("input_required", asks=ASKS))

    async with a2a(ask) as it:
        asked = await send(it, "Plan")
        follow = partial(it.begin, "/a2a/a", body_of("SubscribeToTask", {"id": asked["id"]}))
        followers = [follow(headers=VERSION)]
        await trio.sleep(1)
        it.runs.until_stop.stop()
        followers.append(follow(headers=VERSION))
        with trio.fail_after(5):
            for follower in followers:
                await follower.answered.wait()
                lines = [line for line in follower.body.split(b"\n") if line[:5] == b"data:"]
                task_as_it_is, last = (json.loads(line[5:]) for line in lines)
                assert states([task_as_it_is["result"]]) == ["INPUT_REQUIRED"]
                assert "shutting down" in last["error"]["message"]


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
        await begin(it, "hi")
        [run] = it.runs._registry
        codec: Any = run._codec
        assert (codec._sent, codec._head, codec._done) == (None, None, None)


# Lists


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
