"""What Python and the allocator do with memory, for a process that serves many short requests."""

from __future__ import annotations

import gc

YOUNG_OBJECTS = 10_000
"""More objects than before, after which Python looks for garbage among the new ones. The requests
in progress are thousands of objects, none of which is garbage: to look at them after every 700
costs a short request 4 %. Ten thousand take a megabyte or two."""

KEPT_BYTES = 8 * 1024 * 1024
"""Of what is free at the end of the heap, what stays with the process. A body of 1 MiB, its line
and its answer take twice or three times as much: to ask the system for that with each request, and
to have it cleared, costs a quarter of the gateway's processor time for it."""


def tune_memory() -> None:
    """Call this once everything has been made that lasts until the gateway ends."""
    _look_for_garbage_seldom()
    _keep_freed_memory()


def _look_for_garbage_seldom() -> None:
    # What exists now, the modules above all, lasts until the end, and need not be searched for
    # garbage again and again. Nothing that belongs to an agent, a worker or a connection may exist
    # yet.
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])


def _keep_freed_memory() -> None:
    # By its default, glibc gives back what is free at the end of its heap from 128 KiB on. When a
    # large block is freed, it takes twice the block's size for that instead (mallopt(3), "dynamic
    # mmap threshold"). Larger blocks than this one still go back at once.
    block = bytes(KEPT_BYTES // 2)
    del block
