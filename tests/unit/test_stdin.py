"""What leaves for a worker: in order, whole, together where it can, and counted."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from gateway import turns
from gateway.workers.stdin import PIPE_BYTES, StdinWriter
from tests.unit.link_scene import FakeProcess


class Scene:
    def __init__(self, nursery: trio.Nursery) -> None:
        self.process = FakeProcess()
        self.closed = 0
        self.stdin = StdinWriter(self.process, nursery, self._note_closed)

    def _note_closed(self) -> None:
        self.closed += 1

    def write(self, *parts: bytes, may_wait: bool = False) -> None:
        self.stdin.write(parts, sum(map(len, parts)), may_wait=may_wait)

    async def read(self, count: int) -> bytes:
        """What the worker reads, a little at a time."""
        data = b""
        while len(data) < count:
            await trio.lowlevel.wait_readable(self.process.their_stdin)
            data += os.read(self.process.their_stdin, 50_000)
        return data


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    async with trio.open_nursery() as nursery:
        s = Scene(nursery)
        yield s
        nursery.cancel_scope.cancel()
    s.process.close()


async def test_a_line_leaves_at_once() -> None:
    async with scene() as s:
        s.write(b"one\n")
        assert s.process.was_told() == b"one\n"


async def test_the_lines_of_a_corked_block_leave_together_at_its_end() -> None:
    async with scene() as s:
        with s.stdin.corked():
            s.write(b"one\n")
            s.write(b"two", b"\n")
            assert s.process.unread_input() == 0
            assert s.stdin.look_at_taken() == 0
        assert s.process.was_told() == b"one\ntwo\n"
        assert s.stdin.look_at_taken() == s.stdin.sent


async def test_a_worker_that_reads_slowly_gets_every_part_in_its_order() -> None:
    parts = [bytes([65 + number % 26]) * (1 + 97 * number) for number in range(200)]
    expected = b"".join(parts)
    async with scene() as s:
        with s.stdin.corked():
            for part in parts[:150]:
                s.write(part)
        assert s.process.unread_input() >= PIPE_BYTES
        with s.stdin.corked():  # while a task is writing the rest
            s.write(*parts[150:160])
        for part in parts[160:]:
            s.write(part)
        assert await s.read(len(expected)) == expected
        assert s.stdin.look_at_taken() == s.stdin.sent == len(expected)


async def test_a_worker_that_closes_its_stdin_is_reported_for_each_line_that_it_does_not_get() -> (
    None
):
    async with scene() as s:
        os.close(s.process.their_stdin)
        s.process.their_stdin = os.open(os.devnull, os.O_RDONLY)
        with s.stdin.corked():
            s.write(b"one\n")
            assert s.closed == 0
        assert s.closed == 1
        s.write(b"two\n")
        assert s.closed == 2


async def test_lines_that_may_wait_leave_together_at_the_end_of_the_turn_and_in_order() -> None:
    with turns.kept():
        async with scene() as s:
            s.write(b"one\n", may_wait=True)
            s.write(b"two\n", may_wait=True)
            s.write(b"three\n")
            with s.stdin.corked():
                s.write(b"four\n")
            assert s.process.unread_input() == 0
            assert s.stdin.look_at_taken() == 0
            await trio.lowlevel.checkpoint()
            assert s.process.was_told() == b"one\ntwo\nthree\nfour\n"
            s.write(b"five\n")
            assert s.process.was_told() == b"five\n"


async def test_what_the_pipe_does_not_take_at_the_end_of_a_turn_is_written_later() -> None:
    line = b"x" * (PIPE_BYTES - 1) + b"\n"
    with turns.kept():
        async with scene() as s:
            for _ in range(40):
                s.write(line, may_wait=True)
            await trio.lowlevel.checkpoint()
            assert s.process.unread_input() >= PIPE_BYTES
            s.write(b"last\n", may_wait=True)
            assert await s.read(40 * len(line) + 5) == 40 * line + b"last\n"


async def test_a_stdin_that_was_closed_is_reported_after_the_turn() -> None:
    with turns.kept():
        async with scene() as s:
            os.close(s.process.their_stdin)
            s.process.their_stdin = os.open(os.devnull, os.O_RDONLY)
            s.write(b"one\n", may_wait=True)
            s.write(b"two\n", may_wait=True)
            assert s.closed == 0
            while not s.closed:  # no other task runs: nothing but the report itself ends the wait
                await trio.lowlevel.checkpoint()
            assert s.closed == 1


async def test_a_worker_that_ends_in_the_turn_of_a_line_that_waits_disturbs_nobody() -> None:
    with turns.kept():
        async with scene() as s:
            os.close(s.process.their_stdin)
            s.process.their_stdin = os.open(os.devnull, os.O_RDONLY)
            s.write(b"one\n", may_wait=True)
        for _ in range(5):
            await trio.lowlevel.checkpoint()
        assert s.closed == 0
