"""What a piece of code allocates, seen by tracemalloc."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

SPARE = 1024 * 1024
"""Bytes for what is allocated once, whatever is measured."""


@contextmanager
def most_memory(limit: int) -> Iterator[None]:
    """Fails where `limit` bytes or more are held at any one time."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < limit
