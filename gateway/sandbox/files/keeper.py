"""The time to live and the size of agents' folders, looked after while the gateway serves."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import trio

from gateway.observe import logs
from gateway.sandbox.files.trees import bytes_in

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from gateway.sandbox.files.state import AgentState

log = logging.getLogger("gateway.state")

LOOK_SECONDS = 10.0
"""Between two looks: what grows meanwhile is noticed that much later."""


async def keep_states(states: Mapping[str, AgentState]) -> None:
    """Remove folders that have expired, and measure those that workers are in, until cancelled.

    `states` may change meanwhile.
    """
    while True:
        for name, state in list(states.items()):
            await look_at(name, state)
        await trio.sleep(LOOK_SECONDS)


async def look_at(name: str, state: AgentState) -> None:
    """Look after the folders of one agent once."""
    state.note_use()
    state.remove_expired()
    # In threads, which are left behind at the end: a folder may hold very much.
    await trio.to_thread.run_sync(_remove, state, abandon_on_cancel=True)
    if state.settings is None or not state.settings.size_bytes:
        return
    sizes = await trio.to_thread.run_sync(_measure, state.used_since(), abandon_on_cancel=True)
    for path, size in sizes.items():
        if state.judge_size(path, size):
            what = "more than can be measured" if math.isinf(size) else f"{size} bytes"
            message = (
                f"{path} holds {what}, and state.size allows {state.settings.size_bytes}: "
                "its workers end, and no more are started in it"
            )
            logs.event(log, logging.WARNING, message, agent=name)


def _remove(state: AgentState) -> None:
    try:
        state.whole.remove()
    except OSError as error:
        log.warning("what has expired cannot be removed: %s", error)


def _measure(paths: Collection[str]) -> dict[str, float]:
    sizes = {}
    for path in paths:
        try:
            sizes[path] = bytes_in(path)
        except OSError as error:
            log.warning("%s cannot be measured: %s", path, error)
    return sizes
