"""What agents and clients can make the gateway hold, as the README promises it."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from gateway.exchange import MAX_HELD_PER_REQUEST
from gateway.front.connections import MAX_HELD_PER_CONNECTION
from gateway.front.http1 import MAX_AHEAD_BYTES, MAX_HEAD_BYTES
from gateway.workers.process import MAX_HELD_PER_WORKER
from tests.faults.scene import (
    PATIENCE,
    agent,
    ask,
    back_to,
    footprint,
    only_worker,
    open_request,
    pause,
    read_until,
    scene,
    served_by,
    until_state,
)
from tests.harness import RunningGateway

MiB = 1024 * 1024


def memory(gateway: RunningGateway, kind: str) -> int:
    """The gateway's resident memory now (`VmRSS`) or at its highest (`VmHWM`), in bytes."""
    for line in Path(f"/proc/{gateway.pid}/status").read_text().splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no {kind}")


async def until_served(gateway: RunningGateway, requests: int) -> None:
    """Wait until the only worker of `bad` has answered so many, of which nobody may have read one:
    60 MB are escaped, and go through pipes."""
    await until_state(
        gateway, "bad", lambda state: only_worker(state)["served"] >= requests, 3 * PATIENCE
    )


async def test_empty_chunks_for_many_answers_of_one_worker_are_not_kept_as_objects(
    tmp_path: Path,
) -> None:
    """2.4 million chunks, which would be more than 130 MiB."""
    requests, chunks = 8, 300_000
    bad = agent("weigh.py", str(requests), clocks={"first": 60, "total": 120})
    async with scene(tmp_path, bad=bad) as gateway:
        await served_by(gateway, "good")
        await ask(gateway, "bad", {"large": 1000})
        before = memory(gateway, "VmRSS")
        async with trio.open_nursery() as nursery:

            async def one() -> None:
                answer = await ask(gateway, "bad", {"empty": chunks})
                assert (answer.status_code, answer.json()) == (200, {"output": ""})

            for _ in range(requests):
                nursery.start_soon(one)
        assert memory(gateway, "VmHWM") - before < 32 * MiB


async def test_large_answers_that_nobody_reads_are_held_once_and_for_their_own_clock_only(
    tmp_path: Path,
) -> None:
    """A neighbour may leave its clients more time; that is no time for these. The control is a
    client of that neighbour's, who reads all of its answer afterwards."""
    clients, size = 16, 7_000_000
    bad = agent("weigh.py", clocks={"write": 1})
    patient = agent("weigh.py", clocks={"write": "off"})
    async with (
        scene(tmp_path, bad=bad, patient=patient) as gateway,
        AsyncExitStack() as neighbours,
    ):
        await served_by(gateway, "good")
        await ask(gateway, "bad", {"large": 1000})
        await ask(gateway, "patient", {"large": 1000})
        before = memory(gateway, "VmRSS")
        kept = await neighbours.enter_async_context(
            open_request(gateway, "patient", {"large": size})
        )
        await until_state(gateway, "patient", lambda state: only_worker(state)["served"] == 2)
        descriptors = footprint(gateway)
        for round_ in (1, 2):  # the second one takes the room of the first
            async with AsyncExitStack() as unread:
                for _ in range(clients):
                    connection = open_request(gateway, "bad", {"large": size})
                    await unread.enter_async_context(connection)
                await until_served(gateway, 1 + round_ * clients)
                await back_to(gateway, descriptors)  # the clients are still there
            assert memory(gateway, "VmHWM") - before < (clients + 1) * size + 40 * MiB
        assert len(await read_until(kept, b'"}')) > size
        await served_by(gateway, "good")


async def test_the_large_answer_of_a_run_is_held_once_for_all_who_do_not_read_it(
    tmp_path: Path,
) -> None:
    """Asked for in each of the ways in which it is shown."""
    clients, size = 16, 7_000_000
    bad = agent("weigh.py", clocks={"write": "off"})
    async with scene(tmp_path, bad=bad) as gateway, AsyncExitStack() as unread:
        await served_by(gateway, "good")
        started = await ask(gateway, "bad", {"large": size}, prefer="respond-async")
        path = started.headers["location"]
        with trio.fail_after(PATIENCE):
            while (await gateway.client.head(path)).headers.get("retry-after"):
                await pause()
        before = memory(gateway, "VmRSS")
        for number in range(clients):
            connection = await trio.open_tcp_stream("127.0.0.1", gateway.port)
            await unread.enter_async_context(connection)
            accept = ("application/json", "text/event-stream")[number % 2]
            head = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: {accept}\r\n\r\n"
            await connection.send_all(head.encode())
            # What follows the head is the answer: it is on its way.
            await read_until(connection, b'"body":')
        await served_by(gateway, "good")
        assert memory(gateway, "VmHWM") - before < 2 * size + clients * MAX_HELD_PER_CONNECTION


