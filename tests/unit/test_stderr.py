"""What a worker prints on stderr: drained always, logged within bounds, harmless to a terminal."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest
import trio

from gateway.workers import stderr
from gateway.workers.stderr import Named, StderrRelay

from .pipes import Pipe


@pytest.fixture
def pipe(pipe: Pipe) -> Pipe:
    os.set_blocking(pipe.reader, False)
    return pipe


@pytest.fixture
def logged(
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[list[tuple[str, str, dict[str, object]]]]:
    """The level, message and fields of each record."""
    records: list[tuple[str, str, dict[str, object]]] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append((record.levelname, record.getMessage(), record.fields))  # type: ignore[attr-defined]

    monkeypatch.setattr(stderr.log, "handlers", [Collect()])
    monkeypatch.setattr(stderr.log, "propagate", False)
    # Not by the attribute: a logger remembers what it is enabled for until `setLevel`.
    level = stderr.log.level
    stderr.log.setLevel(logging.INFO)
    yield records
    stderr.log.setLevel(level)


def relay(pipe: Pipe) -> StderrRelay:
    return StderrRelay(pipe.reader, lambda: {"agent": "a", "pid": 7})


async def run_to_end(pipe: Pipe, *pieces: bytes) -> StderrRelay:
    running = relay(pipe)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.run)
        for piece in pieces:
            pipe.write(piece)
            await trio.testing.wait_all_tasks_blocked()
        pipe.close_writer()
    return running


async def test_each_line_is_a_record_with_agent_and_pid(pipe, logged) -> None:
    running = await run_to_end(pipe, b"one\ntw", b"o\n\n  \nthree")
    fields = {"agent": "a", "pid": 7}
    assert logged == [("INFO", text, fields) for text in ("one", "two", "three")]
    assert running.tail == ("one", "two", "three")


async def test_of_a_long_line_the_beginning_and_the_end_are_kept(pipe, logged) -> None:
    most = stderr.MAX_LINE_BYTES
    long = b"<" + b"q" * most + b"the reason>"
    await run_to_end(pipe, b"x" * most + b"\n", long + b"\n", b"short\n", b"<<" + long)
    whole, cut, short, at_end = [text for _, text, _ in logged]
    assert (whole, short) == ("x" * most, "short")
    for text, beginning in ((cut, "<qq"), (at_end, "<<<qq")):
        assert text.startswith(beginning)
        assert text.endswith("qthe reason>")
        assert len(text.encode()) <= most
        left_out = int(text.split(" … (")[1].split(" bytes cut) … ")[0])
        assert text.count("q") + left_out == most


async def test_a_line_without_an_end_holds_no_more_memory_than_the_cut(pipe, logged) -> None:
    running = relay(pipe)
    for _ in range(100):
        pipe.write(b"z" * 60_000)
        running._take_in(os.read(pipe.reader, 60_000))
        assert len(running._partial) <= stderr.MAX_LINE_BYTES
    pipe.write(b"the reason\nnext\n")
    running._take_in(os.read(pipe.reader, 60_000))
    assert [text[:4] for _, text, _ in logged] == ["zzzz", "next"]
    assert logged[0][1].endswith("zthe reason")
    left_out = int(logged[0][1].split(" … (")[1].split(" bytes cut) … ")[0])
    assert logged[0][1].count("z") + left_out == 6_000_000


def bar(step: int) -> bytes:
    return f"loading shard {step:3d}/400 |{'█' * (step // 20):20s}| {step * 7.3:.1f} it/s".encode()


@pytest.mark.parametrize("pieces", ["whole", "byte by byte"])
async def test_of_a_progress_bar_the_first_and_the_last_state_are_logged(
    pieces: str, pipe, logged, autojump_clock
) -> None:
    data = b"start\n" + b"".join(b"\r" + bar(step) for step in range(400)) + b"\rFATAL: x\n"
    size = len(data) if pieces == "whole" else 1
    running = relay(pipe)
    for at in range(0, len(data), size):
        running._take_in(data[at : at + size])
    running.read_rest()
    shown = ["start", bar(0).decode(), bar(399).decode(), "FATAL: x"]
    assert [text for _, text, _ in logged] == shown
    assert running.tail == tuple(shown)


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        # What is no bar is never hidden, whatever comes after it.
        (b"10%\rFATAL: x\r20%\r", ["10%", "FATAL: x", "20%"]),
        (b"1%\r2%\r3%FATAL: x\r4%\r", ["1%", "2%", "3%FATAL: x", "4%"]),
        (b"FATAL: x\r", ["FATAL: x"]),
        (b"dos\r\nlines\r\n", ["dos", "lines"]),
        # A bar that ends with its own line is one state less.
        (b"load 1\rload 2\rload 3\rload 4 done\n", ["load 1", "load 3", "load 4 done"]),
        (b"load 1\rload 2\rload 3\rload 4\n", ["load 1", "load 4"]),
        (b"load 1\rload 2\rload 3\r\nnext\n", ["load 1", "load 3", "next"]),
        (b"a 1\ra 2\ra 3\rb 1\rb 2\rb 3\r", ["a 1", "a 3", "b 1", "b 3"]),
        (b"\r\r\r\n\r", []),
    ],
)
async def test_an_update_is_logged_unless_it_is_like_the_one_before(
    written: bytes, shown: list[str], pipe, logged, autojump_clock
) -> None:
    running = await run_to_end(pipe, written)
    assert [text for _, text, _ in logged] == shown
    assert running.tail == tuple(shown)


async def test_a_bar_that_goes_on_is_seen_from_time_to_time(pipe, logged, autojump_clock) -> None:
    running = relay(pipe)
    for step in range(100):
        running._take_in(b"\rstep %d" % step)
        await trio.sleep(1)
    assert [text for _, text, _ in logged] == [f"step {step}" for step in range(0, 99, 10)]
    assert running.tail[-1] == "step 98"  # the end of the last is not known yet


async def test_a_flood_of_updates_is_as_bounded_as_one_of_lines(
    pipe, logged, autojump_clock
) -> None:
    running = relay(pipe)
    looked_at: list[bytes] = []
    line = running._line
    running._line = lambda text: (looked_at.append(text), line(text))  # type: ignore[assignment, method-assign, func-returns-value, return-value]
    for _ in range(100):
        running._take_in(b"\r" * 65_536)
    assert len(looked_at) < 100 * (stderr.BURST_LINES + stderr.TAIL_LINES + 2)
    looked_at.clear()
    for _ in range(100):
        running._take_in(b"\r1" * 32_768)
    # At first as much as may be logged, at the price of updates, and then the last of each read.
    most = stderr.BURST_LINES / stderr.UPDATE_COST + 100 * (stderr.TAIL_LINES + 2)
    assert len(looked_at) < most
    assert len(logged) < 10


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
        (b"bell\x07", "bell\\x07"),
        (b"\xff\xfe", "\\xff\\xfe"),
        ("right\u202eleft".encode(), "right\\u202eleft"),
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


class Names:
    """Of a worker that has one request in flight; `answered` is the one before."""

    def __init__(self, answered: str | None) -> None:
        self.answered = answered

    def name_of(self, wire_id: int) -> Named | None:
        return Named("r-1", "ada") if wire_id == 12345678901234 else None

    def just_answered(self) -> Named | None:
        return None if self.answered is None else Named(self.answered, "bob")


@pytest.mark.parametrize(
    ("in_flight", "answered", "logged_for"),
    [(None, "r-1", "r-1"), ("r-2,r-3", "r-1", "r-2,r-3"), (None, None, None)],
)
async def test_a_line_while_nothing_is_in_flight_is_that_of_what_was_just_answered(
    pipe: Pipe,
    logged: list[tuple[str, str, dict[str, object]]],
    in_flight: str | None,
    answered: str | None,
    logged_for: str | None,
) -> None:
    """An agent logs and answers at once: the answer may be read before what was logged."""
    describe = {"agent": "a", "request": in_flight}
    reader = StderrRelay(pipe.reader, lambda: describe, Names(answered))
    pipe.write(b"I am done\n")
    pipe.close_writer()
    await reader.run()
    assert [fields["request"] for _, _, fields in logged] == [logged_for]


BOTH = {"agent": "a", "request": "r-1,r-2", "key": None}


async def test_a_line_that_names_its_request_is_logged_as_that_requests_alone(
    pipe: Pipe, logged: list[tuple[str, str, dict[str, object]]]
) -> None:
    names = Names(None)
    reader = StderrRelay(pipe.reader, lambda: BOTH, names)
    pipe.write(
        b"@12345678901234 Traceback\n"
        b"@12345678901234   File\n"
        b"@12345678901234 @12345678901235 quoted\n"
        b"@12345678901234\n"
        b"@12345678901235 nobody's\n"
        b"says @12345678901234 inside\n"
        b"@1234567890123456789012345 no id\n"
    )
    pipe.close_writer()
    await reader.run()
    own, all_ = ("r-1", "ada"), ("r-1,r-2", None)
    assert [(text, (fields["request"], fields["key"])) for _, text, fields in logged] == [
        ("Traceback", own),
        ("  File", own),
        ("@12345678901235 quoted", own),
        ("@12345678901235 nobody's", all_),
        ("says @12345678901234 inside", all_),
        ("@1234567890123456789012345 no id", all_),
    ]
    assert reader.tail[0] == "Traceback"
