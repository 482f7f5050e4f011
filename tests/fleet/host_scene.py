"""Requests of fronts; and a front's end at a host, with fake workers and a wire that keeps what is
said."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked

from gateway import clock
from gateway.agents.dispatcher import Dispatcher
from gateway.fleet.host.exchange import ForwardedExchange
from gateway.fleet.host.front import Front
from gateway.fleet.host.judge import Judge
from gateway.fleet.messages import (
    Down,
    Lines,
    Submit,
)
from gateway.fleet.ownership import Claims
from gateway.fleet.subjects import Peer, Subjects
from tests.fleet.fakes import FakeNats
from tests.unit.workers import AgentScene, Crew, FakeWorker


def submit(request_id: int, wish: str = "answer", **options: Any) -> Submit:
    """A request for the agent "a"."""
    said: dict[str, Any] = {
        "agent": "a",
        "method": "invoke",
        "payload": json.dumps(wish).encode(),
        "stream": False,
        "context": b"{}",
        "conversation": None,
        "user": None,
        "owner": "",
        "request_id": f"r-{request_id}",
        "total": None,
        "events": False,
        "tools": None,
        "resume": None,
        "trace": None,
        "needs": [],
        "continues": False,
        **options,
    }
    return Submit(request_id, **said)


class KeptWire:
    """A wire that keeps what is said."""

    def __init__(self) -> None:
        self.peer = Peer("front", "0")
        self.heard_at = clock.now()
        self.open = True
        self.said: list[Down] = []
        self.given_up: list[str] = []
        self.turns = 0
        """How often something was said."""
        self.has_room = trio.Event()
        self.has_room.set()

    def send(self, *messages: Down) -> int:
        self.said += messages
        self.turns += 1
        return 0

    def send_now(self, *messages: Down) -> None:
        self.send(*messages)

    def end(self, detail: str) -> None:
        self.given_up.append(detail)

    async def room(self) -> None:
        await self.has_room.wait()

    async def settled(self) -> None:
        pass


class Scene:
    """A front's end at a host with one agent, "a"."""

    def __init__(self, agent: AgentScene) -> None:
        self.agents = agent
        self.dispatcher = Dispatcher({"a": agent.agent})
        self.dispatcher.new_exchange = ForwardedExchange
        self.wire = KeptWire()
        self.judge = Judge(lambda: [each.exchange for each in self.front.requests.values()])
        wire: Any = self.wire
        self.nats = FakeNats()
        self.bus = self.nats.bus("host")
        self.claims = Claims(
            Peer("host", "0"),
            Subjects(),
            self.bus,
            displaced=lambda _, session: agent.agent.displace(session),
            moved=lambda *its: self.front.moved(*its),  # noqa: PLW0108 - it is made below
        )
        self.claims.serve(["a"])
        self.front = Front(
            wire,
            self.dispatcher,
            self.claims,
            answer=self._answer,
            revision=lambda _: 1,
            see=self.judge.see,
        )

    async def _answer(self, what: str, agent: str) -> bytes | None:
        return f"{what} of {agent}".encode()

    def submit(self, request_id: int, wish: str = "answer", **options: Any) -> None:
        self.front.receive([submit(request_id, wish, **options)])

    async def said(self) -> list[Down]:
        """What was said since the last time, once the loop has come round."""
        await self.nats.settled()
        await wait_all_tasks_blocked()
        said, self.wire.said = self.wire.said, []
        return said

    def exchange(self, request_id: int) -> ForwardedExchange:
        return self.front.requests[request_id].exchange

    @property
    def worker(self) -> FakeWorker:
        return self.agents.crew[1]


@asynccontextmanager
async def a_front(crew: Crew | None = None, **options: Any) -> AsyncIterator[Scene]:
    scene = Scene(AgentScene(crew, **options))
    async with trio.open_nursery() as nursery:
        await nursery.start(scene.dispatcher.run)
        await nursery.start(scene.front.run)
        nursery.start_soon(scene.judge.run)
        await wait_all_tasks_blocked()
        yield scene
        await scene.dispatcher.stop(1)
        nursery.cancel_scope.cancel()


def lines_of(said: Sequence[Down]) -> list[Any]:
    """The lines of workers among what a host has said."""
    return [
        json.loads(line)
        for each in said
        if isinstance(each, Lines)
        for line in each.data.splitlines()
    ]


def words(count: int, size: int = 8) -> list[bytes]:
    return [b'"%b"' % (b"x" * (size - 2)) for _ in range(count)]
