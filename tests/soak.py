"""A bounded soak: every fault at once, among clients of every kind, and then the accounts.

    python -m tests.soak --seconds 120 [--seed N] [--sandbox strict]

Clients in parallel do what they are drawn to do: ordinary requests, faults, requests that are sent
and read slowly, clients that leave, in every way, or never read, workers that are killed. Each
request has a nonce, which is also its id. It ends by asserting that every request had exactly one
outcome, that no nonce reached another, that nothing went wrong that was not asked for, and that
processes, descriptors and memory are back where they began; and it prints the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import trio

from tests.agents.wire import FAULT, FAULT_AFTER_A_WORD
from tests.faults.scene import LEVEL, Footprint, agent, body, footprint, scene
from tests.harness import RunningGateway
from tests.http.leaving import WAYS, handshake
from tests.http.raw import Connection

CLIENTS = 12
"""In parallel: enough to keep two cores busy with all kinds at once."""

SETTLE_SECONDS = 60.0
"""After the last request: idle workers are stopped within one second, a connection that its client
has left is closed at once; the rest is for a machine that is busy."""

MEMORY_BOUND = 48 * 1024 * 1024
"""That the gateway may have grown since every fault had happened once: lines of up to 8 MiB come in
several at a time, and the allocator keeps some of what they took."""

REQUEST_SECONDS = 60.0
"""No request may take longer, whatever happens to it: ten times the longest sum of its clocks."""

_CLOCKS = {
    "start": 3,
    "first": 0.6,
    "idle": 0.6,
    "total": 3,
    "cancel": 0.3,
    "write": 0.5,
    "stop": 0.3,
}
_ON_DEMAND: dict[str, Any] = {
    "workers": {"min": 0, "max": 2},
    "idle_timeout": 1,
    "clocks": _CLOCKS,
    "restart": {"backoff": 0.05, "backoff_max": 0.5, "failures": 8, "cooldown": 0.5},
}

FAULTY = {
    "exit_before_ready": (),
    "exit_mid_frame": (),
    "exit_after_result": (),
    "segfault": (),
    "stop_itself": (),
    "stubborn": (),
    "close_stdout": (),
    "close_stdin": (),
    "never_read": (),
    "endless_line": (),
    "flood_stdout": (),
    "flood_after": ("after",),
    "flood_stderr": (),
    "garbage": ("text",),
    "binary": ("binary",),
    "half_character": (),
    "wrong_shape": (),
    "unknown_id": (),
    "two_results": (),
    "chunk_after_end": (),
    "never_ready": (),
    "ready_twice": (),
    "grandchild": (),
    "hold": ("deaf",),
}
"""Agents by name, with their arguments; the script has the same name but for these."""
_SCRIPTS = {"flood_after": "flood_stdout", "binary": "garbage"}

_NONCE = re.compile(r"#\d+#")
_ALLOWED = {
    (501, "worker_crashed"),
    (502, "invalid_agent_response"),
    (503, "agent_unavailable"),
    (503, "overloaded"),
    (504, "timeout"),
}
"""Ends of a request to an agent that misbehaves; an ordinary answer is another."""


@dataclass
class Accounts:
    """What came of every request, and everything that should not have been."""

    asked: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    wrongs: list[str] = field(default_factory=list)
    killed: int = 0
    slowest: float = 0.0

    def nonce(self) -> str:
        self.asked += 1
        return f"#{self.asked}#"

    def outcome(self, name: str) -> None:
        self.outcomes[name] += 1

    def wrong(self, nonce: str, what: str) -> None:
        self.wrongs.append(f"{nonce}: {what}")


@dataclass(frozen=True)
class Figures:
    """What is printed at the end."""

    seconds: float
    asked: int
    outcomes: dict[str, int]
    workers_killed: int
    workers_failed: int
    processes: tuple[int, int]
    descriptors: tuple[int, int]
    resident: tuple[int, int]
    resident_peak: int
    slowest: float

    def __str__(self) -> str:
        ends = ", ".join(f"{count} {name}" for name, count in sorted(self.outcomes.items()))
        mib = [round(size / 2**20, 1) for size in (*self.resident, self.resident_peak)]
        return "\n".join(
            (
                f"{self.asked} requests in {self.seconds:.0f} s, each with one outcome: {ends}",
                f"workers: {self.workers_failed} failed, {self.workers_killed} of them killed here",
                f"slowest request: {self.slowest:.1f} s",
                f"processes: {self.processes[0]} before, {self.processes[1]} after",
                f"descriptors: {self.descriptors[0]} before, {self.descriptors[1]} after",
                f"memory: {mib[0]} MiB before, {mib[1]} MiB after, {mib[2]} MiB at the most",
            )
        )


async def soak(*, seconds: float, seed: int, folder: Path, level: str = LEVEL) -> Figures:
    """Run it; raises AssertionError with what was wrong."""
    async with scene(folder, level=level, **_agents()) as gateway:
        accounts = Accounts()
        await gateway.state("good")
        sockets = footprint(gateway)[1]["socket:"]
        # Once each: what is kept for good by the first of each kind is no leak.
        async with (
            Client(gateway, accounts, random.Random(seed)) as first,
            trio.open_nursery() as nursery,
        ):
            for name in FAULTY:
                nursery.start_soon(first.faulty, name)
            nursery.start_soon(first.ordinary)
        before = await _settled(gateway, lambda seen: seen[1]["socket:"] == sockets)
        resident_before = _memory(gateway, "VmRSS")
        started = trio.current_time()
        with trio.move_on_after(seconds + REQUEST_SECONDS) as bound:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_leave_log_unread, gateway, seconds / 3)
                for number in range(CLIENTS):
                    rng = random.Random(seed * 1000 + number)
                    client = Client(gateway, accounts, rng, keep_alive=number % 2 == 0)
                    nursery.start_soon(client.run, started + seconds)
        assert not bound.cancelled_caught, f"a request hangs; the log:\n{_end_of_log(gateway)}"
        took = trio.current_time() - started
        after = await _settled(gateway, lambda seen: seen == before)
        resident_after = _memory(gateway, "VmRSS")
        failed = await _check_agents(gateway)
        figures = Figures(
            seconds=took,
            asked=accounts.asked,
            outcomes=dict(accounts.outcomes),
            workers_killed=accounts.killed,
            workers_failed=failed,
            processes=(before[0], after[0]),
            descriptors=(before[1].total(), after[1].total()),
            resident=(resident_before, resident_after),
            resident_peak=_memory(gateway, "VmHWM"),
            slowest=accounts.slowest,
        )
        print(figures, flush=True)
        _check(accounts, before, after, figures, gateway.log)
    return figures


async def _leave_log_unread(gateway: RunningGateway, seconds: float) -> None:
    """For the second third of the soak, the gateway's stderr is a pipe that nobody reads."""
    await trio.sleep(seconds)
    with gateway.log_unread():
        await trio.sleep(seconds)


