"""Iterating over an asyncio stream whose cleanup must not be interrupted.

A cancel scope of anyio's, as the SDK cancels handlers with, cancels whatever a task awaits, again
and again until the scope is left. LangGraph expects one cancel: what it awaits after that is the
end of its nodes, and where this is cancelled too, they go on in the background, with nobody to take
what they say. So each step of the stream is made in a task of its own, which is cancelled once, and
whose end is waited for.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncGenerator, AsyncIterable
from typing import Any

import anyio

CLEANUP_SECONDS = 2
"""For the cleanup of a stream that was cancelled: well below the gateway's own grace, the clock
`cancel`, which is 5 s by default."""

_END = object()


async def steps(stream: AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
    """The items of a stream, which is closed at the end."""
    iterator = aiter(stream)
    context = contextvars.copy_context()  # one for all steps, as if one task made them
    loop = asyncio.get_running_loop()

    async def advance() -> Any:
        return await anext(iterator, _END)

    async def close() -> None:
        if hasattr(iterator, "aclose"):
            await iterator.aclose()

    step = None
    try:
        while True:
            step = loop.create_task(advance(), context=context)
            await asyncio.wait({step})
            if (item := step.result()) is _END:
                return
            yield item
    finally:
        with anyio.move_on_after(CLEANUP_SECONDS, shield=True):
            if step is not None and not step.done():
                step.cancel()
                await asyncio.wait({step})
            await asyncio.wait({loop.create_task(close(), context=context)})
