"""What the console tells of agents and their workers: what has changed, and to whom."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import msgspec
import trio

from gateway.errors import WorkerCrashed
from gateway.front.console.agents import Glances, SeenAgents
from gateway.front.console.workers import MOST_WORKERS, SeenWorkers, WorkerGlances
from gateway.workers.events import Reason
from tests.unit.console import HOSTILE
from tests.unit.workers import AgentScene, running


def plain(pieces: Iterable[Any]) -> list[Any]:
    """As JSON."""
    return [json.loads(msgspec.json.encode(piece)) for piece in pieces]


async def seen_news(seen: SeenAgents, glances: Glances, it: AgentScene) -> dict[str, Any] | None:
    pieces = plain(seen.news(await glances.look([it.agent])))
    assert len(pieces) <= 1
    return pieces[0] if pieces else None


async def test_only_what_has_changed_is_told_again() -> None:
    async with running(AgentScene(workers={"max": 2}, concurrency=1, description=HOSTILE)) as it:
        glances, seen = Glances(), SeenAgents(lambda _: True, keys=False)
        news = await seen_news(seen, glances, it)
        assert news is not None
        [agent] = news["agents"]
        assert agent["state"] == "ready"
        assert agent["description"].isprintable()
        assert agent["cells"] == "r"
        assert await seen_news(seen, glances, it) is None
        first, second = it.ask("hold"), it.ask("hold")
        await trio.testing.wait_all_tasks_blocked()
        news = await seen_news(seen, glances, it)
        assert news is not None
        [agent] = news["agents"]
        assert agent["cells"] == "bb"
        assert "description" not in agent
        assert (agent["in_flight"], agent["started"]) == (2, 2)
        it.crew[1].ends(Reason.EXITED, error=WorkerCrashed("it exited", setting="sandbox.memory"))
        assert (await glances.look([it.agent]))["a"].cells in {"fb", "b"}
        await trio.testing.wait_all_tasks_blocked()
        news = await seen_news(seen, glances, it)
        assert news is not None
        [agent] = news["agents"]
        assert agent["cells"] == "b"
        assert agent["failure"]["setting"] == "sandbox.memory"
        assert "revision" not in agent
        it.agent.leave(first)
        it.agent.leave(second)


async def test_a_reader_is_told_of_the_agents_that_its_key_may_call() -> None:
    async with running(AgentScene()) as it:
        glances = Glances()
        views = await glances.look([it.agent])
        assert list(SeenAgents(lambda name: name != "a", keys=True).news(views)) == []
        seen = SeenAgents(lambda _: True, keys=True)
        assert list(seen.news(views)) != []
        gone = seen.news(await glances.look([]))
        assert list(gone) == [{"agents": [], "removed": ["a"]}]


async def test_the_message_of_a_limit_is_not_told_where_it_may_be_anothers() -> None:
    async with running(AgentScene()) as it:
        exchange = it.ask("hold")
        it.crew[1].ends(
            Reason.EXITED,
            error=WorkerCrashed("quoting", limit="memory", setting="sandbox.memory"),
        )
        await trio.testing.wait_all_tasks_blocked()
        views = await Glances().look([it.agent])
        for keys, message in ((True, ""), (False, "quoting")):
            [news] = SeenAgents(lambda _: True, keys=keys).news(views)
            limit = news["agents"][0]["limit"]
            assert (limit.message, limit.setting) == (message, "sandbox.memory")
        it.agent.leave(exchange)


# Workers


async def test_workers_are_told_one_by_one_and_only_those_that_have_changed() -> None:
    async with running(AgentScene(workers={"max": 2}, concurrency=1)) as it:
        glances, seen = WorkerGlances(), SeenWorkers()

        async def news(**memory: int) -> dict[str, Any]:
            measured = {("a", int(key[1:])): used for key, used in memory.items()}
            views = await glances.look({"a": it.agent}, measured)
            told: dict[str, Any] = {}
            for piece in plain(seen.news(views["a"])):
                told |= piece
            return told

        def members(worker: list[Any]) -> tuple[Any, ...]:
            _, state, _, served, in_flight, capacity, memory = worker
            return state, served, in_flight, capacity, memory

        told = await news()
        assert members(told["1"]) == ("ready", 0, 0, 1, None)
        assert await news() == {}
        held = it.ask("hold")
        assert members((await news())["1"]) == ("busy", 0, 1, 1, None)
        assert members((await news(w1=77))["1"]) == ("busy", 0, 1, 1, 77)
        it.crew[1].ends(Reason.EXITED, error=WorkerCrashed("it exited"))
        await trio.testing.wait_all_tasks_blocked()
        assert (await news(w1=77))["1"] is None
        assert await glances.look({"b": None}, {}) == {"b": {}}
        it.agent.leave(held)


async def test_thousands_of_workers_are_told_in_pieces_and_at_rest_not_again() -> None:
    count = 2 * MOST_WORKERS + 1
    async with running(AgentScene(workers={"min": count, "max": count})) as it:
        await trio.testing.wait_all_tasks_blocked()
        glances, seen = WorkerGlances(), SeenWorkers()
        views = await glances.look({"a": it.agent}, {})
        assert [len(piece) for piece in seen.news(views["a"])] == [MOST_WORKERS, MOST_WORKERS, 1]
        held = it.ask("hold")
        views = await glances.look({"a": it.agent}, {})
        assert [len(piece) for piece in seen.news(views["a"])] == [1]
        it.agent.leave(held)
