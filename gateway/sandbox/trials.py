"""The sandboxes of all agents, tried before anything is served.

A trial takes about a tenth of a second of a processor, mostly for the start of an interpreter. So
sandboxes that differ only in what they show share one trial, which shows everything that any of
them does: what cannot be read, written or reached there cannot be in any of them. If that trial
fails, each of them is tried by itself, and it is these trials that count. Trials run side by side.
"""

from __future__ import annotations

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from gateway.sandbox.refusals import SandboxError
from gateway.sandbox.strict import StrictLauncher
from gateway.sandbox.trial import try_sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from gateway.sandbox.bwrap import Confinement
    from gateway.sandbox.files.mounts import Mount
    from gateway.sandbox.launch import Launcher

_TRIALS_PER_CPU = 2
"""At a time: a trial waits for its processes as long as it computes."""

_MOST_MOUNTS = 100
"""In one trial: what bubblewrap does for a mount takes longer with each that there is."""


def try_sandboxes(
    launchers: Mapping[str, Launcher],
    *,
    secrets: Sequence[str] = (),
    progress: Callable[[int, int], None] = lambda done, all_: None,
) -> None:
    """Try the sandbox of each agent, as `trial.try_sandbox` does.

    `progress` gets how many trials are done, and of how many. Blocks until all are. Raises
    SandboxError, whose one line names an agent.
    """
    strict = {name: each for name, each in launchers.items() if isinstance(each, StrictLauncher)}
    unclear: dict[str, StrictLauncher] = {}
    for names, error in _try_each(_together(strict), secrets, progress):
        if error is not None and len(names) > 1:
            unclear.update((name, strict[name]) for name in names)
        elif error is not None:
            raise SandboxError(f"agent {names[0]!r}: {error}")
    alone = [(each, [name]) for name, each in unclear.items()]
    for names, error in _try_each(alone, secrets, progress):
        if error is not None:
            raise SandboxError(f"agent {names[0]!r}: {error}")


_Trial: TypeAlias = tuple[StrictLauncher, list[str]]
"""A sandbox to try, and the agents whose it is."""


def _try_each(
    trials: Sequence[_Trial], secrets: Sequence[str], progress: Callable[[int, int], None]
) -> Iterator[tuple[list[str], SandboxError | None]]:
    """Try all of them side by side; the agents of each trial, and why it failed, as it ends."""
    if not trials:
        return
    # Each trial is awaited on the thread that has started it: the sandbox ends with that thread.
    pool = ThreadPoolExecutor(_TRIALS_PER_CPU * len(os.sched_getaffinity(0)))
    try:
        running = {
            pool.submit(try_sandbox, launcher, secrets=secrets): names for launcher, names in trials
        }
        for done, trial in enumerate(as_completed(running)):
            progress(done, len(running))
            try:
                trial.result()
            except SandboxError as error:
                yield running[trial], error
            else:
                yield running[trial], None
        progress(len(running), len(running))
    finally:
        pool.shutdown(cancel_futures=True)


def _together(launchers: Mapping[str, StrictLauncher]) -> list[_Trial]:
    """One launcher for all whose sandboxes differ only in what they show."""
    alike: dict[str, list[str]] = {}
    for name, launcher in launchers.items():
        alike.setdefault(_description(launcher), []).append(name)
    trials: list[_Trial] = []
    for left in alike.values():
        while left:
            shown = _Shown()
            together = [name for name in left if shown.add(launchers[name].confinement)]
            trials.append((shown.in_place_of(launchers[together[0]]), together))
            left = [name for name in left if name not in together]  # noqa: PLW2901 - what is left
    return trials


class _Shown:
    """What several confinements show, together."""

    def __init__(self) -> None:
        self._mounts: dict[str, Mount] = {}
        self._protected: dict[str, Mount] = {}
        self._masked: dict[str, Mount] = {}

    def add(self, confinement: Confinement) -> bool:
        """Add what it shows, unless that shows a path in another way, or is too much together."""
        known = self._mounts
        if any(known.get(mount.path, mount) != mount for mount in confinement.mounts):
            return False
        new = sum(mount.path not in known for mount in confinement.mounts)
        if known and new and len(known) + new > _MOST_MOUNTS:
            return False
        for mounts, more in (
            (self._mounts, confinement.mounts),
            (self._protected, confinement.protected),
            (self._masked, confinement.masked),
        ):
            mounts.update((mount.path, mount) for mount in more)
        return True

    def in_place_of(self, launcher: StrictLauncher) -> StrictLauncher:
        """The same launcher, with all of this shown."""
        if set(self._mounts.values()) == set(launcher.confinement.mounts):
            return launcher
        return launcher.with_confinement(
            dataclasses.replace(
                launcher.confinement,
                # What contains others goes first.
                mounts=tuple(mount for _, mount in sorted(self._mounts.items())),
                protected=tuple(self._protected.values()),
                masked=tuple(self._masked.values()),
            )
        )


def _description(launcher: StrictLauncher) -> str:
    """All that a trial depends on, without what the sandbox shows and what runs in it."""
    confinement = launcher.confinement
    settings = msgspec.structs.replace(
        confinement.settings, env={}, env_allow=(), cwd=None, mounts_ro=(), mounts_rw=()
    )
    return repr(
        (
            *(settings, confinement.seccomp, confinement.as_root, confinement.subordinate),
            *(confinement.groups, confinement.system, launcher.rlimits()),
        )
    )
