"""Runs that outlive their front, on a real nats-server with JetStream, as processes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import httpx
import trio

from tests.fleet.fleets import Fleet, a_fleet
from tests.fleet.nats import needs_nats
from tests.harness import python_agent
from tests.http.raw import becomes

pytestmark = needs_nats

AGENTS = Path(__file__).parent / "agents"
ASYNC = {"prefer": "respond-async"}


def work(tmp_path: Path) -> dict[str, list[str]]:
    return {"work": [sys.executable, str(AGENTS / "work.py"), str(tmp_path / "tally")]}


def tally(tmp_path: Path) -> list[str]:
    return (tmp_path / "tally").read_text().split() if (tmp_path / "tally").exists() else []


async def start(
    client: httpx.AsyncClient, nonce: str, seconds: float = 0.1, **more: Any
) -> httpx.Response:
    body = {"input": {"nonce": nonce, "seconds": seconds}, **more.pop("body", {})}
    headers = {**ASYNC, **more.pop("headers", {})}
    return await client.post("/agent/work/invoke", json=body, headers=headers, **more)


async def ends(client: httpx.AsyncClient, location: str, **more: Any) -> dict[str, Any]:
    """The run, once it has ended."""
    found: dict[str, Any] = {}

    async def ended() -> bool:
        answer = await client.get(location, **more)
        if answer.status_code == 503:  # NATS is away
            return False
        assert answer.status_code == 200, answer.text
        found.update(answer.json())
        return found["state"] not in {"queued", "running"}

    await becomes(ended)
    return found


def clients(fleet: Fleet) -> list[httpx.AsyncClient]:
    return [front.gateway.client for front in fleet.fronts.values()]


async def becomes_running(client: httpx.AsyncClient, accepted: httpx.Response) -> None:
    async def running() -> bool:
        answer = await client.get(accepted.headers["location"])
        return bool(answer.json()["state"] == "running")

    await becomes(running)


async def test_a_run_outlives_its_front_and_any_front_tells_of_it(tmp_path: Path) -> None:
    agents = {**work(tmp_path), "echo": python_agent("echo.py")}
    async with a_fleet(tmp_path, agents, fronts=("a", "b"), jetstream=True) as fleet:
        a, b = clients(fleet)
        await at_all_fronts(a, b)
        await with_one_key(a, b, tmp_path)
        await in_pieces(a, b)
        await as_a_stream(a, b)
        accepted = await start(a, "long", 2)
        await becomes_running(a, accepted)
        await fleet.fronts["a"].kill()
        location = accepted.headers["location"]
        assert (await b.get(location)).json()["state"] == "running"
        run = await ends(b, location)
        assert (run["state"], run["answer"]["body"]) == ("completed", {"output": "long"})
        assert run["request_id"] == accepted.json()["request_id"]
        await fleet.fronts["a"].start()
        run = await ends(fleet.fronts["a"].gateway.client, location)
        assert run["answer"]["body"] == {"output": "long"}
        stranger = await b.get(location, headers={"authorization": "Bearer other"})
        assert stranger.status_code in {404, 410}
        assert tally(tmp_path) == ["first", "once", "s", "long"]


async def at_all_fronts(a: httpx.AsyncClient, b: httpx.AsyncClient) -> None:
    accepted = await start(a, "first", 0.05)
    assert accepted.status_code == 202
    for client in (b, a):
        run = await ends(client, accepted.headers["location"])
        assert run["answer"]["body"] == {"output": "first"}


async def with_one_key(a: httpx.AsyncClient, b: httpx.AsyncClient, tmp_path: Path) -> None:
    answers: list[httpx.Response] = []

    async def ask(client: httpx.AsyncClient) -> None:
        answers.append(await start(client, "once", 0.3, headers={"idempotency-key": "k1"}))

    async with trio.open_nursery() as nursery:
        for client in (a, b, a, b):
            nursery.start_soon(ask, client)
    await ask(b)
    assert [each.status_code for each in answers] == [202] * 5
    assert len({each.headers["location"] for each in answers}) == 1
    await ends(b, answers[0].headers["location"])
    other = await start(b, "another", headers={"idempotency-key": "k1"})
    assert other.status_code == 422
    assert tally(tmp_path) == ["first", "once"]


async def in_pieces(a: httpx.AsyncClient, b: httpx.AsyncClient) -> None:
    text = "".join(f"{number} " for number in range(300_000))
    body = {"input": {"text": text}}
    accepted = await a.post("/agent/echo/invoke", json=body, headers=ASYNC)
    assert accepted.status_code == 202
    run = await ends(b, accepted.headers["location"])
    assert text in json.dumps(run["answer"]["body"])


async def as_a_stream(a: httpx.AsyncClient, b: httpx.AsyncClient) -> None:
    content = json.dumps({"nonce": "s", "seconds": 0.2, "words": 5})
    body = {"messages": [{"role": "user", "content": content}], "stream": True}
    accepted = await a.post("/agent/work/chat", json=body, headers=ASYNC)
    assert accepted.status_code == 202
    seen = []
    for client in (b, a):
        path, accept = accepted.headers["location"], {"accept": "text/event-stream"}
        seen.append((await client.get(path, headers=accept)).text)
    assert seen[0] == seen[1]
    assert "w4 " in seen[0]
    assert seen[0].endswith("data: [DONE]\n\n")


async def test_runs_wait_for_a_place_are_cancelled_and_end_with_their_host(tmp_path: Path) -> None:
    async with a_fleet(
        tmp_path,
        work(tmp_path),
        hosts=("one",),
        fronts=("a", "b"),
        jetstream=True,
        of_agents="concurrency = 1\nworkers.max = 1\nqueue = 0",
    ) as fleet:
        a, b = clients(fleet)
        running = await start(a, "running", 30)
        await becomes_running(b, running)
        waiting = await start(a, "waiting", 0)
        accepted = [await start(a, str(number), 0.02) for number in range(10)]
        for each in (waiting, running):
            cancelled = await b.post(each.headers["location"] + "/cancel")
            assert cancelled.status_code == 200
            for client in (a, b):
                run = await ends(client, each.headers["location"])
                assert run["state"] == "cancelled"
        fleet.nats.kill()
        fleet.nats.start()
        for number, each in enumerate(accepted):
            run = await ends(b, each.headers["location"])
            assert run["answer"]["body"] == {"output": str(number)}
        assert sorted(tally(tmp_path)[1:], key=int) == [str(number) for number in range(10)]
        await lost_with_its_host(fleet, tmp_path)


async def lost_with_its_host(fleet: Fleet, tmp_path: Path) -> None:
    a, b = clients(fleet)
    accepted = await start(a, "lost", 60)

    async def begun() -> bool:
        return tally(tmp_path)[-1] == "lost"

    await becomes(begun)
    await fleet.hosts["one"].kill()
    await fleet.hosts["one"].start()
    for client in (a, b):
        run = await ends(client, accepted.headers["location"])
        assert run["state"] == "failed"
        assert run["error"]["type"] == "worker_crashed"
    assert tally(tmp_path).count("lost") == 1


async def test_without_jetstream_a_run_lives_in_its_front(tmp_path: Path) -> None:
    async with a_fleet(tmp_path, work(tmp_path), hosts=("one",), fronts=("a", "b")) as fleet:
        a, b = clients(fleet)
        accepted = await start(a, "here", 0.05)
        run = await ends(a, accepted.headers["location"])
        assert run["answer"]["body"] == {"output": "here"}
        assert (await b.get(accepted.headers["location"])).status_code == 410
        await fleet.front.logged("JetStream")
        said = [line for line in fleet.front.log if "JetStream" in line]
        assert len(said) == 1


async def test_what_a_run_has_answered_is_forgotten_by_all_fronts_after_its_time_to_live(
    tmp_path: Path,
) -> None:
    async with a_fleet(
        tmp_path,
        work(tmp_path),
        hosts=("one",),
        fronts=("a", "b"),
        jetstream=True,
        more="[server.runs]\nttl = 3",
    ) as fleet:
        a, b = clients(fleet)
        asked = {"headers": {"idempotency-key": "k1"}}
        accepted = await start(a, "once", **asked)
        location = accepted.headers["location"]
        run = await ends(a, location)
        assert run["answer"]["body"] == {"output": "once"}

        async def is_gone() -> bool:
            return (await a.get(location)).status_code == 410

        async def is_gone_elsewhere() -> bool:
            return (await start(b, "once", **asked)).status_code == 410

        await becomes(is_gone)
        # The other front has never known it, and says so without its being run again.
        await becomes(is_gone_elsewhere)
        assert (await b.get(location)).status_code == 410
        assert tally(tmp_path) == ["once"]
