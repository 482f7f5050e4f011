"""The owner scope of one agent: its supervisor, and what runs beside its workers.

What a launcher has is released here, when the last worker has been reaped, and not when somebody
forgets it: an agent may be replaced many times while the gateway runs.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from gateway.workers.stderr import StderrRelay

if TYPE_CHECKING:
    from gateway.agents.supervisor import AgentSupervisor


async def run_agent(
    agent: AgentSupervisor, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Run an agent and its network's processes until it was stopped and they have ended.

    These processes' stderr, which repeats words of agents, is logged, and their records are kept.
    """
    launcher = agent.launcher
    records = launcher.records()
    try:
        async with trio.open_nursery() as beside:
            for descriptor in launcher.logs():
                beside.start_soon(StderrRelay(descriptor, partial(dict, agent=agent.name)).run)
            for each in records:
                beside.start_soon(each.run)
            await agent.run(task_status=task_status)
            beside.cancel_scope.cancel()
    finally:
        # Takes seconds at most, whatever these processes do.
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(launcher.close)
        for each in records:
            each.settle()
