"""How a worker ends, and what it does when the gateway does not read."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest
import trio

from protocol import Chunk, ErrorCode, Failure

from . import driver
from .conftest import Serve

ENDLESS = """
    agent = Agent("a", concurrency=4)
    yielded = 0
    @agent.chat
    {prefix}def stream(messages):
        global yielded
        try:
            while True:
                yielded += 1
                yield "x" * 100
        finally:
            print("tidied up")
    @agent.invoke
    async def count(input):
        print(f"count {{input}} is {{yielded}}.")
"""

LINE = len('{"jsonrpc":"2.0","method":"chunk","params":{"id":1,"chunk":""}}\n') + 100
PIPE = 64 * 1024
HIGH_WATER = 96 * 1024


async def test_the_end_of_stdin_lets_what_runs_and_waits_finish(serve: Serve) -> None:
    source = """
        agent = Agent("a", concurrency=2)
        go = threading.Event()
        ended = threading.Event()
        @agent.invoke
        async def slow(input):
            while not os.path.exists("go"):
                await anyio.sleep(0.001)
            return input
        @agent.chat
        def slow_in_thread(messages):
            while not os.path.exists("go"):
                time.sleep(0.001)
            return "done"
    """
    async with serve(source) as worker:
        worker.ignore_declared_concurrency()
        first = await worker.send_invoke("first")
        second = await worker.send_chat([])
        third = await worker.send_invoke("third")
        await worker.close_stdin()
        await trio.run_process(["touch", "go"], cwd=worker.cwd)
        answers = await worker.answers(first, second, third)
        assert answers[first].value == "first"
        assert answers[second].value["content"] == "done"
        assert answers[third].value == "third"
        assert await worker.process.wait() == 0


async def test_the_thread_of_a_cancelled_request_does_not_keep_the_worker(serve: Serve) -> None:
    source = """
        agent = Agent("a")
        @agent.invoke
        def forever(input):
            print("begun")
            threading.Event().wait()
    """
    async with serve(source) as worker:
        request = await worker.send_invoke()
        await worker.said_on_stderr("begun")
        await worker.cancel(request)
        assert await worker.finish() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_cancels_what_runs_and_ends_the_worker(serve: Serve, number: int) -> None:
    source = """
        agent = Agent("a")
        @agent.invoke
        async def wait(input):
            try:
                print(f"begun {input}\\n", end="")  # at once, as threads print too
                await anyio.sleep_forever()
            finally:
                print("tidied up")
        @agent.chat
        def forever(messages):
            print("begun in a thread\\n", end="")
            threading.Event().wait()
    """
    async with serve(source) as worker:
        running = await worker.send_invoke(1)
        await worker.send_chat([])
        await worker.said_on_stderr("begun 1")
        await worker.said_on_stderr("begun in a thread")
        os.kill(worker.process.pid, number)
        failure = await worker.next_event()
        assert isinstance(failure, Failure)
        assert (failure.id, failure.code) == (running, ErrorCode.CANCELLED)
        assert await worker.process.wait() == 128 + number
        await worker.said_on_stderr("tidied up")
        assert "Traceback" not in worker.stderr


async def test_a_second_signal_ends_a_worker_that_refuses_to_be_cancelled(serve: Serve) -> None:
    source = """
        agent = Agent("a")
        @agent.invoke
        async def refuse(input):
            with anyio.CancelScope(shield=True):
                print("begun")
                await anyio.sleep_forever()
        @agent.chat
        async def agree(messages):
            await anyio.sleep_forever()
    """
    async with serve(source) as worker:
        await worker.send_invoke()
        agreeing = await worker.send_chat([])
        await worker.said_on_stderr("begun")
        os.kill(worker.process.pid, signal.SIGTERM)
        failure = await worker.next_event()
        assert isinstance(failure, Failure)
        assert failure.id == agreeing
        os.kill(worker.process.pid, signal.SIGTERM)
        assert await worker.process.wait() == 128 + signal.SIGTERM


async def test_sigterm_ends_a_worker_whose_output_nobody_reads(serve: Serve) -> None:
    async with serve(ENDLESS.format(prefix="async ")) as worker:
        await worker.send_chat([])
        assert isinstance(await worker.next_event(), Chunk)
        os.kill(worker.process.pid, signal.SIGTERM)
        assert await worker.process.wait() == 128 + signal.SIGTERM
        await worker.said_on_stderr("tidied up")


@pytest.mark.parametrize("prefix", ["", "async "])
async def test_a_gateway_that_closes_stdout_ends_the_worker(serve: Serve, prefix: str) -> None:
    async with serve(ENDLESS.format(prefix=prefix)) as worker:
        await worker.send_chat([])
        assert isinstance(await worker.next_event(), Chunk)
        assert worker.process.stdout is not None
        await worker.process.stdout.aclose()
        assert await worker.process.wait() == 1


async def test_a_line_that_is_no_message_ends_the_worker_and_is_logged(serve: Serve) -> None:
    source = """
        agent = Agent("a")
        @agent.invoke
        async def wait(input):
            try:
                print("begun")
                await anyio.sleep_forever()
            finally:
                print("tidied up")
    """
    async with serve(source) as worker:
        await worker.send_invoke()
        await worker.said_on_stderr("begun")
        assert worker.process.stdin is not None
        await worker.process.stdin.send_all(b"this is no JSON\n")
        assert await worker.process.wait() == 1
        await worker.said_on_stderr("this is no JSON")
        await worker.said_on_stderr("tidied up")


@pytest.mark.parametrize("prefix", ["", "async "])
async def test_output_that_nobody_reads_suspends_generators(serve: Serve, prefix: str) -> None:
    async with serve(ENDLESS.format(prefix=prefix)) as worker:
        worker.ignore_declared_concurrency()  # nothing that it answers can be read here
        await worker.send_chat([])
        before, now, asked = -1, 0, 0
        # It stands still when two counts in a row are the same, once the pipe is full; its pages
        # need not all be full then.
        while before != now or now < (PIPE // 2 + HIGH_WATER) // LINE:
            asked += 1
            await worker.send_invoke(asked)
            await worker.said_on_stderr(f"count {asked} is ")
            before, now = now, int(worker.stderr.rpartition(" is ")[2].partition(".")[0])
        assert now <= (PIPE + HIGH_WATER) // LINE + 2


@pytest.mark.parametrize("prefix", ["", "async "])
async def test_a_suspended_generator_goes_on_when_it_is_read_and_can_be_cancelled(
    serve: Serve, prefix: str
) -> None:
    async with serve(ENDLESS.format(prefix=prefix)) as worker:
        request = await worker.send_chat([])
        for _ in range(10 * (PIPE + HIGH_WATER) // LINE):
            assert isinstance(await worker.next_event(), Chunk)
        await worker.cancel(request)
        assert (await worker.answer(request)).failure[0] == ErrorCode.CANCELLED
        assert await worker.finish() == 0


@pytest.mark.parametrize("prefix", ["", "async "])
async def test_a_suspended_generator_can_be_cancelled_before_anything_is_read(
    serve: Serve, prefix: str
) -> None:
    async with serve(ENDLESS.format(prefix=prefix)) as worker:
        request = await worker.send_chat([])
        # It fills the pipe: more comes than a read of it takes.
        await worker.cancel(request)
        assert (await worker.answer(request)).failure[0] == ErrorCode.CANCELLED


async def test_chunks_that_are_yielded_together_leave_in_one_write(
    tmp_path: Path, backend: str
) -> None:
    agent = tmp_path / "agent.py"
    agent.write_text(
        "from worker import Agent\n"
        "agent = Agent('a')\n"
        "@agent.invoke\n"
        "async def burst(input):\n"
        "    for i in range(100):\n"
        "        yield str(i)\n"
    )
    # A socket of this type keeps the boundaries of writes.
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        process = await trio.lowlevel.open_process(
            driver.sdk(f"{agent}:agent", backend=backend), stdin=subprocess.PIPE, stdout=theirs
        )
        theirs.close()
        assert process.stdin is not None
        reader = trio.socket.from_stdlib_socket(ours)
        assert b'"ready"' in await reader.recv(1 << 20)
        await process.stdin.send_all(b'{"id":1,"method":"invoke","params":{"input":0}}\n')
        assert (await reader.recv(1 << 20)).count(b"\n") >= 100
        await process.stdin.aclose()
        assert await process.wait() == 0
