"""The status of an agent at a front: what its hosts tell, together.

Each host is asked at the moment, and one that does not answer in time is told of by its beats
alone. What hosts say is checked and bounded; names, schemas and handlers are those that the front
goes by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import trio
from msgspec import Meta, Raw, Struct

from gateway.agents.status import (
    AgentStatus,
    HostStatus,
    LastFailure,
    LimitMet,
    Limits,
    WorkerStatus,
)
from gateway.fleet.front.shown import summarize_place
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
"""Of what is in the answer, told as it came: whoever reads that may take no more."""

MOST_COUNT = 2**53
"""Of anything: the largest that every reader of JSON takes for what it is."""

MOST_MESSAGE = 4096
MOST_STATE = 64
"""Characters."""


class HostedWorker(WorkerStatus, frozen=True, kw_only=True):
    """A worker, and the host that it is at."""

    host: str


class FleetStatus(AgentStatus, frozen=True, kw_only=True):
    """Everything about an agent of a fleet. JSON of hosts is told as it came."""

    sandbox: Raw  # type: ignore[assignment]  # is not read here, but passed on
    services: Raw  # type: ignore[assignment]  # the same
    network: Raw  # type: ignore[assignment]  # the same
    hosts: list[HostStatus]


_NOTHING = Raw(b"{}")

_Count = Annotated[int, Meta(ge=0, le=MOST_COUNT)]


class Told(Struct, frozen=True, kw_only=True):
    """Of an `AgentStatus`, what a host is asked for. What is only passed on is not decoded: that
    could take a hundred times its bytes, and a second."""

    workers: list[WorkerStatus]
    started: _Count
    failures: _Count
    last_failure: LastFailure | None
    last_limit: LimitMet | None
    sandbox: Raw
    services: Raw = _NOTHING
    network: Raw = _NOTHING
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
        str(body, "utf-8")  # what is not decoded is not looked at for it
        told = _decode(body)
    except NO_MESSAGE:
        return None
    parts = [bytes(each) for each in (told.sandbox, told.services, told.network)]
    return told if all(map(_is_shallow_object, parts)) else None


_NO_BRACKETS = bytes(set(range(256)) - set(b"{}[]"))


def _is_shallow_object(text: bytes) -> bool:
    """Whether a JSON text is an object, and nested no more than `MOST_DEPTH` deep. Its strings are
    every other part between quotes; then each round takes the innermost brackets away."""
    without_escapes = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    left = b"".join(without_escapes.split(b'"')[::2]).translate(None, _NO_BRACKETS)
    for _ in range(MOST_DEPTH):
        left = left.replace(b"[]", b"").replace(b"{}", b"")
    return not left and text.startswith(b"{")


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
        sandbox=_NOTHING if one is None else one.sandbox,
        services=_NOTHING if one is None else one.services,
        network=_NOTHING if one is None else one.network,
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
        HostStatus(**msgspec.structs.asdict(summarize_place(at)), answered=each is not None)
        for at, each in zip(places, told, strict=True)
    ]


def _cut(told: Any) -> Any:
    if told is None:
        return None
    return msgspec.structs.replace(told, message=shortened(told.message, MOST_MESSAGE))
