"""The end of a turn of the event loop: what many tasks have said in one turn can leave together.

A turn of trio's loop runs every task that is ready, and then waits for the system. `at_end` has a
function called between the two, which costs no turn more: a task that was woken for it would run in
the next one. No task may be started or woken there, because the loop has decided by then how long
it will wait; a function that finds that it must, has it done by `soon`.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

log = logging.getLogger("gateway")


class _Turns(trio.abc.Instrument):
    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []
        self.token = trio.lowlevel.current_trio_token()

    def before_io_wait(self, timeout: float) -> None:
        """By trio, at the end of each turn."""
        del timeout
        while self.due:
            due, self.due = self.due, []
            for function in due:
                try:
                    function()
                except Exception:  # a defect: trio would call none of them any more
                    log.exception("internal error")


_turns: _Turns | None = None
"""Of the one run of trio that `kept` is entered in; a variable of trio's would cost a look-up for
each request."""


@contextmanager
def kept() -> Iterator[None]:
    """Have `at_end` work within this block, of which there may be one at a time in a process."""
    global _turns  # noqa: PLW0603 - see there
    _turns = turns = _Turns()
    trio.lowlevel.add_instrument(turns)
    try:
        yield
    finally:
        _turns = None
        turns.before_io_wait(0)
        trio.lowlevel.remove_instrument(turns)


def at_end(function: Callable[[], None]) -> bool:
    """Have the function called at the end of this turn; False, without `kept`: it is not."""
    if _turns is None:
        return False
    _turns.due.append(function)
    return True


def soon(function: Callable[[], None]) -> None:
    """From a function that is called at the end of a turn: have another called in the next."""
    token = trio.lowlevel.current_trio_token() if _turns is None else _turns.token
    token.run_sync_soon(function)
