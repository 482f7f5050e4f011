"""More requests than an agent can answer: what becomes of the accepted ones and of the others.

The load is an open loop: requests are sent when they are due, whether or not others were answered.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import trio

from tests.benchmarks import servers
from tests.benchmarks.agents.busy import AT_A_TIME, SECONDS
from tests.benchmarks.bench import Bench, Measure, Samples
from tests.benchmarks.figures import Figure, Target, percentile
from tests.benchmarks.servers import Server
from tests.benchmarks.wire import BadAnswerError

CAPACITY = AT_A_TIME / SECONDS
"""The most answers a second that the one worker can give; what it does give is measured."""

CALM, BUSY, FULL = (
    "at 0.8 of its capacity",
    "at twice its capacity",
    "as many as it takes at a time",
)

QUEUE_CLOCK = 1.0
"""Seconds. The default is 30, and a queue of 100 is served long before that."""

AGENTS = {"busy": {"workers": {"max": 1}, "clocks": {"queue": QUEUE_CLOCK}}}

REUSED_WITHIN = 5.0
"""A connection that was idle for this many seconds is not reused; any server allows as much."""

MAX_ROUNDS = 2
"""Each round takes a minute."""


def overload(bench: Bench) -> Iterator[Figure]:
    """A load of twice the capacity, beside one of 0.8 of it."""
    seconds = bench.scaled(20, 1)
    with servers.gateway(bench.folder, agents=AGENTS) as server:
        taken = bench.interleave(
            {
                FULL: partial(_fill, server, bench.scaled(5, 1)),
                BUSY: partial(_offer, server, 2 * CAPACITY, seconds),
                CALM: partial(_offer, server, 0.8 * CAPACITY, seconds),
            },
            rounds=min(bench.rounds, MAX_ROUNDS),
            rehearse=False,
        )
    case = f"an agent of {CAPACITY:g} answers/s for {seconds} s"
    pairs = zip(taken["p99"][CALM], taken["p99"][BUSY], strict=True)
    bounded = [busy / (QUEUE_CLOCK * 1000 + 2 * calm) for calm, busy in pairs]
    yield Figure(
        "overload", f"{case}: p99 of what was accepted, over its bound", "of the bound",
        {BUSY: bounded}, (Target(at_most=1.0, subject=BUSY),), higher_is_better=False,
        note=f"the bound: the queue clock, {QUEUE_CLOCK:g} s, and twice the p99 at 0.8",
    )  # fmt: skip
    yield Figure(
        "overload", f"{case}: p99 of what was accepted", "ms", taken["p99"],
        higher_is_better=False,
    )  # fmt: skip
    if BUSY in taken.get("refusal", {}):  # on a busy machine, it may not have been twice as much
        yield Figure(
            "overload", f"{case}: time to a refusal, median", "ms", taken["refusal"],
            (Target(at_most=50.0, subject=BUSY),), higher_is_better=False,
        )  # fmt: skip
    yield Figure(
        "overload", f"{case}: good answers", "answers/s", taken["goodput"],
        (Target(FULL, at_least=0.9, subject=BUSY),),
    )  # fmt: skip


@dataclass
class _Outcomes:
    accepted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    last: float = 0.0


def _fill(server: Server, seconds: float) -> Samples:
    """A closed loop: as many requests at a time as the worker takes, each followed by the next."""
    outcomes = _Outcomes()
    start = time.perf_counter()
    trio.run(_keep_full, server, seconds, outcomes)
    return {
        "p99": percentile(outcomes.accepted, 99) * 1000,
        "goodput": len(outcomes.accepted) / (outcomes.last - start),
    }


async def _keep_full(server: Server, seconds: float, outcomes: _Outcomes) -> None:
    async def one_after_the_other() -> None:
        idle: list[tuple[float, trio.SocketStream]] = []
        until = trio.current_time() + seconds
        while trio.current_time() < until:
            await _send_one(server, idle, outcomes)
        await idle.pop()[1].aclose()

    async with trio.open_nursery() as nursery:
        for _ in range(AT_A_TIME):
            nursery.start_soon(one_after_the_other)


def _offer(server: Server, rate: float, seconds: float) -> Samples:
    outcomes = _Outcomes()
    start = time.perf_counter()
    trio.run(_send_all, server, rate, seconds, outcomes)
    lasted = max(outcomes.last - start, seconds)
    samples = {
        "p99": percentile(outcomes.accepted, 99) * 1000,
        "goodput": len(outcomes.accepted) / lasted,
    }
    if outcomes.refused:
        samples["refusal"] = percentile(outcomes.refused, 50) * 1000
    return samples


async def _send_all(server: Server, rate: float, seconds: float, outcomes: _Outcomes) -> None:
    idle: list[tuple[float, trio.SocketStream]] = []
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(int(rate * seconds)):
            await trio.sleep_until(start + number / rate)
            nursery.start_soon(_send_one, server, idle, outcomes)
    for _, connection in idle:
        await connection.aclose()


async def _send_one(
    server: Server, idle: list[tuple[float, trio.SocketStream]], outcomes: _Outcomes
) -> None:
    start = time.perf_counter()
    connection = await _take(server, idle)
    await connection.send_all(server.invoke("hello", agent="busy").encode())
    answer = b""
    while not _is_whole(answer):
        data = await connection.receive_some()
        if not data:
            raise BadAnswerError(f"the connection was closed after {answer!r}")
        answer += data
    outcomes.last = time.perf_counter()
    status = answer.split(b" ", 2)[1]
    if status == b"200":
        outcomes.accepted.append(outcomes.last - start)
    elif status in {b"503", b"504"}:
        outcomes.refused.append(outcomes.last - start)
    else:
        raise BadAnswerError(f"neither an answer nor a refusal: {answer!r}")
    idle.append((trio.current_time(), connection))


async def _take(server: Server, idle: list[tuple[float, trio.SocketStream]]) -> trio.SocketStream:
    """The connection used last, or a new one if the server may be about to close that."""
    if idle:
        since, connection = idle.pop()
        if trio.current_time() - since < REUSED_WITHIN:
            return connection
        await connection.aclose()
    return await trio.open_tcp_stream("127.0.0.1", server.port)


def _is_whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    if not end:
        return False
    _, _, rest = head.lower().partition(b"content-length:")
    return len(body) >= int(rest.split(b"\r\n", 1)[0])


MEASURES = (Measure("overload", "twice as much as an agent can answer", overload),)
