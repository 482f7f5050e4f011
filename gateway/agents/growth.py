"""The watch over one agent's workers that holds them to `max_rss`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from gateway.workers.memory import measure_all

if TYPE_CHECKING:
    from collections.abc import Callable

RSS_CHECK_SECONDS = 5.0
"""Between two looks at the workers' memory, where it has a limit."""


async def watch_growth(
    pids: Callable[[], dict[int, int | None]], most: float, outgrown: Callable[[int, int], None]
) -> None:
    """Call `outgrown` with the id and the resident bytes of each worker that holds more than
    `most`, again and again for as long as it does. `pids` gives the workers' pids by their ids."""
    while True:
        await trio.sleep(RSS_CHECK_SECONDS)
        for worker_id, used in (await measure_all(pids())).items():
            if used > most:
                outgrown(worker_id, used)
