"""Connections that carry anything: mutated requests, in pieces, with an end of any kind.

Nothing that a client sends may end the gateway, leave a traceback in its log, be answered with a
500, or leave a descriptor, a request or memory behind. Every case is made from its number, so that
one that fails can be run alone: `play(port, number)`.
"""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET

import trio

from tests.harness import running_gateway
from tests.http.conftest import SCRIPTED
from tests.http.raw import SECONDS, becomes, connected

CASES = 1000
"""About ten seconds."""

AT_ONCE = 16

MEMORY_BYTES = 24 * 1024 * 1024
"""By which the gateway may grow: the allocator keeps what the first connections have freed."""

JSON = b'{"input": 1}'
STREAM = b'{"input": [["say", "a"], ["say", "b"], ["end"]], "stream": true}'
LEFT = b'{"input": [["say", "a"], ["hold"]], "stream": true}'


def post(path: bytes, body: bytes, *headers: bytes) -> bytes:
    lines = [
        b"POST %b HTTP/1.1" % path,
        b"Host: localhost",
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(body),
        *headers,
        b"",
        body,
    ]
    return b"\r\n".join(lines)


def chunked(body: bytes, trailer: bytes = b"") -> bytes:
    half = len(body) // 2
    pieces = b"".join(b"%x;e=1\r\n%b\r\n" % (len(p), p) for p in (body[:half], body[half:]))
    head = post(b"/agent/scripted/invoke", b"", b"Transfer-Encoding: chunked")
    return head.replace(b"Content-Length: 0\r\n", b"") + pieces + b"0\r\n" + trailer + b"\r\n"


SEEDS = [
    b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /agents HTTP/1.0\r\nHost: localhost\r\n\r\n",
    b"HEAD /agent/scripted HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
    b"CONNECT x:1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\r\n\x81\x85\0\0\0\0hello",
    b"GET http://localhost/live?a=b HTTP/1.1\r\nHost: localhost\r\n\r\n",
    post(b"/agent/scripted/invoke", JSON),
    post(b"/agent/scripted/invoke", STREAM),
    post(b"/agents/scripted/chat", LEFT),
    post(b"/agent/scripted/invoke", LEFT, b"Upgrade: h2c") + b"\r\n",
    post(b"/agent/scripted/invoke", JSON, b"Expect: 100-continue"),
    post(b"/agent/nobody/invoke", JSON, b"Connection: close") + b"\r\n",
    post(b"/live", JSON),
    chunked(JSON),
    chunked(STREAM, b"a: b\r\n"),
]

TOKENS = [
    *(b"\r\n", b"\n", b"\r", b"\0", b" ", b":", b",", b"\xff", b"0\r\n\r\n", b"\r\n\r\n"),
    *(b"Content-Length: 5\r\n", b"Content-Length: -1\r\n", b"Content-Length: 99999999999\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n", b"Connection: close\r\n"),
    *(b"Expect: 100-continue\r\n", b"Upgrade: websocket\r\n", b"HTTP/1.0", b"HTTP/2.0", b"PRI * "),
    *(b"a: b\r\n" * 200, b"x" * 40_000, b"ffffffffffffffffffff\r\n", b"%00", b"//", b"?"),
]


def mutated(rng: random.Random) -> bytes:
    """One to three requests, most of them damaged somewhere, but seldom their Host."""
    data = b"".join(rng.choice(SEEDS) for _ in range(rng.choice([1, 1, 2, 3])))
    for _ in range(rng.choice([0, 1, 1, 2, 4])):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(5):
            case 0:
                data = data[:at] + rng.choice(TOKENS) + data[at:]
            case 1:
                data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
            case 2:
                data = data[:at] + data[at + rng.randrange(1, 20) :]
            case 3:
                data = data[:at]
            case _:
                lines = data.split(b"\r\n")
                rng.shuffle(lines)
                data = b"\r\n".join(lines)
    return re.sub(rb"(?im)^host:[^\n]*", b"Host: localhost\r", data)


async def play(port: int, number: int) -> bytes:
    """Play one case; everything that was answered."""
    rng = random.Random(number)
    data = mutated(rng)
    end = rng.choice(["eof", "eof", "close", "reset"])
    if end == "eof":  # this client stays until it has its answer
        data = data.replace(b'["hold"]', b'["end"] ')
    async with connected(port) as connection:
        with suppress(trio.BrokenResourceError):
            while data:
                size = rng.choice([1, 7, 100, 100_000])
                await connection.send(data[:size])
                data = data[size:]
            if end == "eof":
                await connection.stream.send_eof()
        if end == "eof":
            return await connection.rest()
        if end == "reset":
            linger = struct.pack("ii", 1, 0)
            connection.stream.socket.setsockopt(SOL_SOCKET, SO_LINGER, linger)
    return b""


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


async def run(numbers: range, play: Callable) -> list[tuple[int, bytes]]:
    """Play the cases, some at once; each with what was answered."""
    answers = []
    todo = iter(numbers)

    async def some() -> None:
        for number in todo:
            with trio.fail_after(SECONDS):
                answers.append((number, await play(number)))

    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(some)
    return answers


async def test_anything_may_come_over_a_connection(tmp_path: Path) -> None:
    words = ", ".join(f"'{word}'" for word in SCRIPTED)
    toml = f"""
        [server]
        log_level = "warning"
        [agents.scripted]
        command = [{words}]
        workers = {{ min = 1, max = 1 }}
    """
    async with running_gateway(toml=toml, folder=tmp_path) as gateway:
        await run(range(CASES, CASES + 200), lambda number: play(gateway.port, number))
        await gateway.state("scripted")
        descriptors, memory = gateway.descriptors(), resident(gateway.pid)

        answers = await run(range(CASES), lambda number: play(gateway.port, number))

        for number, answer in answers:
            statuses = {int(s) for s in re.findall(rb"^HTTP/1\.1 (\d{3}) ", answer, re.MULTILINE)}
            assert not statuses & {500, 502}, f"case {number}: {statuses}"
        assert sum(b"HTTP/1.1 " in answer for _, answer in answers) > CASES / 4

        async def is_free() -> bool:
            state = await gateway.state("scripted")
            return not state["in_flight"] and gateway.descriptors() <= descriptors

        await becomes(is_free)
        assert resident(gateway.pid) < memory + MEMORY_BYTES
        assert gateway.process.returncode is None
        assert not [line for line in gateway.log if "Traceback" in line or "ERROR" in line]
        assert (await gateway.post("/agent/scripted/invoke", input=1)).json() == {"output": 1}
