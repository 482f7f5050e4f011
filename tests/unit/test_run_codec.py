"""A dialect whose requests speak of runs in their bodies, and one that resumes streams by a GET."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from gateway.call import Call
from gateway.errors import Cancelled, GatewayError, InvalidRequest
from gateway.exchange import Exchange
from gateway.front.dialect import (
    Headers,
    RequestHead,
    Response,
    Route,
    RunRequest,
    error_headers,
)
from gateway.front.event_stream import HEADERS
from gateway.front.run_codec import Listed, RunReader, Told
from gateway.front.runs.run import WINDOW
from protocol import Payload
from tests.unit.asgi import DIALECTS
from tests.unit.runs import Client, RunScene, say, scene


class JobDialect:
    """Every call is a job, which is shown with the name of the request that asks for it."""

    def __init__(self) -> None:
        self.chats: dict[str, str] = {}

    def match(self, path: str) -> Any:
        if path.startswith("/jobs/"):
            return JobCodec(path.removeprefix("/jobs/"), self.chats)
        return ResumeCodec(path[6:], self.chats) if path.startswith("/chat/") else None

    def match_run(self, path: str) -> None:
        del path

    def covers(self, path: str) -> bool:
        return path.startswith(("/jobs/", "/chat/"))

    def encode_error(self, error: GatewayError, request_id: str) -> Response:
        del request_id
        return Response(error.status, [], json.dumps({"error": {"type": error.type}}).encode())


class JobCodec:
    route = Route("jobs", "/jobs/{agent}", "invoke", has_runs=True)

    def __init__(self, agent: str, chats: dict[str, str]) -> None:
        self.agent = agent
        self.reads: Any = "show"
        self.name = ""
        self.token = ""
        self.said: list[str] = []
        self._chats = chats

    def decode(self, head: RequestHead, body: bytes) -> Call | Response | RunRequest:
        asked = json.loads(body)
        self.name = asked.get("name", "")
        self.reads = asked.get("reads", "show")
        if "does" in asked:
            return RunRequest(asked["does"], asked.get("token", ""))
        return self._call(head.request_id)

    def _call(self, request_id: str) -> Call:
        return Call(
            agent=self.agent,
            method="invoke",
            payload=b"1",
            stream=True,
            continues=True,
            request_id=request_id,
        )

    def kept_as(self, token: str) -> None:
        self.token = self._chats["latest"] = token

    @property
    def told_events(self) -> int:
        return len(self.said)

    def tell(self, state: str, error: GatewayError | None = None) -> Response:
        del error
        told = {"token": self.token, "state": state, "said": self.said}
        return Response(200, [], json.dumps(told).encode())

    def show(self, told: Told) -> Response:
        shown = {"name": self.name, **json.loads(told.body), "ended": told.ended}
        return Response(200, [(b"content-type", b"application/json")], json.dumps(shown).encode())

    def outline(self, state: str) -> bytes:
        return self.tell(state).body

    def show_all(self, runs: Sequence[Listed]) -> Response:
        for each in runs:
            assert json.loads(each.outline) == json.loads(each.tell().body)
        said = [json.loads(each.tell().body)["said"] for each in runs]
        return Response(200, [], json.dumps(said).encode())

    def open(self, told: Told) -> bytes:
        if told.ended and self.name != "stays":
            raise InvalidRequest("it has ended")
        return b"data: %b so far %b\n\n" % (self.name.encode(), told.body)

    def frame(self, events: bytes) -> bytes:
        return events.replace(b"NAME", self.name.encode())

    def go_on(self, told: Told) -> Call:
        self.said = json.loads(told.body)["said"]
        return self._call("r-2")

    def stays(self, told: Told) -> bool:
        return self.name == "stays" and json.loads(told.body)["state"] == "completed"

    def withdraw(self, told: Told) -> tuple[bytes, bytes]:
        state = json.loads(told.body)
        if state["state"] == "withdrawn":
            raise InvalidRequest("it was withdrawn before")
        return json.dumps({**state, "state": "withdrawn"}).encode(), b"data: NAME withdrawn"

    def encode(self, exchange: Exchange, words: list[bytes]) -> Response:
        raise NotImplementedError

    def encode_error(
        self, error: GatewayError, request_id: str, output_begun: bool | None = None
    ) -> Response:
        del request_id, output_begun
        body = json.dumps({"error": {"type": error.type}}).encode()
        return Response(error.status, error_headers(error), body)

    def stream(self, exchange: Exchange) -> JobStream:
        del exchange
        return JobStream(self.said)


class JobStream:
    headers: Headers = HEADERS
    failure = None

    def __init__(self, said: list[str]) -> None:
        self._said = said

    def chunks(self, words: list[bytes]) -> bytes:
        self._said += map(json.loads, words)
        return b"".join(b"data: NAME %b\n\n" % word for word in words)

    def keep_alive(self) -> bytes:
        return b": still there\n\n"

    def end(self, result: Payload | None) -> bytes:
        del result
        return self._last("done")

    def error(self, error: GatewayError) -> bytes:
        return self._last(error.type)

    def _last(self, word: str) -> bytes:
        self._said.append(word)
        return b"data: NAME %b\n\n" % word.encode()


class ResumeCodec:
    """`GET /chat/{chat}`: what the latest job of a name says, as it is kept."""

    agent = None
    route = Route("jobs", "/chat/{chat}", "chat", method="GET")

    def __init__(self, chat: str, chats: dict[str, str]) -> None:
        self._token = chats.get(chat, "")

    def decode(self, head: RequestHead, body: bytes) -> Response | RunRequest:
        del head, body
        return RunRequest("follow", self._token) if self._token else Response(204, [], b"")

    encode_error = JobCodec.encode_error


async def ask(it: RunScene, agent: str = "a", *, headers: Any = None, **body: Any) -> Client:
    return await it.ask(f"/jobs/{agent}", body, headers=headers)


def jobs(story: Any, **more: Any) -> Any:
    return scene(story, dialects=(JobDialect(), *DIALECTS), **more)


async def talk(exchange: Exchange) -> None:
    for text in ("one", "two"):
        say(exchange, text)
        await trio.sleep(1)
    exchange.end()


def test_the_codec_of_such_a_dialect_is_known_as_one() -> None:
    assert isinstance(JobCodec("a", {}), RunReader)
    assert not isinstance(ResumeCodec("a", {}), RunReader)


async def test_a_call_is_shown_at_once_and_afterwards_by_whoever_asks(
    autojump_clock: object,
) -> None:
    async with jobs(talk) as it:
        began = await ask(it, name="first")
        shown = began.json
        assert (shown["name"], shown["state"], shown["said"]) == ("first", "running", [])
        await trio.sleep(0.5)
        then = (await ask(it, does="show", token=shown["token"], name="second")).json
        assert (then["name"], then["state"], then["said"]) == ("second", "running", ["one"])
        await trio.sleep(5)
        last = (await ask(it, does="show", token=shown["token"])).json
        assert (last["state"], last["said"]) == ("completed", ["one", "two", "done"])
        assert last["ended"] is True


async def test_a_call_can_wait_for_its_end_though_nobody_reads_the_stream(
    autojump_clock: object,
) -> None:
    texts = ["x" * 60_000] * (4 * WINDOW // 60_000)

    async def say_much(exchange: Exchange) -> None:
        for text in texts:
            say(exchange, text)
            await exchange.wait_for_room()
            await trio.sleep(0.1)
        exchange.end()

    async with jobs(say_much) as it:
        shown = (await ask(it, reads="end", name="n")).json
        assert (shown["state"], shown["said"]) == ("completed", [*texts, "done"])


async def test_a_stream_is_opened_and_framed_for_its_reader(autojump_clock: object) -> None:
    async with jobs(talk) as it:
        first = it.begin("/jobs/a", {"reads": "follow", "name": "first"})
        await trio.sleep(0.5)
        token = first.headers[b"x-run-id"].decode().removeprefix("run_")
        second = await ask(it, does="follow", token=token, name="second")
        await first.answered.wait()
        assert first.headers[b"content-type"] == second.headers[b"content-type"]
        assert [line for line in first.body.split(b"\n") if line.startswith(b"data: first ")] == [
            b'data: first so far {"token": "%b", "state": "running", "said": []}' % token.encode(),
            b'data: first "one"',
            b'data: first "two"',
            b"data: first done",
        ]
        assert second.body.split(b"\n\n")[:-1] == [
            b'data: second so far {"token": "%b", "state": "running", "said": ["one"]}'
            % token.encode(),
            b'id: 1\ndata: second "two"',
            b"id: 2\ndata: second done",
        ]


async def test_what_is_told_already_is_not_told_again_though_it_is_not_in_the_stream_yet(
    autojump_clock: object,
) -> None:
    large = "x" * (WINDOW // 2)
    stuck = trio.Event()

    async def burst(exchange: Exchange) -> None:
        say(exchange, *[large] * 6)
        await stuck.wait()
        exchange.end()

    async with jobs(burst) as it:
        slow = it.begin("/jobs/a", {"reads": "follow"}, reads=stuck)
        await wait_all_tasks_blocked()
        token = slow.headers[b"x-run-id"].decode().removeprefix("run_")
        late = it.begin("/jobs/a", {"does": "follow", "token": token, "name": "late"})
        await wait_all_tasks_blocked()
        stuck.set()
        await late.answered.wait()
        opening, *more = late.body.split(b"\n\n")[:-1]
        assert opening.count(large.encode()) == 6
        assert [each.partition(b"data: ")[2] for each in more] == [b"late done"]


async def test_no_stream_is_begun_where_the_codec_refuses(autojump_clock: object) -> None:
    async with jobs(talk) as it:
        token = (await ask(it, reads="end")).json["token"]
        refused = await ask(it, does="follow", token=token)
        assert (refused.status, refused.error) == (400, "invalid_request")


async def test_cancelling_ends_what_goes_on_and_withdraws_what_has_ended(
    autojump_clock: object,
) -> None:
    def leave(exchange: Exchange) -> None:
        exchange.fail(Cancelled())

    async with jobs(talk) as it:
        it.runs._dispatcher.leave = leave  # type: ignore[method-assign,assignment]
        token = (await ask(it)).json["token"]
        shown = (await ask(it, does="cancel", token=token)).json
        assert (shown["state"], shown["ended"]) == ("cancelled", False)
        await wait_all_tasks_blocked()
        assert (await ask(it, does="show", token=token)).json["said"] == ["one", "cancelled"]
        assert (await ask(it, does="cancel", token=token)).json["state"] == "withdrawn"
        assert (await ask(it, does="show", token=token)).json["state"] == "withdrawn"
        assert (await ask(it, does="cancel", token=token)).status == 400


async def test_one_that_goes_on_takes_the_place_of_the_one_before_it(
    autojump_clock: object,
) -> None:
    async with jobs(talk, max=1) as it:
        before = (await ask(it, reads="end")).json
        after = (await ask(it, does="go_on", token=before["token"], reads="end")).json
        assert after["token"] == before["token"]
        assert after["said"] == ["one", "two", "done"] * 2
        assert it.runs.reading.kept == 1


async def test_a_stream_goes_on_with_the_run_that_takes_the_place_of_its_own(
    autojump_clock: object,
) -> None:
    async with jobs(talk) as it:
        token = (await ask(it, reads="end")).json["token"]
        follower = it.begin("/jobs/a", {"does": "follow", "token": token, "name": "stays"})
        await trio.sleep(40)
        assert follower.body.count(b": keep-alive") == 2
        await ask(it, does="go_on", token=token, reads="end")
        assert not follower.answered.is_set()
        await ask(it, does="cancel", token=token)
        await follower.answered.wait()
        said = [line for line in follower.body.split(b"\n") if line.startswith(b"data: ")]
        assert said[1:] == [
            b'data: stays "one"',
            b'data: stays "two"',
            b"data: stays done",
            b"data: stays withdrawn",
        ]


async def test_a_stream_that_waits_ends_when_its_run_is_forgotten(autojump_clock: object) -> None:
    async with jobs(talk, ttl=100) as it:
        token = (await ask(it, reads="end")).json["token"]
        follower = await ask(it, does="follow", token=token, name="stays")
        assert b"event: error" in follower.body
        assert it.runs.reading.size == 0


async def test_all_that_a_caller_has_begun_are_listed_for_nobody_else(
    autojump_clock: object,
) -> None:
    mine, other = {"authorization": "Bearer mine"}, {"authorization": "Bearer other"}
    async with jobs(talk) as it:
        await ask(it, reads="end", headers=mine)
        await ask(it, headers=mine)
        await ask(it, "b", headers=mine)
        await it.post(prefer="respond-async", authorization="Bearer mine")
        listed = json.loads((await ask(it, does="list", headers=mine)).body)
        assert listed == [["one"], ["one", "two", "done"]]
        assert json.loads((await ask(it, does="list", headers=other)).body) == []


@pytest.mark.parametrize("does", ["show", "cancel", "follow", "go_on"])
async def test_what_is_not_ones_own_is_not_there(does: str, autojump_clock: object) -> None:
    async with jobs(talk) as it:
        token = (await ask(it)).json["token"]
        native = (await it.post(prefer="respond-async")).json["id"].removeprefix("run_")
        for of, agent, headers in [
            (token, "b", None),
            (token, "a", {"authorization": "Bearer other"}),
            (native, "a", None),
            ("0" * 56, "a", None),
            ("", "a", None),
        ]:
            client = await ask(it, agent, does=does, token=of, headers=headers)
            gone = of == "0" * 56
            assert (client.status, client.error) == (
                (410, "run_gone") if gone else (404, "not_found")
            )


async def test_a_stream_is_resumed_by_a_get_as_it_is_kept(autojump_clock: object) -> None:
    async with jobs(talk) as it:
        nothing = await it.ask("/chat/latest", method="GET")
        assert (nothing.status, nothing.body) == (204, b"")
        await ask(it)
        resumed = await it.ask("/chat/latest", method="GET")
        assert resumed.body == (
            b'id: 0\ndata: NAME "one"\n\nid: 1\ndata: NAME "two"\n\nid: 2\ndata: NAME done\n\n'
        )
        posted = await it.ask("/chat/latest", {})
        assert (posted.status, posted.headers[b"allow"]) == (405, b"GET")
