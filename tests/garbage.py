"""What only the garbage collector would let go of."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

LARGE = 1024 * 1024
"""Bytes of what is looked for: payloads, not buffers."""


@contextmanager
def no_large_garbage() -> Iterator[None]:
    """Fail if something in the block has left a cycle that holds something large: that would stay
    until the garbage collector came by."""
    gc.collect()
    gc.disable()
    try:
        yield
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found = [repr(each)[:200] for each in gc.garbage if _holds_much(each)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not found, f"a payload is held by a cycle: {'; '.join(found)}"


def _holds_much(each: object) -> bool:
    return any(map(_is_large, gc.get_referents(each)))


def _is_large(each: object) -> bool:
    if isinstance(each, memoryview):
        try:
            return each.nbytes >= LARGE
        except ValueError:
            return False  # released
    return isinstance(each, bytes | bytearray | str) and len(each) >= LARGE
