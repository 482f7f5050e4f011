"""The sandboxes of all agents, tried before anything is served.

A trial takes about a tenth of a second of a processor, mostly for the start of an interpreter. So
agents whose sandboxes are alike share one trial, and trials run side by side.
"""

from __future__ import annotations

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING

import msgspec

from gateway.sandbox.refusals import SandboxError
from gateway.sandbox.strict import StrictLauncher
from gateway.sandbox.trial import try_sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gateway.sandbox.launch import Launcher

_TRIALS_PER_CPU = 2
"""At a time: a trial waits for its processes as long as it computes."""


def try_sandboxes(
    launchers: Mapping[str, Launcher],
    *,
    secrets: Sequence[str] = (),
    progress: Callable[[int, int], None] = lambda done, all_: None,
) -> None:
    """Try the sandbox of each agent, as `trial.try_sandbox` does; alike ones once.

    `progress` gets how many trials are done, and of how many. Blocks until all are. Raises
    SandboxError, whose one line names an agent.
    """
    alike: dict[str, list[str]] = {}
    for name, launcher in launchers.items():
        if isinstance(launcher, StrictLauncher):
            alike.setdefault(_description(launcher), []).append(name)
    # Each trial is awaited on the thread that has started it: the sandbox ends with that thread.
    pool = ThreadPoolExecutor(_TRIALS_PER_CPU * len(os.sched_getaffinity(0)))
    try:
        trials = {
            pool.submit(try_sandbox, launchers[names[0]], secrets=secrets): names
            for names in alike.values()
        }
        for done, trial in enumerate(as_completed(trials)):
            progress(done, len(trials))
            try:
                trial.result()
            except SandboxError as error:
                raise SandboxError(f"{_agents(trials[trial])}: {error}") from None
        progress(len(trials), len(trials))
    finally:
        pool.shutdown(cancel_futures=True)


def _description(launcher: StrictLauncher) -> str:
    """All that a trial depends on: what the sandbox shows and limits, and not what runs in it."""
    confinement = launcher.confinement
    settings = msgspec.structs.replace(confinement.settings, env={}, env_allow=())
    return repr(dataclasses.replace(confinement, argv=(), env={}, settings=settings))


def _agents(names: Sequence[str]) -> str:
    first, *others = names
    return f"agent {first!r}" + (f" and {len(others)} like it" if others else "")
