"""A gateway's front with runs, over agents that are played, in virtual time."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked

from gateway.agents.dispatcher import Dispatcher
from gateway.config import Clocks, RunSettings, ServerSettings, Settings
from gateway.exchange import Exchange
from gateway.front.dialect import Dialect
from gateway.front.limits.permits import Limits
from gateway.front.requests import CallRoutes
from gateway.front.runs.service import Runs
from tests.unit.asgi import DIALECTS, HOSTS, FakeClient, FakeDispatcher, Story
from tests.unit.workers import AgentScene

ASYNC = {"prefer": "respond-async"}
EVENTS = {"accept": "text/event-stream"}
STREAM = {"input": 1, "stream": True}
BIG = "x" * 100_000


def keyed(key: str, **more: str) -> dict[str, str]:
    return {"idempotency-key": key, **{name.replace("_", "-"): text for name, text in more.items()}}


class Client(FakeClient):
    """One that leaves when it is told to. `reads`: an event that holds its first read."""

    def __init__(self, body: bytes, *, reads: trio.Event | None = None) -> None:
        self.leaves = trio.Event()
        self.answered = trio.Event()
        self._reads = reads
        super().__init__(body, leaves=self.leaves)

    async def send(self, message: dict[str, Any]) -> None:
        await super().send(message)
        if message["type"] == "http.response.body":
            if self._reads is not None:
                await self._reads.wait()
            if not message["more_body"]:
                self.answered.set()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def run(self) -> str:
        return self.headers[b"x-run-id"].decode()

    @property
    def error(self) -> str:
        return str(self.json["error"]["type"])


class RunScene:
    """Requests to one front. Its routes are asked as Hypercorn asks them."""

    def __init__(self, nursery: trio.Nursery, routes: CallRoutes, runs: Runs) -> None:
        self.nursery = nursery
        self.routes = routes
        self.runs = runs

    def begin(
        self,
        path: str = "/agent/a/invoke",
        body: Any = None,
        *,
        method: str = "POST",
        headers: dict[str, str] | None = None,
        query: str = "",
        reads: trio.Event | None = None,
    ) -> Client:
        """Begin a request, which goes on by itself."""
        client = Client(b"" if body is None else json.dumps(body).encode(), reads=reads)
        scope = self.scope_of(path, headers or {}, method=method, query=query)
        self.nursery.start_soon(self.routes, scope, client.receive, client.send)
        return client

    def scope_of(
        self, path: str, headers: dict[str, str], *, method: str = "POST", query: str = ""
    ) -> dict[str, Any]:
        fields = {"content-type": "application/json", **headers}
        return {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "server": ("127.0.0.1", 8080),
            "headers": [(name.encode(), value.encode()) for name, value in fields.items()],
        }

    async def ask(self, *args: Any, **options: Any) -> Client:
        """Begin a request and wait for the end of its response."""
        client = self.begin(*args, **options)
        await client.answered.wait()
        return client

    async def post(self, stream: bool = False, **headers: str) -> Client:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.ask(body={"input": 1, "stream": stream}, headers=fields)

    async def get(self, run: str, **headers: str) -> Client:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.ask(f"/runs/{run}", method="GET", headers=fields)

    async def cancel(self, run: str, **headers: str) -> Client:
        return await self.ask(f"/runs/{run}/cancel", headers=headers)


@asynccontextmanager
async def front(
    dispatcher: Any,
    settings: RunSettings,
    dialects: tuple[Dialect, ...] = DIALECTS,
    limits: Limits | None = None,
) -> AsyncIterator[RunScene]:
    runs = Runs(dispatcher, settings)
    inner: Any = None
    routes = CallRoutes(inner, dispatcher, dialects, HOSTS, runs, max_body=100_000, limits=limits)
    async with trio.open_nursery() as nursery:
        await nursery.start(runs.run)
        yield RunScene(nursery, routes, runs)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def scene(
    story: Story,
    *,
    clocks: Clocks | None = None,
    dialects: tuple[Dialect, ...] = DIALECTS,
    hands_over: bool = True,
    limits: Limits | None = None,
    **settings: Any,
) -> AsyncIterator[RunScene]:
    """One agent, whose part is played by `story`."""
    async with trio.open_nursery() as nursery:
        dispatcher = FakeDispatcher(nursery, story, clocks or Clocks(), hands_over=hands_over)
        async with front(dispatcher, RunSettings(**settings), dialects, limits) as it:
            yield it
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def supervised_scene(agent: AgentScene, **settings: Any) -> AsyncIterator[RunScene]:
    """One agent that is really supervised, with workers that are no processes."""
    dispatcher = Dispatcher({"a": agent.agent})
    async with trio.open_nursery() as nursery:
        await nursery.start(dispatcher.run)
        await wait_all_tasks_blocked()
        async with front(dispatcher, RunSettings(**settings)) as it:
            server = ServerSettings(runs=RunSettings(**settings))
            it.runs.change(Settings(server=server, agents={"a": agent.agent.settings}))
            yield it
            await dispatcher.stop(0)


def say(exchange: Exchange, *texts: str) -> None:
    exchange.add_words([json.dumps(text).encode() for text in texts], trio.current_time())


def events(*texts: str, first: int = 0, done: bool = True) -> bytes:
    """What a reader of a native run gets."""
    datas = [json.dumps({"chunk": text}, separators=(",", ":")) for text in texts] + [
        "[DONE]"
    ] * done
    return "".join(
        f"id: {number}\ndata: {data}\n\n" for number, data in enumerate(datas, first)
    ).encode()


async def answer(exchange: Exchange) -> None:
    if exchange.call.stream:
        say(exchange, "Hello ", "there")
        exchange.end()
    else:
        exchange.end(b"7")


def after(event: trio.Event, then: Story = answer) -> Story:
    async def wait(exchange: Exchange) -> None:
        await event.wait()
        await then(exchange)

    return wait


def counting(count: list[Exchange], then: Story = answer) -> Story:
    async def act(exchange: Exchange) -> None:
        count.append(exchange)
        await then(exchange)

    return act


def response(stream: bool = False, background: bool = True, **more: Any) -> dict[str, Any]:
    """The body of a request for a Response, which is a run if it is in the background."""
    return {"model": "a", "input": "1", "stream": stream, "background": background, **more}
