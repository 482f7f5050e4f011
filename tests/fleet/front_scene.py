"""A front on a NATS in memory, and hosts that say what a test has them say."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio
import trio.testing

from gateway.agents.dispatcher import Dispatcher
from gateway.call import Call
from gateway.config import FleetSettings
from gateway.exchange import Exchange
from gateway.fleet.front.front import Front
from gateway.fleet.messages import (
    VERSION,
    AgentBeat,
    AgentDescription,
    Ask,
    Beat,
    Cancel,
    Error,
    Failed,
    Given,
    Left,
    Lines,
    Refused,
    Submit,
    Told,
    Took,
)
from gateway.fleet.pipe import Ended
from gateway.fleet.subjects import Peer, Subjects
from gateway.fleet.wire import BEAT, Wire, Wires
from tests.fleet.fakes import FakeBus, FakeNats

SUBJECTS = Subjects()
CRASHED = Error("worker_crashed", "the worker was ended by SIGKILL", None, {"signal": "SIGKILL"})

READY = (
    b'{"jsonrpc":"2.0","method":"ready","params":'
    b'{"protocol":1,"handlers":["chat","invoke"],"description":"an agent"}}\n'
)


def description(**members: Any) -> bytes:
    """The answer to "describe"."""
    told: dict[str, Any] = {
        "ready": READY,
        "known": True,
        "description": None,
        "session": "none",
        "session_by": "conversation",
        "continues": False,
        "most_workers": 4,
        "queue": 100,
        "total": 3600.0,
        "write": 30.0,
    }
    return msgspec.msgpack.encode(AgentDescription(**(told | members)))


def line(request_id: int, **members: Any) -> bytes:
    """A line of the worker protocol: chunk=, event=, output=, or nothing for an end."""
    message: dict[str, Any] = {"jsonrpc": "2.0"}
    if members.keys() & {"chunk", "event"}:
        ((name, value),) = members.items()
        message |= {"method": name, "params": {"id": request_id, name: value}}
    else:
        message |= {"id": request_id, "result": members}
    return json.dumps(message).encode() + b"\n"


def a_call(agent: str = "echo", **members: Any) -> Call:
    told: dict[str, Any] = {
        "method": "invoke",
        "payload": b'"hello"',
        "stream": False,
        "request_id": "r",
    }
    return Call(agent=agent, **(told | members))


class ScriptedHost:
    """The owner of its wires; `heard` is all that fronts have said but for their questions."""

    def __init__(self, nats: FakeNats, name: str, **agents: AgentBeat) -> None:
        self.peer = Peer.new(name)
        self.bus: FakeBus = nats.bus(name)
        self.agents = agents or {"echo": AgentBeat("ready", 8, 0, 0, 1)}
        self.descriptions: dict[str, bytes] = {}
        self.draining = False
        self.heard: list[Submit | Cancel | Took | Left] = []
        self.ends: list[Ended] = []
        self.status: bytes | None = None
        self.wire: Wire
        self._nats = nats
        self._wires = Wires(self.bus, SUBJECTS, self.peer, role="host", accept=self._accept)

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._wires.run)
            while True:
                self.beat()
                await trio.sleep(BEAT)

    def beat(self) -> None:
        said = msgspec.msgpack.encode(Beat(VERSION, "1.2.3", self.draining, self.agents))
        self.bus.publish(SUBJECTS.beat(self.peer), said)

    def _accept(self, wire: Wire) -> ScriptedHost:
        self.wire = wire
        return self

    # As the owner of its wire

    def receive(self, messages: list[Any]) -> None:
        for message in messages:
            if not isinstance(message, Ask):
                self.heard.append(message)
            elif message.what == "describe":
                body = self.descriptions.get(message.agent, description())
                self.wire.send(Told(message.id, body))
            elif self.status is not None:
                self.wire.send(Told(message.id, self.status))

    def ended(self, ended: Ended) -> None:
        self.ends.append(ended)

    def unheard(self) -> None:
        pass

    # What a test has it say

    @property
    def submitted(self) -> list[Submit]:
        return [each for each in self.heard if isinstance(each, Submit)]

    def give(self, number: int = -1, *, session: str | None = None) -> int:
        """Say that a worker has a request; its id."""
        request_id = self.submitted[number].id
        self.wire.send(Given(request_id, 77, session, 0.0))
        return request_id

    def say(self, *lines: bytes) -> None:
        self.wire.send(Lines(b"".join(lines)))

    def refuse(self, number: int = -1, *, elsewhere: bool = True, owner: str | None = None) -> None:
        error = Error("overloaded", f"{self.peer.name} is full", 7.0)
        self.wire.send(Refused(self.submitted[number].id, error, elsewhere, owner))

    def fail(self, error: Error, number: int = -1, *, handed_over: bool = True) -> None:
        self.wire.send(Failed(self.submitted[number].id, error, handed_over))


class Scene:
    """A front that runs, with the hosts of a test."""

    def __init__(self, nats: FakeNats, nursery: trio.Nursery, settings: FleetSettings) -> None:
        self.nats = nats
        self.bus = nats.bus("front")
        self.dispatcher = Dispatcher()
        self.peer = Peer.new("front")
        self.front = Front(self.bus, SUBJECTS, self.peer, self.dispatcher, settings)
        self.nursery = nursery
        self.hosts: list[ScriptedHost] = []
        self._scopes: dict[ScriptedHost, trio.CancelScope] = {}

    def host(self, name: str, **agents: AgentBeat) -> ScriptedHost:
        """One more, which beats."""
        host = ScriptedHost(self.nats, name, **agents)
        scope = self._scopes[host] = trio.CancelScope()
        self.nursery.start_soon(self._run, host, scope)
        return host

    async def _run(self, host: ScriptedHost, scope: trio.CancelScope) -> None:
        with scope:
            await host.run()

    def kill(self, host: ScriptedHost) -> None:
        """As kill -9: its connection ends, and it never comes back."""
        self._scopes[host].cancel()
        self.nats.cut(host.bus)

    def stop(self, host: ScriptedHost) -> None:
        """As SIGSTOP."""
        self.nats.hold(host.bus)

    async def settle(self, beats: float = 0) -> None:
        """Let everybody say what there is to say; then let so many beats pass."""
        await trio.sleep(beats * BEAT + 0.001)
        for _ in range(10):
            await self.nats.settled()
            await trio.testing.wait_all_tasks_blocked()

    async def submit(self, call: Call | None = None) -> Exchange:
        exchange = self.dispatcher.submit(call or a_call())
        await self.settle()
        return exchange


@asynccontextmanager
async def a_scene(
    *hosts: str, before: Callable[[ScriptedHost], None] = lambda _: None, **settings: Any
) -> AsyncIterator[Scene]:
    """A front with hosts of these names, all of which have the agent `echo`; `before` gets each
    before it beats."""
    told = FleetSettings(role="front", servers=["nats://127.0.0.1:4222"], **settings)
    async with trio.open_nursery() as nursery:
        scene = Scene(FakeNats(), nursery, told)
        await nursery.start(scene.dispatcher.run)
        made = [scene.host(name) for name in hosts]
        for host in made:
            before(host)
        await nursery.start(scene.front.run)
        await scene.settle(2)
        scene.hosts = made
        yield scene
        nursery.cancel_scope.cancel()
