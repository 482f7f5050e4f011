"""The status of an agent at a front: what its hosts tell, together.

Each host is asked at the moment, and one that does not answer in time is told of by its beats
alone. What hosts say is checked and bounded; names, schemas and handlers are those that the front
goes by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import trio
from msgspec import Struct

from gateway.agents.status import (
    AgentStatus,
    LastFailure,
    LimitMet,
    Limits,
    WorkerStatus,
)
from gateway.fleet.messages import NO_MESSAGE
from gateway.observe.harmless import shortened

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from gateway.agents.declared import Declared
    from gateway.agents.status import AgentSummary
    from gateway.config import AgentSettings
    from gateway.fleet.front.hosts import At
    from gateway.fleet.front.link import Link

STATUS_SECONDS = 1.0
"""For a host to answer: it measures its workers' memory first."""

MOST_WORKERS = 1000
"""Workers of one host that are listed."""

MOST_STATUS_BYTES = 1024 * 1024
"""Of the answer of one host."""

MOST_DEPTH = 20
"""Of what is in the answer. It is told within more, and what is read just so could not be written.
"""

MOST_MESSAGE = 4096
MOST_STATE = 64
"""Characters."""


class HostedWorker(WorkerStatus, frozen=True, kw_only=True):
    """A worker, and the host that it is at."""

    host: str


class HostStatus(Struct, frozen=True, kw_only=True):
    """One host of an agent."""

    name: str
    id: str
    """Of the process: a host that is started again has another."""
    state: str
    draining: bool
    version: str
    """Of agent-gateway."""
    capacity: int
    """Requests that its workers, all that there may be, can have at a time."""
    in_flight: int
    waiting: int
    given: int
    """Of `in_flight` and `waiting`, those of this front."""
    answered: bool
    """Whether it has told of its workers just now."""


class FleetStatus(AgentStatus, frozen=True, kw_only=True):
    """Everything about an agent of a fleet."""

    hosts: list[HostStatus]


class Told(Struct, frozen=True, kw_only=True):
    """Of an `AgentStatus`, what a host is asked for."""

    workers: list[WorkerStatus]
    started: int
    failures: int
    last_failure: LastFailure | None
    last_limit: LimitMet | None
    sandbox: dict[str, Any]
    services: dict[str, Any] = {}
    network: dict[str, Any] = {}
    input_unchecked: str | None = None


_decode = msgspec.json.Decoder(Told).decode


async def ask_all(agent: str, places: Sequence[tuple[At, Link]]) -> list[Told | None]:
    """What each host tells of an agent now, in order."""
    told: list[Told | None] = [None] * len(places)

    async def ask(number: int, link: Link) -> None:
        answered = trio.Event()
        bodies: list[bytes | None] = []

        def answer(body: bytes | None) -> None:
            bodies.append(body)
            answered.set()

        link.ask("status", agent, answer)
        await answered.wait()
        told[number] = read_told(bodies[0])

    with trio.move_on_after(STATUS_SECONDS):
        async with trio.open_nursery() as nursery:
            for number, (_, link) in enumerate(places):
                nursery.start_soon(ask, number, link)
    return told


def read_told(body: bytes | None) -> Told | None:
    if body is None or len(body) > MOST_STATUS_BYTES:
        return None
    try:
        told = _decode(body)
    except NO_MESSAGE:
        return None
    shallow = _is_shallow([told.sandbox, told.services, told.network], MOST_DEPTH)
    return told if shallow else None


def _is_shallow(value: Any, most: int) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    return not isinstance(value, list) or (
        most > 0 and all(_is_shallow(each, most - 1) for each in value)
    )


def merge(
    summary: AgentSummary,
    settings: AgentSettings,
    declared: Declared,
    places: Sequence[At],
    told: Sequence[Told | None],
) -> FleetStatus:
    """The status of an agent at these hosts, in the order of their names, of which `told` came."""
    ready = declared.ready
    known = [each for each in told if each is not None]
    failures = [each.last_failure for each in known if each.last_failure is not None]
    limits = [each.last_limit for each in known if each.last_limit is not None]
    one = known[-1] if known else None  # they run the same command in the same kind of sandbox
    return FleetStatus(
        name=summary.name,
        description=summary.description,
        metadata=msgspec.Raw(b"{}" if ready is None else ready.metadata),
        handlers=summary.handlers,
        input=None if ready is None or ready.input is None else msgspec.Raw(ready.input),
        output=None if ready is None or ready.output is None else msgspec.Raw(ready.output),
        input_unchecked=_unchecked(declared, known),
        modes=() if ready is None else ready.modes,
        tools=ready is not None and ready.tools,
        asks=ready is not None and ready.asks,
        state=summary.state,
        workers=[
            _worker(worker, at.host.peer.name)
            for at, each in zip(places, told, strict=True)
            if each is not None
            for worker in each.workers[:MOST_WORKERS]
        ],
        limits=Limits(
            max_workers=settings.workers.max * len(places), queue=settings.queue * len(places)
        ),
        waiting=summary.waiting,
        in_flight=summary.in_flight,
        started=sum(each.started for each in known),
        failures=sum(each.failures for each in known),
        last_failure=_cut(max(failures, key=lambda each: each.at, default=None)),
        last_limit=_cut(max(limits, key=lambda each: each.at, default=None)),
        sandbox={} if one is None else one.sandbox,
        services={} if one is None else one.services,
        network={} if one is None else one.network,
        hosts=_hosts(places, told),
    )


def _unchecked(declared: Declared, known: Sequence[Told]) -> str | None:
    """Why inputs are not checked, here or at a host."""
    here = None if declared.inputs is None else declared.inputs.unusable
    there = (each.input_unchecked for each in known if each.input_unchecked is not None)
    return here or shortened(next(there, ""), MOST_MESSAGE) or None


def _worker(worker: WorkerStatus, host: str) -> HostedWorker:
    members = msgspec.structs.asdict(worker) | {"state": worker.state[:MOST_STATE]}
    return HostedWorker(**members, host=host)


def _hosts(places: Collection[At], told: Sequence[Told | None]) -> list[HostStatus]:
    return [
        HostStatus(
            name=at.host.peer.name,
            id=str(at.host.peer),
            state=at.state,
            draining=at.host.draining,
            version=at.host.gateway,
            capacity=at.capacity,
            in_flight=at.now[0],
            waiting=at.now[1],
            given=at.mine,
            answered=each is not None,
        )
        for at, each in zip(places, told, strict=True)
    ]


def _cut(told: Any) -> Any:
    if told is None:
        return None
    return msgspec.structs.replace(told, message=shortened(told.message, MOST_MESSAGE))
