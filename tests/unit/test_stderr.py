"""What a worker prints on stderr: drained always, logged within bounds, harmless to a terminal."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest
import trio

from gateway.workers import stderr
from gateway.workers.stderr import StderrRelay


class Pipe:
    """A worker's stderr, held by the test."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()
        os.set_blocking(self.read_end, False)

    def write(self, data: bytes) -> None:
        assert os.write(self.write_end, data) == len(data)

    def end(self) -> None:
        os.close(self.write_end)
        self.write_end = -1

    def close(self) -> None:
        for descriptor in (self.read_end, self.write_end):
            if descriptor >= 0:
                os.close(descriptor)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, dict[str, object]]]:
    """The level, message and fields of each record."""
    records: list[tuple[str, str, dict[str, object]]] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append((record.levelname, record.getMessage(), record.fields))  # type: ignore[attr-defined]

    monkeypatch.setattr(stderr.log, "handlers", [Collect()])
    monkeypatch.setattr(stderr.log, "propagate", False)
    monkeypatch.setattr(stderr.log, "level", logging.INFO)
    return records


def relay(pipe: Pipe) -> StderrRelay:
    return StderrRelay(pipe.read_end, lambda: {"agent": "a", "pid": 7})


async def run_to_end(pipe: Pipe, *pieces: bytes) -> StderrRelay:
    running = relay(pipe)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.run)
        for piece in pieces:
            pipe.write(piece)
            await trio.testing.wait_all_tasks_blocked()
        pipe.end()
    return running


async def test_each_line_is_a_record_with_agent_and_pid(pipe, logged) -> None:
    running = await run_to_end(pipe, b"one\ntw", b"o\n\n  \nthree")
    fields = {"agent": "a", "pid": 7}
    assert logged == [("INFO", text, fields) for text in ("one", "two", "three")]
    assert running.tail == ("one", "two", "three")


async def test_a_long_line_is_cut_and_said_to_be(pipe, logged) -> None:
    most = stderr.MAX_LINE_BYTES
    await run_to_end(pipe, b"x" * most + b"\n", b"y" * (most + 1) + b"\n", b"short\n")
    assert [text for _, text, _ in logged] == ["x" * most, "y" * most + " … (cut)", "short"]


async def test_a_line_without_an_end_holds_no_more_memory_than_the_cut(pipe, logged) -> None:
    running = relay(pipe)
    for _ in range(100):
        pipe.write(b"z" * 60_000)
        running._take_in(os.read(pipe.read_end, 60_000))
        assert len(running._partial) <= stderr.MAX_LINE_BYTES + 1
    pipe.write(b"\nnext\n")
    running._take_in(os.read(pipe.read_end, 60_000))
    assert [text[:4] for _, text, _ in logged] == ["zzzz", "next"]


async def test_a_flood_is_logged_up_to_the_burst_then_at_the_rate(
    pipe, logged, autojump_clock
) -> None:
    running = relay(pipe)
    for number in range(5000):
        running._take_in(b"%d\n" % number)
    assert len(logged) == stderr.BURST_LINES
    await trio.sleep(1)
    for number in range(5000, 6000):
        running._take_in(b"%d\n" % number)
    after = logged[stderr.BURST_LINES :]
    assert after[0][:2] == ("WARNING", "4000 lines were left out")
    assert [text for level, text, _ in after if level == "INFO"] == [
        str(5000 + number) for number in range(stderr.LINES_PER_SECOND)
    ]
    assert running.tail[-1] == "5999"  # the tail is of what was written, not of what was logged


async def test_silence_earns_no_more_than_one_burst(pipe, logged, autojump_clock) -> None:
    running = relay(pipe)
    await trio.sleep(3600)
    for number in range(5000):
        running._take_in(b"%d\n" % number)
    assert len(logged) == stderr.BURST_LINES


async def test_what_was_left_out_is_counted_at_the_end_too(pipe, logged, autojump_clock) -> None:
    flood = b"".join(b"%d\n" % number for number in range(stderr.BURST_LINES + 5))
    await run_to_end(pipe, flood)
    assert logged[-1][:2] == ("WARNING", "5 lines were left out")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"plain", "plain"),
        (b"tab\tkept", "tab\tkept"),
        ("é 💡".encode(), "é 💡"),
        (b"\x1b[2Jclear", "\\x1b[2Jclear"),
        (b"progress\rover", "progress\\x0dover"),
        (b"bell\x07", "bell\\x07"),
        (b"\xff\xfe", "\\xff\\xfe"),
        ("right\u202eleft".encode(), "right\\x202eleft"),
        (b"dos\r", "dos"),
    ],
)
async def test_nothing_in_a_line_can_move_a_terminals_cursor(line, text, pipe, logged) -> None:
    await run_to_end(pipe, line + b"\n")
    assert [shown for _, shown, _ in logged] == [text]


async def test_the_tail_keeps_the_last_lines_only(pipe, logged) -> None:
    running = await run_to_end(pipe, b"".join(b"%d\n" % n for n in range(100)))
    assert running.tail == tuple(str(n) for n in range(100 - stderr.TAIL_LINES, 100))


async def test_the_rest_can_be_read_while_the_pipe_is_held_open(pipe, logged) -> None:
    running = relay(pipe)
    pipe.write(b"last words")
    running.read_rest()
    assert running.tail == ("last words",)
