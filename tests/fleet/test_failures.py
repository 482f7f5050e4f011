"""What becomes of requests when hosts, NATS, or the way to them fail, with real processes.

Every request has a nonce, which the agent writes down before anything else: none is run twice.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio

from gateway.fleet.subjects import Subjects
from tests.fleet.buses import running, settings, subscribed
from tests.fleet.fleets import MACHINES, Fleet, Process, a_fleet
from tests.fleet.namespaces import needs_root
from tests.fleet.nats import needs_nats
from tests.http.raw import becomes

pytestmark = needs_nats

AGENTS = Path(__file__).parent / "agents"

SECONDS = 100
"""For one test, on a loaded machine."""

EVERYWHERE = pytest.mark.parametrize(
    "machines", [False, pytest.param(True, marks=needs_root)], ids=["loopback", "machines"]
)
"""As processes of this machine, and each in a network namespace with an address of its own."""


class Work:
    """The requests of one test, and what the agents say of them."""

    def __init__(self, folder: Path, *settings: str) -> None:
        """`settings` are lines of `[fleet]`."""
        self._tally = folder / "tally"
        self.asked = 0
        self.agents = {"work": [sys.executable, str(AGENTS / "work.py"), str(self._tally)]}
        self.settings = "\n".join(settings)

    def nonce(self) -> str:
        self.asked += 1
        return str(self.asked)

    def runs(self) -> Counter[str]:
        """How often each request was run."""
        return Counter(self._tally.read_text().split() if self._tally.exists() else [])

    async def begun(self, count: int) -> None:
        """Wait until so many requests are with workers."""
        with trio.fail_after(SECONDS):
            while self.runs().total() < count:  # noqa: ASYNC110 - another process writes it
                await trio.sleep(0.02)

    def release(self) -> None:
        """Let the requests end that are held."""
        self._tally.with_name(f"{self._tally.name}.released").touch()

    async def invoke(
        self, client: httpx.AsyncClient, seconds: float = 0, *, held: bool = False
    ) -> httpx.Response:
        """Ask once; the answer must be its own. Held: it comes after `release`."""
        nonce = self.nonce()
        body = {"input": {"nonce": nonce, "seconds": seconds, "held": held}}
        response = await client.post("/agent/work/invoke", json=body)
        if response.status_code == 200:
            assert response.json() == {"output": nonce}
        return response

    async def stream(self, client: httpx.AsyncClient, words: int, seconds: float) -> str:
        """Ask for a stream, whose last word comes after `release`; its whole text."""
        asked = {"nonce": self.nonce(), "words": words, "seconds": seconds, "held": True}
        content = json.dumps(asked)
        body = {"messages": [{"role": "user", "content": content}], "stream": True}
        response = await client.post("/agent/work/chat", json=body)
        assert response.status_code == 200, response.text
        return response.text


def whole(words: int) -> str:
    """The text of a stream of so many words that was not cut."""
    chunks = "".join(f'data: {{"chunk":"w{number} "}}\n\n' for number in range(words))
    return f"{chunks}data: [DONE]\n\n"


@asynccontextmanager
async def at_work(
    folder: Path, work: Work, *, hosts: int, machines: bool = MACHINES
) -> AsyncIterator[Fleet]:
    """A fleet of two fronts, which know that their hosts have workers that are ready."""
    names = [f"host{number + 1}" for number in range(hosts)]
    with trio.fail_after(SECONDS):
        async with a_fleet(
            folder,
            work.agents,
            hosts=names,
            fronts=("front1", "front2"),
            fleet=work.settings,
            machines=machines,
        ) as fleet:
            for front in fleet.fronts.values():
                await becomes(partial(has_workers, fleet, front))
            yield fleet
    assert not {nonce: runs for nonce, runs in work.runs().items() if runs > 1}


async def has_workers(fleet: Fleet, front: Process) -> bool:
    """Whether a front knows that each host has workers: only then do all get their share."""
    found = await fleet.hosts_of("work", front)
    return {host["state"] for host in found.values()} == {"ready"}


async def given(fleet: Fleet, host: str) -> int:
    """How many requests the fronts have given to a host."""
    found = [await fleet.hosts_of("work", front) for front in fleet.fronts.values()]
    return sum(hosts[host]["given"] for hosts in found)


async def next_is_served(work: Work, fleet: Fleet) -> None:
    """Ask each front once."""
    for front in fleet.fronts.values():
        assert (await work.invoke(front.gateway.client)).status_code == 200


async def ask_all(
    work: Work,
    fleet: Fleet,
    count: int,
    answers: list[httpx.Response],
    *,
    held: bool = False,
) -> None:
    """Ask so many times at once, in turn at each front."""
    clients = [front.gateway.client for front in fleet.fronts.values()]

    async def ask(number: int) -> None:
        answers.append(await work.invoke(clients[number % len(clients)], held=held))

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(ask, number)


async def is_not_ready(process: Process) -> bool:
    return (await process.gateway.client.get("/ready")).status_code == 503


@EVERYWHERE
async def test_requests_at_a_host_that_is_killed_fail_at_once_and_the_next_is_served(
    machines: bool, tmp_path: Path
) -> None:
    """At once: not by the `link` clock, which is too long here to have anything to do with it."""
    work = Work(tmp_path, "link = 50")
    answers: list[httpx.Response] = []
    async with (
        at_work(tmp_path, work, hosts=3, machines=machines) as fleet,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(partial(ask_all, work, fleet, 30, answers, held=True))
        await work.begun(30)
        lost = await given(fleet, "host1")
        await fleet.hosts["host1"].kill()
        for front in fleet.fronts.values():  # when its callers are told, and may ask again
            await front.gateway.logged("a host is gone.*host=host1")
        await next_is_served(work, fleet)
        work.release()
    codes = Counter(answer.status_code for answer in answers)
    assert lost >= 5
    assert codes == {200: 30 - lost, 501: lost}
    for answer in answers:
        if answer.status_code == 501:
            error = answer.json()["error"]
            assert (error["type"], error["host"]) == ("worker_crashed", "host1")
            assert answer.headers["x-should-retry"] == "false"
    assert work.runs().total() == work.asked


@EVERYWHERE
async def test_a_host_that_is_stopped_is_given_up_by_the_link_clock(
    machines: bool, tmp_path: Path
) -> None:
    work = Work(tmp_path)
    answers: list[httpx.Response] = []
    async with at_work(tmp_path, work, hosts=3, machines=machines) as fleet:
        host = fleet.hosts["host1"]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(ask_all, work, fleet, 30, answers, held=True))
            await work.begun(30)
            lost = await given(fleet, "host1")
            host.pause()
            await fleet.knows("work", ["host2", "host3"])
            await next_is_served(work, fleet)
            work.release()
        host.resume()
        await fleet.knows("work", list(fleet.hosts))
        await ask_all(work, fleet, 30, answers)
    failed = [answer for answer in answers if answer.status_code != 200]
    assert len(failed) == lost > 0
    for answer in failed:
        error = answer.json()["error"]
        assert error["host"] == "host1"
        assert answer.headers["x-should-retry"] == "false"
    assert len(answers) == 60


@EVERYWHERE
async def test_nothing_is_lost_when_nats_is_killed_and_comes_back(
    machines: bool, tmp_path: Path
) -> None:
    work = Work(tmp_path)
    answers: list[httpx.Response] = []
    streams: list[str] = []
    async with at_work(tmp_path, work, hosts=3, machines=machines) as fleet:
        clients = [front.gateway.client for front in fleet.fronts.values()]

        async def stream(number: int) -> None:
            streams.append(await work.stream(clients[number % 2], 200, 4.0))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(ask_all, work, fleet, 20, answers, held=True))
            for number in range(10):
                nursery.start_soon(stream, number)
            await work.begun(30)
            fleet.nats.kill()
            await trio.sleep(1)  # what is tested: it is away for a second
            fleet.nats.start()
            await fleet.knows("work", list(fleet.hosts))
            await next_is_served(work, fleet)
            work.release()
    assert [answer.status_code for answer in answers] == [200] * 20
    assert streams == [whole(200)] * 10


async def test_requests_end_once_when_nats_stays_away_and_all_is_well_when_it_is_back(
    tmp_path: Path,
) -> None:
    work = Work(tmp_path, "grace = 1")
    answers: list[httpx.Response] = []
    async with at_work(tmp_path, work, hosts=2) as fleet:
        client = fleet.front.client
        assert (await client.get("/ready")).status_code == 200
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(ask_all, work, fleet, 20, answers, held=True))
            await work.begun(20)
            lost = {host: await given(fleet, host) for host in fleet.hosts}
            fleet.nats.kill()
        assert (await client.get("/ready")).status_code == 503
        for host in fleet.hosts.values():
            await becomes(partial(is_not_ready, host))
            assert (await host.gateway.client.get("/live")).status_code == 200
        refused = await work.invoke(client)
        assert (refused.status_code, refused.json()["error"]["type"]) == (503, "agent_unavailable")
        assert "retry-after" in refused.headers
        fleet.nats.start()
        await fleet.knows("work", list(fleet.hosts))
        await next_is_served(work, fleet)
    assert len(answers) == 20
    for answer in answers:
        assert answer.status_code in {501, 504}
        assert answer.headers["x-should-retry"] == "false"
        error = answer.json()["error"]
        assert f"the host {error['host']!r}" in error["message"]
        assert "no connection to NATS for 1 s" in error["message"]
    assert Counter(answer.json()["error"]["host"] for answer in answers) == lost
    assert min(lost.values()) > 0


@needs_root
async def test_a_host_that_is_cut_off_is_given_up_and_comes_back(tmp_path: Path) -> None:
    work = Work(tmp_path)
    answers: list[httpx.Response] = []
    async with at_work(tmp_path, work, hosts=3, machines=True) as fleet:
        machine = fleet.hosts["host1"].machine
        assert machine is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(ask_all, work, fleet, 30, answers, held=True))
            await work.begun(30)
            lost = await given(fleet, "host1")
            machine.cut()
            await fleet.knows("work", ["host2", "host3"])
            await next_is_served(work, fleet)
            work.release()
        machine.join()
        await fleet.knows("work", list(fleet.hosts))
        await ask_all(work, fleet, 30, answers)
    failed = [answer for answer in answers if answer.status_code != 200]
    assert len(failed) == lost > 0
    assert {answer.json()["error"]["host"] for answer in failed} == {"host1"}
    assert len(answers) == 60


@EVERYWHERE
async def test_a_front_that_is_killed_takes_its_own_requests_with_it_and_no_others(
    machines: bool, tmp_path: Path
) -> None:
    work = Work(tmp_path)
    async with at_work(tmp_path, work, hosts=2, machines=machines) as fleet:
        lost, kept = fleet.fronts["front1"], fleet.fronts["front2"].gateway
        answers: list[httpx.Response] = []

        async def ask_in_vain() -> None:
            with pytest.raises(httpx.TransportError):
                await work.invoke(lost.gateway.client, SECONDS)

        async def ask() -> None:
            answers.append(await work.invoke(kept.client, held=True))

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(ask_in_vain)
                nursery.start_soon(ask)
            await work.begun(20)
            await lost.kill()
            work.release()
        assert [answer.status_code for answer in answers] == [200] * 10
        # Its hosts notice that nobody waits any more: the requests would last longer.
        with trio.fail_after(20):
            while (await kept.state("work"))["in_flight"]:  # noqa: ASYNC110 - see its name
                await trio.sleep(0.05)


async def test_a_front_that_was_stopped_answers_all_that_it_had_and_blames_no_host(
    tmp_path: Path,
) -> None:
    """It stands still for some fifteen beats of each host, which is four times the `link` clock,
    while the hosts answer what it has asked."""
    work = Work(tmp_path)
    answers: list[httpx.Response] = []
    streams: list[str] = []
    async with (
        at_work(tmp_path, work, hosts=2) as fleet,
        running(settings(fleet.nats.url)) as (bus,),
    ):
        stopped = fleet.fronts["front1"]

        async def the_other_has_answered() -> bool:
            return len(answers) == 10

        async def stream() -> None:
            streams.append(await work.stream(stopped.gateway.client, 50, 0.5))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(ask_all, work, fleet, 20, answers, held=True))
            for _ in range(5):
                nursery.start_soon(stream)
            await work.begun(25)
            stopped.pause()
            try:
                work.release()
                beats = await subscribed(bus, Subjects().beats())
                await beats.wait(15 * len(fleet.hosts))
                await becomes(the_other_has_answered)
            finally:
                stopped.resume()
        await next_is_served(work, fleet)
        for front in fleet.fronts.values():
            assert not [line for line in front.gateway.log if "a host is gone" in line]
    assert [answer.status_code for answer in answers] == [200] * 20
    assert streams == [whole(50)] * 5