@pytest.mark.parametrize("between", ["", "\r"], ids=["as it came", "changed for one line"])
async def test_a_large_body_and_a_large_unread_answer_are_held_within_the_bound_together(
    between: str, tmp_path: Path
) -> None:
    """A line that had to be changed is a copy of the body."""
    clients, size = 8, 7_000_000
    bad = agent("weigh.py", clocks={"write": "off"})
    async with scene(tmp_path, bad=bad) as gateway, AsyncExitStack() as unread:
        await served_by(gateway, "good")
        await ask(gateway, "bad", {"large": 1000})
        before = memory(gateway, "VmRSS")
        wish = {"large": size, "pad": "y" * size}
        for _ in range(clients):
            connection = open_request(gateway, "bad", wish, between=between)
            await unread.enter_async_context(connection)
        await until_served(gateway, 1 + clients)
        held = memory(gateway, "VmHWM") - before
        await served_by(gateway, "good")
    # The control: the bound is not so high that nothing could come near.
    assert clients * size < held < clients * (MAX_HELD_PER_REQUEST + MAX_HELD_PER_CONNECTION)


async def test_a_large_answer_to_a_body_that_its_worker_has_not_read_is_held_within_the_bound(
    tmp_path: Path,
) -> None:
    bad = agent("answer_at_once.py", clocks={"write": "off", "stop": 0.2})
    async with scene(tmp_path, bad=bad) as gateway:
        await served_by(gateway, "good")
        before = memory(gateway, "VmRSS")
        wish = ["", "y" * 7_000_000]
        async with open_request(gateway, "bad", wish, between="\r") as connection:
            await read_until(connection, b'{"output":"xxx')
            await gateway.logged("has answered")
            held = memory(gateway, "VmHWM") - before
        await served_by(gateway, "good")
    most = MAX_HELD_PER_REQUEST + MAX_HELD_PER_WORKER + MAX_HELD_PER_CONNECTION
    assert 14_000_000 < held < most


@pytest.mark.parametrize(
    ("text", "times", "most"),
    [
        ("", 1, 8 * MiB),
        ("word ", 1, 8 * MiB),
        ("x", 8_000_000, MAX_HELD_PER_REQUEST),
        ("\u2028", 1_300_000, MAX_HELD_PER_REQUEST),  # the agent escapes each, in six bytes
    ],
)
async def test_a_stream_that_nobody_reads_is_held_within_the_bound(
    text: str, times: int, most: int, tmp_path: Path
) -> None:
    """The rest of the most is what decodes a line, what a worker has begun to say, and a part of a
    line that was freed, which the allocator keeps where something small lies behind it."""
    bad = agent("weigh.py", clocks={"write": 1, "cancel": 0.2})
    async with scene(tmp_path, bad=bad) as gateway:
        await served_by(gateway, "good")
        await ask(gateway, "bad", {"large": 1000})
        before = memory(gateway, "VmRSS")
        wish = {"flood": text, "times": times}
        async with open_request(gateway, "bad", wish, stream=True):
            await gateway.logged("504 timeout: .*waiting for the client to read")
            held = memory(gateway, "VmHWM") - before
        assert held < most + (times > 1) * (MAX_HELD_PER_WORKER + 12 * MiB)


@pytest.mark.parametrize(("size", "most"), [(0, 8 * MiB), (1_000_000, MAX_HELD_PER_REQUEST)])
async def test_a_stream_of_events_that_nobody_reads_is_held_within_the_bound(
    size: int, most: int, tmp_path: Path
) -> None:
    bad = agent("weigh.py", clocks={"write": 1, "cancel": 0.2, "stop": 0.2})
    async with scene(tmp_path, bad=bad) as gateway:
        await served_by(gateway, "good")
        await ask(gateway, "bad", {"large": 1000})
        before = memory(gateway, "VmRSS")
        wish = {"thoughts": size}
        async with open_request(gateway, "bad", wish, stream=True, events=True):
            await gateway.logged("504 timeout: .*waiting for the client to read")
            held = memory(gateway, "VmHWM") - before
        assert held < most


