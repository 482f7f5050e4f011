"""What is made of many agents' schemas at once: others have their turn meanwhile."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio.testing

from gateway.agents.dispatcher import Dispatcher
from gateway.config import RunSettings, ServerSettings
from gateway.front.app import make_app
from gateway.front.docs import routes
from gateway.front.mcp.routes.calls import Calls
from gateway.front.runs.service import Runs
from protocol import Ready
from tests.unit.asgi import FakeClient, get

SECONDS = 10
"""For a thread to be let go on: only where the event loop is held is it as long."""


async def test_the_event_loop_goes_on_while_the_api_is_described(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    others_were_served = threading.Event()

    def make_document(*_: Any, **__: Any) -> dict[str, bool]:
        return {"served": others_were_served.wait(SECONDS)}

    monkeypatch.setattr(routes, "make_document", make_document)
    dispatcher = Dispatcher({})
    app = make_app(dispatcher, Runs(dispatcher, RunSettings()), ServerSettings())
    described: list[FakeClient] = []

    async def describe() -> None:
        described.append(await get(app, "/openapi.json"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(describe)
        await trio.testing.wait_all_tasks_blocked()
        assert (await get(app, "/live")).status == 200
        assert not described
        others_were_served.set()
    assert described[0].body == b'{"served":true}'


async def test_others_have_their_turn_between_the_tools_of_two_agents(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.front.slices.SLICE", 0)
    ready = Ready(protocol=1, handlers=("invoke", "chat"))
    agents = {
        f"a{number}": SimpleNamespace(
            declared=SimpleNamespace(ready=ready), summary=SimpleNamespace(description=None)
        )
        for number in range(20)
    }
    dispatcher = SimpleNamespace(agents=agents, agent=agents.__getitem__)
    calls = Calls(cast("Dispatcher", dispatcher), cast("Any", None), cast("Any", None))
    known: list[int] = []

    async def count() -> None:
        while len(known) < 20:
            known.append(len(calls._tools))
            agents.pop("a19", None)  # one goes meanwhile
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await calls.prepare()
    assert len(calls._tools) == 19
    assert len(set(known)) > 10


@pytest.mark.parametrize("path", ["/openapi.json", "/docs/swagger-ui-bundle.js"])
async def test_what_is_large_is_held_once_for_all_who_read_it(path: str) -> None:
    dispatcher = Dispatcher({})
    app = make_app(dispatcher, Runs(dispatcher, RunSettings()), ServerSettings())
    bodies = []
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            bodies.append((await get(app, path)).parts[0][1])

        for _ in range(10):
            nursery.start_soon(read)
    assert len({id(body) for body in bodies}) == 1


async def test_a_description_is_made_anew_when_an_agent_has_declared_another() -> None:
    agent = SimpleNamespace(
        name="a",
        settings=SimpleNamespace(description=None),
        declared=SimpleNamespace(ready=None),
    )
    dispatcher = cast("Any", SimpleNamespace(agents={"a": agent}, leaving=False))
    app = make_app(dispatcher, Runs(dispatcher, RunSettings()), ServerSettings())
    for schema in (b'{"title":"one"}', b'{"title":"two"}'):
        agent.declared.ready = Ready(protocol=1, handlers=("invoke",), input=schema)
        assert schema in (await get(app, "/openapi.json")).body
