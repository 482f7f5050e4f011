"""The command line `agent-worker replay`.

Exits with 0 if every answer is the recorded one, with 1 if one differs, and with 2 if it cannot be
told: the command line is wrong, a file is no recording, the worker cannot be started.
"""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from typing import TYPE_CHECKING, NoReturn

import anyio

from .difference import Ignored, beginning, difference, harmless
from .player import Player
from .recording import NotARecording, Recording

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .answer import Answer

PATIENCE = 60.0
"""Seconds of silence, as the gateway's `start` clock has them."""

RECURSION = 10_000
"""Calls in calls: values nest up to 512 deep, and comparing takes several calls for each level."""


def main(arguments: Sequence[str]) -> NoReturn:
    options = _parse(arguments)
    sys.setrecursionlimit(RECURSION)
    try:
        recordings = [Recording(path) for path in options.files]
    except (NotARecording, OSError) as error:
        _fail(str(error))
    ignored = Ignored(options.ignore)
    try:
        differ = anyio.run(_replay, recordings, options.command, ignored, options.patience)
    except OSError as error:
        _fail(f"the worker cannot be started: {error}")
    sys.exit(1 if differ else 0)


async def _replay(
    recordings: Sequence[Recording], command: Sequence[str], ignored: Ignored, patience: float
) -> int:
    """Ask, compare and report; returns how many answers differ."""
    differ = 0
    async with Player(command, patience=patience) as player:
        for recording in recordings:
            answer = await player.ask(recording)
            lines = _compared(recording, answer, ignored)
            differ += bool(lines)
            name = harmless(os.path.basename(recording.path))
            times = f"{_seconds(answer)}, recorded {_seconds(recording.answer)}"
            _say(f"{'differs' if lines else 'same   '}  {name}  {recording.method}, {times}")
            if lines:
                _say(textwrap.indent("\n".join(lines), "    "))
    _say(f"{len(recordings) - differ} same, {differ} differ")
    return differ


def _compared(recording: Recording, answer: Answer, ignored: Ignored) -> list[str]:
    then, now = recording.answer.value, answer.value
    if recording.is_cut:
        now = beginning(now, then)
    return difference(ignored.without(then), ignored.without(now))


def _seconds(answer: Answer) -> str:
    if answer.first is None:
        return "no word"
    return f"first word {answer.first:.3f} s, end {answer.last:.3f} s"


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="agent-worker replay",
        usage="%(prog)s [--ignore WHAT] [--patience SECONDS] FILE... -- COMMAND",
        description="Ask a worker, in whatever language, what was recorded with `gateway --record "
        "DIR`, and show where it answers differently. The worker runs without a sandbox.",
        epilog="Exits with 0 if all answers are the recorded ones, 1 if one differs, 2 if it "
        "cannot be told.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="recordings, asked in this order")
    parser.add_argument(
        "--ignore",
        action="append",
        default=[],
        metavar="WHAT",
        help="'times', 'ids', or a path: output.usage, events.*.id; may be repeated",
    )
    parser.add_argument(
        "--patience", type=float, default=PATIENCE, metavar="SECONDS", help="of silence; 60"
    )
    # Split here: the command may have options of any name.
    words = list(arguments)
    at = words.index("--") if "--" in words else len(words)
    options = parser.parse_args(words[:at])
    options.command = words[at + 1 :]
    if not options.command:
        parser.error("expected the worker's COMMAND after --")
    return options


def _say(text: str) -> None:
    sys.stdout.write(text.encode(errors="backslashreplace").decode() + "\n")
    sys.stdout.flush()


def _fail(message: str) -> NoReturn:
    # Of a file that anybody may have written.
    sys.stderr.write(f"agent-worker replay: {harmless(message)}\n")
    sys.exit(2)