async def test_events_for_one_answer_are_an_error_before_they_are_too_many(tmp_path: Path) -> None:
    bad = agent("weigh.py", clocks={"cancel": 0.2, "stop": 0.2})
    async with scene(tmp_path, bad=bad) as gateway:
        await served_by(gateway, "good")
        before = memory(gateway, "VmRSS")
        async with open_request(gateway, "bad", {"thoughts": 0}, events=True) as connection:
            answer = await read_until(connection, b"ask for them with")
        assert b" 502 " in answer
        assert memory(gateway, "VmHWM") - before < MAX_HELD_PER_REQUEST


@pytest.mark.parametrize("stream", [False, True])
async def test_a_large_event_and_a_large_result_are_held_within_the_bound_together(
    stream: bool, tmp_path: Path
) -> None:
    """Every character of the result has to be escaped once more as the chunk of a stream."""
    clients = 4
    # A stream that is too slow for the others is cancelled while the worker writes its megabytes.
    bad = agent("weigh.py", clocks={"write": "off", "cancel": "off", "stop": 0.2})
    async with scene(tmp_path, bad=bad) as gateway, AsyncExitStack() as unread:
        await served_by(gateway, "good")
        await ask(gateway, "bad", {"large": 1000})
        before = memory(gateway, "VmRSS")
        wish = {"file": 4_000_000, "result": 2_000_000}
        if stream:
            wish = {"file": 7_000_000, "result": 3_500_000}
        for _ in range(clients):
            connection = open_request(gateway, "bad", wish, stream=stream, events=True)
            await unread.enter_async_context(connection)
        await until_served(gateway, 1 + clients)
        held = memory(gateway, "VmHWM") - before
        await served_by(gateway, "good")
    most = clients * (MAX_HELD_PER_REQUEST + MAX_HELD_PER_CONNECTION) + MAX_HELD_PER_WORKER
    assert clients * 4_000_000 < held < most


async def test_connections_are_held_within_the_bound(tmp_path: Path) -> None:
    """Half of them with a head that has no end, half with as much as is kept behind a request."""
    hold = agent("hold.py")
    half = 30
    async with scene(tmp_path, hold=hold) as gateway, AsyncExitStack() as open_:
        await served_by(gateway, "good")
        before = memory(gateway, "VmRSS")
        for number in range(half):
            behind = await open_.enter_async_context(open_request(gateway, "hold", "hold"))
            await behind.send_all(b"x" * MAX_AHEAD_BYTES)
            await gateway.logged(f"holds {number + 1}")
            in_head = await trio.open_tcp_stream("127.0.0.1", gateway.port)
            await open_.enter_async_context(in_head)
            await in_head.send_all(b"GET / HTTP/1.1\r\nx: " + b"x" * (MAX_HEAD_BYTES - 100))
        with trio.fail_after(PATIENCE):  # until most of it has been read
            while memory(gateway, "VmRSS") - before < half * MAX_AHEAD_BYTES / 2:
                await gateway.state("good")
        await served_by(gateway, "good")
        held = memory(gateway, "VmHWM") - before
        assert held < 2 * half * MAX_HELD_PER_CONNECTION


async def test_a_message_of_megabytes_is_neither_in_the_error_nor_in_the_log(
    tmp_path: Path,
) -> None:
    """Nor in the agent's status."""
    bad = agent("complain.py")
    async with scene(tmp_path, bad=bad) as gateway:
        answer = await ask(gateway, "bad", "fault")
        assert answer.status_code == 500
        assert len(answer.content) < 8192
        assert answer.json()["error"]["message"].startswith("it is the xxx")
        assert answer.json()["error"]["message"].endswith("xxx end")
        line = await gateway.logged("500 agent_error")
        assert len(line) < 8192


async def test_a_worker_that_declares_too_much_is_told_so(tmp_path: Path) -> None:
    bad = agent("complain.py", "4000000")
    async with scene(tmp_path, bad=bad) as gateway:
        await gateway.logged(
            "protocol violation: 4000009 bytes in ready's metadata, expected at most 65536"
        )
        state = await gateway.client.get("/agent/bad")
        assert len(state.content) < 16 * 1024
        await served_by(gateway, "good")
