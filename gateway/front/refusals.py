"""What is refused to whoever comes, said in the log sparingly."""

from __future__ import annotations

import logging
import math

import trio

from gateway.observe import logs

log = logging.getLogger("gateway.http")

REPORT_SECONDS = 10.0
"""Between two lines of the log on refusals of one kind."""


class Refusals:
    """Logs refusals of one kind: the first time at once, and then how many times. Whoever asks
    again and again would fill the disk otherwise."""

    def __init__(self, level: int = logging.ERROR) -> None:
        self._level = level
        self._sentence = ""
        self._unreported = 0
        self._silent_until = -math.inf

    def __repr__(self) -> str:
        return f"<Refusals {self._unreported} unreported>"

    def add(self, sentence: str) -> None:
        self._sentence = sentence
        self._unreported += 1
        if trio.current_time() >= self._silent_until:
            self.report()

    def report(self) -> None:
        """Log what has not been logged yet, if anything."""
        if self._unreported:
            count, self._unreported = self._unreported, 0
            self._silent_until = trio.current_time() + REPORT_SECONDS
            times = "" if count == 1 else f" ({count} times)"
            logs.event(log, self._level, f"{self._sentence}{times}")