def _agents() -> dict[str, dict[str, Any]]:
    faulty = {
        name: agent(f"{_SCRIPTS.get(name, name)}.py", *arguments, **_copy(_ON_DEMAND))
        for name, arguments in FAULTY.items()
    }
    victim = agent("echo.py", **_copy(_ON_DEMAND))
    # A fresh process for every request, one of them ahead.
    fresh = agent("echo.py", workers={"min": 0, "max": 4, "spare": 1}, max_requests=1)
    return {**faulty, "victim": victim, "fresh": fresh}


def _copy(settings: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(settings))  # type: ignore[no-any-return]


class Client:
    """One of many, which does one thing after another."""

    def __init__(
        self,
        gateway: RunningGateway,
        accounts: Accounts,
        rng: random.Random,
        *,
        keep_alive: bool = False,
    ) -> None:
        self._gateway = gateway
        self._accounts = accounts
        self._rng = rng
        self._http = httpx.AsyncClient(
            base_url=gateway.url,
            timeout=REQUEST_SECONDS,
            headers={"connection": "keep-alive" if keep_alive else "close"},
        )

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def run(self, until: float) -> None:
        kinds = {
            self.ordinary: 40,
            self.faulty: 40,
            self.slow: 6,
            self.leave: 8,
            self.leave_a_handshake: 2,
            self.half: 3,
            self.never_read: 2,
            self.kill: 3,
        }
        async with self:
            while trio.current_time() < until:
                [act] = self._rng.choices(list(kinds), weights=list(kinds.values()))
                began = trio.current_time()
                await act()
                took = trio.current_time() - began
                self._accounts.slowest = max(self._accounts.slowest, took)

    # What a client does

    async def ordinary(self) -> None:
        """It must be served, whatever the others do."""
        nonce = self._accounts.nonce()
        name = self._rng.choice(["good", "good", "good", "fresh"])
        answer = await self._ask(name, f"hello {nonce}", nonce)
        if answer.status_code != 200 or nonce not in answer.text:
            self._accounts.wrong(nonce, f"{name}: {answer.status_code} {answer.text[:300]}")

    async def faulty(self, name: str = "") -> None:
        """Ask for a fault, or for an echo among faults."""
        nonce = self._accounts.nonce()
        name = name or self._rng.choice(list(FAULTY))
        wish = self._rng.choice([FAULT, FAULT, FAULT_AFTER_A_WORD, "hold", "hello"])
        answer = await self._ask(name, f"{wish} {nonce}", nonce)
        if answer.status_code != 200:
            error = answer.json()["error"]
            if (answer.status_code, error["type"]) not in _ALLOWED:
                self._accounts.wrong(nonce, f"{name}: {answer.status_code} {answer.text[:300]}")
            if error["request_id"] != nonce:
                self._accounts.wrong(nonce, f"{name}: the id is {error['request_id']}")

    async def slow(self) -> None:
        """Sends in two halves, and reads a little at a time."""
        nonce = self._accounts.nonce()
        head, data = self._request(self._rng.choice(["good", "victim"]), f"hello {nonce}", nonce)
        async with await self._connect() as connection:
            middle = len(data) // 2
            await connection.send_all(head + data[:middle])
            await trio.sleep(self._rng.uniform(0, 0.3))
            await connection.send_all(data[middle:])
            text = b""
            with trio.fail_after(REQUEST_SECONDS):
                while piece := await connection.receive_some(self._rng.randint(1, 200)):
                    text += piece
                    await trio.sleep(self._rng.uniform(0, 0.01))
        self._judge(text.decode(), nonce, streamed=b"text/event-stream" in text)
        if text.count(b"HTTP/1.1 ") != 1:
            self._accounts.wrong(nonce, f"not one response: {text[:300]!r}")

    async def leave(self) -> None:
        """Leaves at any moment, mostly before the answer, in any way."""
        headers, leave = self._rng.choice(list(WAYS.values()))
        nonce = self._accounts.nonce()
        name = self._rng.choice(["good", "fresh", "victim", *FAULTY])
        wish = self._rng.choice([FAULT, FAULT_AFTER_A_WORD, "hold", "hello"])
        head, data = self._request(name, f"{wish} {nonce}", nonce, headers=headers)
        async with await self._connect() as stream:
            connection = Connection(stream)
            await connection.send(head + data)
            await self._read_a_while(connection)
            # The gateway may have closed it already; only a half-closed one can still be read.
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await leave(connection)
                await self._read_a_while(connection)
        self._accounts.outcome("left")

    async def _read_a_while(self, connection: Connection) -> None:
        with trio.move_on_after(self._rng.expovariate(10)):
            while await connection.read():
                pass

    async def leave_a_handshake(self) -> None:
        """Leaves in the middle of the WebSocket handshake, or after it."""
        self._accounts.nonce()
        head = handshake("/agent/good/invoke") + b"\r\n"
        async with await self._connect() as connection:
            await connection.send_all(head[: self._rng.randint(1, len(head))])
        self._accounts.outcome("left a handshake")

    async def half(self) -> None:
        """Sends half a body and leaves."""
        nonce = self._accounts.nonce()
        head, data = self._request("good", f"hello {nonce}", nonce)
        async with await self._connect() as connection:
            await connection.send_all(head + data[: len(data) // 2])
            await trio.sleep(self._rng.uniform(0, 0.3))
        self._accounts.outcome("left half-way")

    async def never_read(self) -> None:
        """Asks for a flood, and does not read it until a clock has ended it."""
        nonce = self._accounts.nonce()
        head, data = self._request("flood_stdout", f"{FAULT} {nonce}", nonce, stream=True)
        async with await self._connect() as connection:
            await connection.send_all(head + data)
            await trio.sleep(self._rng.uniform(0.2, 2))
        self._accounts.outcome("never read")

    async def kill(self) -> None:
        """Kills a worker of an agent that has done nothing."""
        nonce = self._accounts.nonce()
        answer = await self._ask("victim", f"hello {nonce}", nonce)
        if answer.status_code != 200 and answer.status_code not in {501, 503}:
            self._accounts.wrong(nonce, f"victim: {answer.status_code} {answer.text[:300]}")
        state = (await self._http.get("/agent/victim")).json()
        for worker in state["workers"][:1]:
            if worker["pid"] is not None:
                try:
                    os.kill(worker["pid"], signal.SIGKILL)
                    self._accounts.killed += 1
                except ProcessLookupError:
                    pass

    # How it is done and judged

    async def _ask(self, name: str, wish: str, nonce: str) -> httpx.Response:
        kind = self._rng.choice(["invoke", "chat"])
        stream = self._rng.random() < 0.5
        answer = await self._http.post(
            f"/agent/{name}/{kind}",
            json={**body(wish, kind), "stream": stream},
            headers={"x-request-id": nonce},
        )
        if answer.headers.get("x-request-id") != nonce:
            self._accounts.wrong(nonce, f"{name}: answered as {answer.headers.get('x-request-id')}")
        self._judge(answer.text, nonce, streamed=stream and answer.status_code == 200)
        if not answer.is_success:
            self._accounts.outcomes[f"{answer.status_code} {answer.json()['error']['type']}"] += 1
            self._accounts.outcomes["200"] -= 1
        return answer

    def _judge(self, text: str, nonce: str, *, streamed: bool) -> None:
        """Count the outcome: a whole answer, or a stream with one end."""
        if strangers := set(_NONCE.findall(text)) - {nonce}:
            self._accounts.wrong(nonce, f"holds what belongs to {strangers}")
        if not streamed:
            self._accounts.outcome("200")
            return
        ends = text.count("data: [DONE]\n\n"), text.count("event: error\n")
        if ends not in {(1, 0), (0, 1)}:
            self._accounts.wrong(nonce, f"a stream with {ends} ends: …{text[-300:]!r}")
        self._accounts.outcome("stream, whole" if ends[0] else "stream, error at its end")

    def _request(
        self,
        name: str,
        wish: str,
        nonce: str,
        *,
        stream: bool | None = None,
        headers: tuple[str, ...] = ("connection: close",),
    ) -> tuple[bytes, bytes]:
        streams = self._rng.random() < 0.5 if stream is None else stream
        data = json.dumps({**body(wish), "stream": streams}).encode()
        head = (
            f"POST /agent/{name}/invoke HTTP/1.1\r\nhost: localhost\r\n"
            f"content-type: application/json\r\ncontent-length: {len(data)}\r\n"
            f"x-request-id: {nonce}\r\n" + "".join(f"{line}\r\n" for line in headers) + "\r\n"
        )
        return head.encode(), data

    async def _connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self._gateway.port)


async def _settled(gateway: RunningGateway, condition: Callable[[Footprint], bool]) -> Footprint:
    """Wait until nothing is in flight, every agent that may be cold is, and the footprint fulfils
    the condition; the last that was seen."""
    last = footprint(gateway)
    with trio.move_on_after(SETTLE_SECONDS):
        while True:
            agents = (await gateway.client.get("/agents")).json()["agents"]
            quiet = not any(one["in_flight"] or one["waiting"] for one in agents)
            cold = all(one["workers"] == 0 for one in agents if one["name"] in {*FAULTY, "victim"})
            last = footprint(gateway)
            if quiet and cold and condition(last):
                break
            await trio.sleep(0.1)
    return last


async def _check_agents(gateway: RunningGateway) -> int:
    """Nothing is in flight any more; how many workers have failed."""
    agents = (await gateway.client.get("/agents")).json()["agents"]
    assert not any(one["in_flight"] or one["waiting"] for one in agents), agents
    return sum(one["failures"] for one in agents)


def _check(
    accounts: Accounts,
    before: Footprint,
    after: Footprint,
    figures: Figures,
    log: list[str],
) -> None:
    assert not accounts.wrongs, "\n".join(accounts.wrongs[:50])
    assert accounts.outcomes.total() == accounts.asked, "a request without an outcome, or with two"
    assert after == before, f"left behind: {after}, and before there were {before}"
    grown = figures.resident[1] - figures.resident[0]
    assert grown <= MEMORY_BOUND, f"the gateway has grown by {grown} bytes"
    defects = [line for line in log if "internal error" in line or "Traceback" in line]
    assert not defects, "\n".join(defects[:20])
    assert figures.slowest < REQUEST_SECONDS


def _memory(gateway: RunningGateway, key: str) -> int:
    for line in Path(f"/proc/{gateway.pid}/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no {key}")


def _end_of_log(gateway: RunningGateway) -> str:
    return "\n".join(gateway.log[-50:])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=None, help="[default: another each time]")
    parser.add_argument("--sandbox", choices=["strict", "off"], default=LEVEL)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    print(f"seed {seed}, sandbox {options.sandbox}", flush=True)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        # Agents may run as another user, and look into a folder below this one.
        Path(folder).chmod(0o755)

        async def run() -> None:
            await soak(
                seconds=options.seconds, seed=seed, folder=Path(folder), level=options.sandbox
            )

        trio.run(run)
    print("ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
