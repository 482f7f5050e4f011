"""The signals that end the gateway, in virtual time."""

from __future__ import annotations

import signal
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from gateway import clock
from gateway.composition.shutdown import SECOND_SIGNAL_SECONDS, Shutdown
from gateway.config import CallerKeys, ServerSettings, Settings

DRAIN = 3600.0


class Held:
    """A dispatcher with a request that does not end by itself."""

    leaving = False
    stopped = 0

    async def drain(self, seconds: float) -> bool:
        await trio.sleep(seconds)
        return False

    async def stop(self, seconds: float) -> None:
        del seconds
        self.stopped += 1


async def come(send: trio.MemorySendChannel[int], *signals: tuple[float, int]) -> None:
    """Send signals at these times after the first one."""
    began = trio.current_time()
    for at, number in signals:
        await trio.sleep_until(began + at)
        await send.send(number)


def shutdown_of(dispatcher: Any) -> Shutdown:
    shutdown = Shutdown(dispatcher, reload=lambda: None, loopback=True)
    shutdown.change(Settings(server=ServerSettings(drain=DRAIN)), CallerKeys())
    return shutdown


async def test_signals_that_come_together_are_one_wish(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    dispatcher = Held()
    shutdown = shutdown_of(dispatcher)
    soon = SECOND_SIGNAL_SECONDS * 0.9
    send, signals = trio.open_memory_channel[int](0)
    nursery.start_soon(shutdown.obey, signals, nursery.cancel_scope)
    together = (0, signal.SIGINT), (soon / 2, signal.SIGTERM), (soon, signal.SIGINT)
    nursery.start_soon(come, send, *together)
    await trio.sleep(DRAIN - 1)
    assert (dispatcher.stopped, shutdown.exit_code) == (0, 0)
    await trio.sleep(2)
    assert (dispatcher.stopped, shutdown.exit_code) == (1, 0)
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_another_signal_ends_at_once(
    autojump_clock: MockClock, nursery: trio.Nursery, number: int
) -> None:
    dispatcher = Held()
    shutdown = shutdown_of(dispatcher)
    send, signals = trio.open_memory_channel[int](0)
    nursery.start_soon(come, send, (0, signal.SIGTERM), (SECOND_SIGNAL_SECONDS, number))
    with trio.CancelScope() as everything:
        await shutdown.obey(signals, everything)
        await trio.sleep_forever()
    assert everything.cancelled_caught
    assert (dispatcher.stopped, shutdown.exit_code) == (1, 128 + number)


async def test_the_time_in_which_the_gateway_stood_still_makes_no_other_wish_of_a_signal(
    mock_clock: MockClock, nursery: trio.Nursery
) -> None:
    dispatcher = Held()
    shutdown = shutdown_of(dispatcher)
    send, signals = trio.open_memory_channel[int](1)
    nursery.start_soon(clock.keep)
    nursery.start_soon(shutdown.obey, signals, nursery.cancel_scope)
    for number in (signal.SIGINT, signal.SIGINT):
        await trio.testing.wait_all_tasks_blocked()
        send.send_nowait(number)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(60)
    await trio.testing.wait_all_tasks_blocked()
    assert (dispatcher.stopped, shutdown.exit_code) == (0, 0)
    nursery.cancel_scope.cancel()
