"""Conversations over two fronts and three hosts that come and go, as processes."""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from pathlib import Path

import httpx
import pytest
import trio

from tests.fleet.fleets import Fleet, a_fleet
from tests.fleet.nats import needs_nats

pytestmark = needs_nats

AGENTS = Path(__file__).parent / "agents"
CONVERSATIONS = int(os.environ.get("GATEWAY_TESTS_CONVERSATIONS", "600"))
CLIENTS = 12
SECONDS = 0.002
"""That a turn takes."""

LONGEST = 110 + CONVERSATIONS // 10
"""Seconds for the whole test, on a loaded machine: each conversation has some turns."""


class Talk:
    """What is known of one conversation: nothing of it may be told wrongly."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.turn = 0
        self.failed = False
        """Whether a turn may have been taken of which nothing was heard."""

    def check(self, session: str, turn: int) -> None:
        if session == "kept":
            assert self.turn or self.failed
            assert turn == self.turn + 1 or self.failed
        else:
            assert turn == 1
            # One whose first turn was lost with its host may be new or lost.
            assert session == ("lost" if self.turn else "new") or self.failed
        self.turn, self.failed = turn, False


class Talks:
    """Clients, each with conversations of its own, that ask either front."""

    def __init__(self, fleet: Fleet, *, may_fail: bool = False) -> None:
        self.fleet = fleet
        self.told: Counter[str] = Counter()
        self.may_fail = may_fail
        self.stop = trio.Event()
        self.all_asked = trio.Event()
        """As many turns were taken as there are conversations: most have begun."""
        self.talks = [Talk(f"c{number}") for number in range(CONVERSATIONS)]

    async def client(self, number: int) -> None:
        rng = random.Random(number)
        talks = self.talks[number::CLIENTS]
        fronts = [front.gateway.client for front in self.fleet.fronts.values()]
        while not self.stop.is_set():
            talk = rng.choice(talks)
            if rng.random() < 0.1:  # two turns at once, by both fronts
                async with trio.open_nursery() as both:
                    for front in fronts:
                        both.start_soon(self.ask, talk, front)
                talk.failed = True  # whichever was first
            else:
                await self.take(talk, rng.choice(fronts))
        for talk in talks:  # every conversation once more
            await self.take(talk, rng.choice(fronts))

    async def take(self, talk: Talk, front: httpx.AsyncClient) -> None:
        answer = await self.ask(talk, front)
        if answer.status_code == 200:
            talk.check(answer.headers["x-agent-session"], answer.json()["output"]["turn"])

    async def ask(self, talk: Talk, front: httpx.AsyncClient) -> httpx.Response:
        body = {"input": SECONDS, "context": {"conversation_id": talk.name}}
        answer = await front.post("/agent/remember/invoke", json=body)
        assert answer.status_code == 200 or self.may_fail, answer.text
        talk.failed |= answer.status_code != 200
        self.told[answer.headers.get("x-agent-session", str(answer.status_code))] += 1
        if self.told.total() >= CONVERSATIONS:
            self.all_asked.set()
        return answer


def at_once(journal: Path) -> list[str]:
    """Conversations that two processes were at work on at the same time, by their turns that
    ended."""
    lines = [line.split() for line in journal.read_text().splitlines()]
    ended = Counter((name, pid) for name, pid, what in lines if what == "ends")
    begun: dict[str, Counter[str]] = {}
    found = []
    for name, pid, what in lines:
        its = begun.setdefault(name, Counter())
        if what == "begins":
            if ended[name, pid]:  # else it was killed meanwhile
                its[pid] += 1
        else:
            its[pid] -= 1
            ended[name, pid] -= 1
        if len(+its) > 1:
            found.append(name)
    return found


@pytest.mark.timeout(LONGEST + 30)
async def test_a_conversation_has_one_host_while_hosts_come_and_go(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    agents = {"remember": [sys.executable, str(AGENTS / "remember.py"), str(journal)]}
    with trio.fail_after(LONGEST):
        async with a_fleet(
            tmp_path,
            agents,
            hosts=("one", "two", "three"),
            fronts=("a", "b"),
            of_agents='session = "sticky"\nconcurrency = 100\nworkers.max = 2',
        ) as fleet:
            talks = Talks(fleet)
            async with trio.open_nursery() as clients:
                for number in range(CLIENTS):
                    clients.start_soon(talks.client, number)
                await talks.all_asked.wait()  # else there is little to be lost
                for host in fleet.hosts.values():
                    await host.end()
                    await host.start()
                    await fleet.knows("remember", tuple(fleet.hosts))
                talks.may_fail = True
                await fleet.hosts["two"].kill()
                await fleet.knows("remember", ("one", "three"))
                talks.stop.set()
    assert talks.told["new"] <= CONVERSATIONS
    assert not at_once(journal)
    assert min(talks.told["kept"], talks.told["lost"]) > 100, talks.told
