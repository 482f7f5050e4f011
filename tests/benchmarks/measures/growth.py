"""How the cost of an event grows: with waiting requests, workers, conversations, agents.

An event is a request that comes, or one that is answered; all agents share the loop that pays for
it. The pool is measured by itself, in this process: it needs no workers, only to be told of them.
"""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Literal

from gateway.agents.pool import Plan, Pool
from gateway.agents.restart import RestartPolicy
from gateway.config import AgentSettings, Restart, Workers
from gateway.exchange import Session
from tests.benchmarks import servers
from tests.benchmarks.bench import Bench, Measure, Samples
from tests.benchmarks.figures import Figure, Target
from tests.benchmarks.servers import Server, agent_command
from tests.benchmarks.wire import Client

Binding = Literal["none", "sticky", "exclusive"]
BINDINGS: tuple[Binding, ...] = ("none", "sticky", "exclusive")

WAITING = (10, 100, 1_000, 10_000)
WORKERS = (1, 10, 50, 200)
CONVERSATIONS = (50, 500, 5_000)
"""All are remembered; of more, the pool forgets the oldest."""
AGENTS = (1, 10, 100)

USUAL_WAITING, USUAL_WORKERS = 1_000, 50
MOST = 50.0
"""Microseconds of an event with so many waiting requests and workers."""

CONSTANT, LINEAR = 0.25, 1.2
"""The exponents up to which growth is called so; a measured one is never quite 0 or 1."""


@dataclass(eq=False, slots=True)
class Request:
    """What a pool has to know of a request."""

    conversation: str
    session: Session | None = None
    worker_id: int | None = None


class BusyPool:
    """A pool whose workers have a request each, of a conversation each, while others wait."""

    def __init__(
        self, session: Binding, *, workers: int, waiting: int, conversations: int = 0
    ) -> None:
        settings = AgentSettings(
            command="none",
            workers=Workers(min=workers, max=workers),
            session=session,
            concurrency=1,
            queue=sys.maxsize,
        )
        self._pool: Pool[Request] = Pool(settings, RestartPolicy(Restart()))
        self._now = 0.0
        self._at_workers: deque[Request] = deque()
        for worker in self._pool.tick(self._now).start:
            self._pool.spawned(worker, self._now)
            self._pool.ready(worker, 1, self._now)
        for number in range(max(workers, conversations)):
            if len(self._at_workers) == workers:
                self._answer()
            self._ask(f"conversation {number}")
        # Every other one waits for a worker of its own, the others for any.
        homes = [request.conversation for request in self._at_workers]
        for number in range(waiting):
            self._ask(homes[number % workers] if number % 2 else f"new {number}")
        assert (len(self._at_workers), self._pool.waiting) == (workers, waiting)

    def measure(self, times: int) -> Samples:
        """Microseconds of an event: a request comes, and one is answered and another takes its
        place, so that as many wait as before."""
        taken = []
        for _ in range(times):
            conversation = self._at_workers[0].conversation
            start = time.perf_counter()
            self._ask(conversation)
            self._answer()
            taken.append(time.perf_counter() - start)
        # The median: now and then the machine does something else in the middle of one.
        return {"µs": median(taken) / 2 * 1e6}

    def _ask(self, conversation: str) -> None:
        self._take(self._pool.submit(Request(conversation), self._now))

    def _answer(self) -> None:
        self._take(self._pool.finish(self._at_workers.popleft(), self._now, served=True))

    def _take(self, plan: Plan[Request] | None) -> None:
        if plan is not None:
            self._at_workers.extend([request for request, _ in plan.assign])


def growth(bench: Bench) -> Iterator[Figure]:
    """The pool under each kind of session, and then a whole gateway."""
    for session in BINDINGS:
        yield _figure(
            bench, f"session {session}, {USUAL_WORKERS} workers", "waiting",
            {n: BusyPool(session, workers=USUAL_WORKERS, waiting=n) for n in WAITING},
            (Target(at_most=MOST, subject=_name(USUAL_WAITING, "waiting")),),
        )  # fmt: skip
    for session in BINDINGS:
        yield _figure(
            bench, f"session {session}, {USUAL_WAITING:,} waiting", "workers",
            {n: BusyPool(session, workers=n, waiting=USUAL_WAITING) for n in WORKERS},
            (Target(at_most=MOST, subject=_name(USUAL_WORKERS, "workers")),),
        )  # fmt: skip
    yield _figure(
        bench, f"session sticky, {USUAL_WORKERS} workers, {USUAL_WAITING:,} waiting",
        "conversations",
        {
            n: BusyPool("sticky", workers=USUAL_WORKERS, waiting=USUAL_WAITING, conversations=n)
            for n in CONVERSATIONS
        },
    )  # fmt: skip
    yield from _agents(bench)


def _figure(
    bench: Bench,
    case: str,
    things: str,
    pools: Mapping[int, BusyPool],
    targets: tuple[Target, ...] = (),
) -> Figure:
    times = bench.scaled(300, 5)
    taken = bench.interleave(
        {_name(size, things): partial(pool.measure, times) for size, pool in pools.items()}
    )["µs"]
    return Figure(
        "growth", f"an event by {things}: {case}", "µs", taken, targets,
        higher_is_better=False, note=_told(things, list(pools), taken),
    )  # fmt: skip


def _agents(bench: Bench) -> Iterator[Figure]:
    sizes = AGENTS if not bench.quick else AGENTS[:2]
    with ExitStack() as stack:
        running = {n: stack.enter_context(_gateway(bench, n)) for n in sizes}
        times = bench.scaled(200, 2)
        taken = bench.interleave(
            {_name(n, "agents"): partial(_ask, server, times) for n, server in running.items()}
        )["ms"]
    yield Figure(
        "growth", "a request to one of the gateway's agents, 1 connection", "ms", taken,
        higher_is_better=False, note=_told("agents", list(sizes), taken),
    )  # fmt: skip


def _gateway(bench: Bench, agents: int) -> AbstractContextManager[Server]:
    # The others stay cold: all that they cost is to be there. The sandbox has no part in that.
    table = {"command": ["python", *agent_command("echo")[1:]], "workers": {"min": 0, "max": 1}}
    return servers.gateway(
        bench.folder, agents={f"echo{number}": table for number in range(agents)},
        sandbox="off", name=_name(agents, "agents"),
    )  # fmt: skip


def _ask(server: Server, times: int) -> Samples:
    request = server.invoke("hello", agent="echo0")
    with Client(server.port) as client:
        client.timed(request)
        return {"ms": median(client.timed(request) for _ in range(times)) * 1000}


def _name(size: int, things: str) -> str:
    return f"{size:,} {things}"


def _told(things: str, sizes: list[int], taken: Mapping[str, list[float]]) -> str:
    costs = [median(taken[_name(size, things)]) for size in sizes]
    return (
        f"growth with {things}: {fit(sizes, costs)}; "
        f"{sizes[-1] / sizes[-2]:g} times as many cost {costs[-1] / costs[-2]:.2f} times as much"
    )


def fit(sizes: list[int], costs: list[float]) -> str:
    """ "constant", "linear" or "worse", by the last two sizes: there, what every event costs
    whatever the size weighs least. `sizes` ascend."""
    exponent = math.log(costs[-1] / costs[-2]) / math.log(sizes[-1] / sizes[-2])
    if exponent <= CONSTANT:
        return "constant"
    return "linear" if exponent <= LINEAR else "worse"


MEASURES = (Measure("growth", "what an event costs by the number of everything", growth),)
