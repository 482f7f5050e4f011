"""Workers that write too much, and clients that read or send too little."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import trio

from tests.faults.scene import (
    PATIENCE,
    agent,
    back_to,
    footprint,
    open_request,
    pause,
    read_until,
    scene,
    served_by,
    until_state,
    worker_pid,
)
from tests.harness import RunningGateway, gone

MiB = 1024 * 1024


def resident(gateway: RunningGateway) -> int:
    """The gateway's resident memory, in bytes."""
    for line in Path(f"/proc/{gateway.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


async def test_a_flood_of_stderr_is_drained_bounded_in_the_log_and_slows_nobody_down_to_a_clock(
    level: str, tmp_path: Path
) -> None:
    bad = agent("flood_stderr.py", clocks={"total": 5})
    async with scene(tmp_path, level=level, bad=bad) as gateway:
        for nonce in range(30):
            await served_by(gateway, "bad", nonce)
            await served_by(gateway, "good", nonce)
        await gateway.logged("lines were left out")
        flood = [line for line in gateway.log if "flood, line" in line]
        left_out = sum(
            int(line.split(" lines were left out")[0].split()[-1])
            for line in gateway.log
            if "lines were left out" in line
        )
        assert left_out > 10 * len(flood), "most of it is not in the log"


async def test_a_client_that_does_not_read_costs_bounded_memory_and_its_own_stream_only(
    tmp_path: Path,
) -> None:
    bad = agent(
        "flood_stdout.py", clocks={"write": 0.5, "cancel": 0.2, "total": 60}, workers={"max": 2}
    )
    async with scene(tmp_path, bad=bad) as gateway:
        await served_by(gateway, "good")
        pid = await worker_pid(gateway, "bad")
        before = resident(gateway)
        async with open_request(gateway, "bad", "fault", stream=True):
            await gateway.logged("504 timeout: .*waiting for the client to read.*'write' clock")
            assert resident(gateway) - before < 32 * MiB
            # Its worker ignores the cancel, and is replaced.
            assert await gone(pid)
            await served_by(gateway, "bad")
            await served_by(gateway, "good")


async def test_a_client_that_does_not_read_does_not_hold_up_the_others_on_its_worker(
    tmp_path: Path,
) -> None:
    """All requests are on one worker, whose output is still read for the others."""
    bad = agent("flood_some.py", clocks={"write": 60, "total": 60})
    async with scene(tmp_path, bad=bad) as gateway:
        worker = await served_by(gateway, "bad")
        await until_state(gateway, "bad", lambda state: state["in_flight"] == 0)
        async with open_request(gateway, "bad", "hold") as held:
            await gateway.logged("holds 1")
            async with open_request(gateway, "bad", "flood", stream=True) as slow:
                await gateway.logged("has flooded")
                assert await served_by(gateway, "bad", "release") == worker
                assert b'"input": "hold"' in await read_until(held, b"}}")
                # The stream that nobody reads was ended, and says so.
                data = await read_until(slow, b"event: error")
                assert b"[DONE]" not in data


async def test_clients_that_say_half_or_nothing_hold_no_worker(tmp_path: Path) -> None:
    async with scene(tmp_path) as gateway:
        await served_by(gateway, "good")
        before = footprint(gateway)
        async with AsyncExitStack() as clients:
            for number in range(50):
                connection = await trio.open_tcp_stream("127.0.0.1", gateway.port)
                await clients.enter_async_context(connection)
                if number % 2:
                    await connection.send_all(
                        b"POST /agent/good/invoke HTTP/1.1\r\nhost: localhost\r\n"
                        b'content-type: application/json\r\ncontent-length: 20\r\n\r\n{"input"'
                    )
            for nonce in range(10):
                await served_by(gateway, "good", nonce)
            state = await gateway.state("good")
            assert (state["in_flight"], state["waiting"]) == (0, 0)
        with trio.fail_after(PATIENCE + 20):  # idle ones may stay for the keep-alive time
            while footprint(gateway) != before:
                await pause()
                await gateway.state("good")
        await back_to(gateway, before)


async def test_an_idle_connection_that_its_client_closes_is_closed_at_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as gateway:
        await served_by(gateway, "good")
        before = footprint(gateway)
        async with open_request(gateway, "good", "hello") as connection:
            await read_until(connection, b"}}")
            await served_by(gateway, "good")  # by then the other response is over, too
        with trio.fail_after(5):
            while footprint(gateway) != before:
                await pause()
                await gateway.state("good")
