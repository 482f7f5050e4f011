"""A kernel without room for one more epoll watch, as trio meets it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trio._core._run import GLOBAL_RUN_CONTEXT


class FullEpoll:
    """An epoll instance that takes no descriptor that it does not have."""

    def __init__(self, epoll: Any) -> None:
        self._epoll = epoll
        self.refused = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._epoll, name)

    def register(self, *_: Any) -> None:
        self.refused += 1
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def no_watches_left() -> Iterator[FullEpoll]:
    """What trio waits for within the block fails with ENOSPC, unless it was waited for before."""
    manager: Any = GLOBAL_RUN_CONTEXT.runner.io_manager
    epoll = manager._epoll
    manager._epoll = full = FullEpoll(epoll)
    try:
        yield full
    finally:
        manager._epoll = epoll
