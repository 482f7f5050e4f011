"""The log's way out: nobody who logs waits for it, and what is dropped is counted."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator

import pytest

from gateway.observe import log_writer
from gateway.observe.log_writer import LogWriter

from .pipes import Pipe


def notice(count: int) -> bytes:
    return b"dropped count=%d\n" % count


PATIENCE = 20
"""Seconds for what takes microseconds."""

SIZE = 4096
"""Bytes that the pipe holds, the least that the kernel allows."""


@pytest.fixture
def pipe(pipe: Pipe) -> Pipe:
    assert fcntl.fcntl(pipe.writer, fcntl.F_SETPIPE_SZ, SIZE) == SIZE
    return pipe


@pytest.fixture
def full_disk() -> Iterator[int]:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    yield descriptor
    os.close(descriptor)


def fill(writer: LogWriter, pipe: Pipe) -> int:
    """Log until lines are dropped, while nobody reads; how many lines were not dropped."""
    kept = 0
    while "0 dropped" in repr(writer):
        kept += 1
        writer.write(b"%07d\n" % kept)
    return kept - 1


def test_lines_are_written_in_their_order(pipe: Pipe) -> None:
    writer = LogWriter(pipe.writer, notice)
    for number in range(100):
        writer.write(b"%d\n" % number)
    assert writer.flush(PATIENCE)
    assert pipe.read_until(rb"\n99\n").split() == [b"%d" % number for number in range(100)]


def test_nobody_reads_and_nobody_waits_and_what_was_dropped_is_counted(pipe: Pipe) -> None:
    writer = LogWriter(pipe.writer, notice)
    kept = fill(writer, pipe)
    # What is queued, and what the thread has taken.
    assert kept <= 2 * log_writer.MAX_LINES + SIZE // 8
    for _ in range(9):
        writer.write(b"one too many\n")
    assert not writer.flush(0)
    data = pipe.read(kept * 8)
    assert data.split() == [b"%07d" % (number + 1) for number in range(kept)]
    assert b"count=10\n" in pipe.read_until(rb"count=\d+\n")
    writer.write(b"as before\n")
    assert pipe.read_until(rb"before\n") == b"as before\n"


def test_what_waits_is_bounded_in_bytes_too(pipe: Pipe) -> None:
    writer = LogWriter(pipe.writer, notice)
    large = b"x" * (log_writer.MAX_BYTES // 4) + b"\n"
    for _ in range(20):
        writer.write(large)
    # Four times a quarter and its line feed do not fit. Some were taken by the thread.
    assert "<LogWriter 3 queued" in repr(writer)
    dropped = int(re.findall(rb"count=(\d+)", pipe.read_until(rb"count=\d+\n"))[0])
    assert 10 < dropped < 20


def test_a_disk_that_is_full_drops_lines_and_one_that_is_no_longer_says_how_many(
    full_disk: int, pipe: Pipe
) -> None:
    writer = LogWriter(full_disk, notice)
    for _ in range(3):
        writer.write(b"lost\n")
        assert writer.flush(PATIENCE)
    assert repr(writer) == "<LogWriter 0 queued, 3 dropped>"
    os.dup2(pipe.writer, full_disk)
    writer.write(b"written\n")
    first, told = pipe.read_until(rb"count=\d+\n").splitlines()
    assert first == b"written"
    assert told == b"dropped count=3"


def test_a_reader_that_has_left_ends_nothing(pipe: Pipe) -> None:
    writer = LogWriter(pipe.writer, notice)
    pipe.close_reader()
    writer.write(b"lost\n")
    assert writer.flush(PATIENCE)
    assert repr(writer) == "<LogWriter 0 queued, 1 dropped>"


def test_a_line_of_which_a_part_was_written_is_ended_before_the_next(pipe: Pipe) -> None:
    writer = LogWriter(pipe.writer, notice)
    writer.write(b"x" * (2 * SIZE) + b"\n")
    assert pipe.read(1) == b"x"
    pipe.close_reader()
    assert writer.flush(PATIENCE)
    again = Pipe()
    os.dup2(again.writer, pipe.writer)
    writer.write(b"whole\n")
    assert again.read_until(rb"count=1\n").startswith(b"\nwhole\n")
    again.close()


def test_a_descriptor_that_somebody_made_non_blocking_loses_nothing(pipe: Pipe) -> None:
    os.set_blocking(pipe.writer, False)
    writer = LogWriter(pipe.writer, notice)
    writer.write(b"x" * (3 * SIZE) + b"\n")
    assert len(pipe.read_until(rb"\n")) == 3 * SIZE + 1
    assert writer.flush(PATIENCE)
    assert "0 dropped" in repr(writer)


@pytest.fixture
def resting(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> LogWriter:
    """A writer that has written a line, and rests for longer than any test takes."""
    monkeypatch.setattr(log_writer, "REST_SECONDS", 1000 * PATIENCE)
    writer = LogWriter(pipe.writer, notice)
    writer.write(b"at once\n", urgent=False)
    assert pipe.read_until(rb"\n") == b"at once\n"
    writer.write(b"later\n", urgent=False)
    return writer


def test_lines_that_follow_soon_wait_for_one_another_until_one_is_urgent(
    resting: LogWriter, pipe: Pipe
) -> None:
    resting.write(b"much later\n", urgent=False)
    assert "2 queued" in repr(resting)
    resting.write(b"now\n")
    assert pipe.read_until(rb"now\n") == b"later\nmuch later\nnow\n"


def test_nothing_rests_when_all_lines_are_to_be_written(resting: LogWriter, pipe: Pipe) -> None:
    assert resting.flush(PATIENCE)
    assert pipe.read_until(rb"\n") == b"later\n"


@pytest.mark.parametrize(
    "lines", [[b"\n"] * log_writer.MANY, [b"x" * log_writer.MUCH + b"\n"]], ids=["lines", "bytes"]
)
def test_what_would_fill_the_queue_does_not_wait(
    resting: LogWriter, pipe: Pipe, lines: list[bytes]
) -> None:
    for line in lines:
        resting.write(line, urgent=False)
    # The last of them may come one rest later, as the thread may have begun to write before it.
    most = sum(map(len, lines)) // 2
    assert pipe.read(most).startswith(b"later\n")
    # All is read before the pipe is closed: its descriptor is the next test's pipe.
    resting.flush(0)
    pipe.read(len(b"later\n") + sum(map(len, lines)) - most)


def test_a_line_does_not_rest_for_ever(pipe: Pipe) -> None:
    writer = LogWriter(pipe.writer, notice)
    for number in range(10):
        writer.write(b"%d\n" % number, urgent=False)
        assert pipe.read_until(rb"\n") == b"%d\n" % number
