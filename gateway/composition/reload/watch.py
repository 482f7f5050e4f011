"""Files that are watched: those of the configuration (`--watch`), and those of agents (`--reload`).

# Theory of operation

The kernel tells of changes in a *folder*: that is what is watched, so that a file is seen which
takes the place of another one, as editors, tools for secrets and Kubernetes do it. What has changed
is then found out by a look at the files themselves. Several times a second the watch returns
without a change: that ends it soon when the gateway ends, and files that are named by then and were
not before are watched, too. Where the kernel has no more watches, or tells of nothing, as on some
network file systems, these looks are all there is.

A configuration that is half written is refused like any other that is wrong, and read again when
the rest has come.

Of an agent, `--reload` watches the files that its command names and its project: folder by folder,
without those of tools, and at most `MAX_FOLDERS`. With a change its workers are replaced by
rolling, as at a reload: if the new one does not start, the old ones go on.
"""

from __future__ import annotations

import logging
import os
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

import trio

from gateway.observe import logs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

    from gateway.config import AgentSettings

    Authored: TypeAlias = Callable[[AgentSettings], Collection[str]]

log = logging.getLogger("gateway")

LOOK_MILLISECONDS = 200
"""Until a watch returns without a change."""

QUIET_MILLISECONDS = 100
"""Without a change, after which one is told: what writes several files has written them."""

LONGEST_MILLISECONDS = 1000
"""After which a change is told although there are more and more."""

UNWATCHED_SECONDS = 2.0
"""Between two looks where nothing can be watched."""

MAX_FOLDERS = 1000
"""Of one agent's that are watched. A user may have some thousands of watches, for all programs."""

NOT_AUTHORED = frozenset(
    (
        *(".cache", ".git", ".hg", ".hypothesis", ".idea", ".mypy_cache", ".pytest_cache"),
        *(".ruff_cache", ".svn", ".tox", ".venv", ".vscode", "__pycache__", "node_modules", "venv"),
    )
)
"""Folders of tools, which no author writes in."""

NOT_SOURCE = (
    *(".db", ".db-journal", ".db-shm", ".db-wal", ".log", ".pyc", ".pyo", ".sock", ".sqlite"),
    *(".sqlite-journal", ".sqlite-shm", ".sqlite-wal", ".swp", ".swx", ".tmp", "~"),
)
"""How the names of files end that programs write while they run."""

Looks = dict[str, tuple[int, ...]]


class Reloader(Protocol):
    """`gateway.composition.reload.reloader.Reloader`."""

    @property
    def agents(self) -> Mapping[str, AgentSettings]: ...

    @property
    def files(self) -> list[str]: ...

    @property
    def looks(self) -> Looks: ...

    def ask(self, again: Iterable[str] = (), *, quietly: bool = False) -> None: ...


def look_at(paths: Iterable[str]) -> Looks:
    """What of each file is different once it was written to or replaced. A file that cannot be
    looked at is left out: it is about to be replaced."""
    found: Looks = {}
    for path in paths:
        with suppress(OSError):
            status = os.stat(path)
            found[path] = (status.st_dev, status.st_ino, status.st_ctime_ns, status.st_size)
    return found


def changed(before: Looks, now: Looks) -> list[str]:
    """The files that are there and are not as they were."""
    return [path for path, look in now.items() if before.get(path) != look]


async def watch_configuration(reloader: Reloader) -> None:
    """Have the configuration read again whenever one of its files has changed, until cancelled."""
    seen: Looks = {}

    async def look(told: bool) -> None:
        del told  # on some file systems nothing is ever told
        nonlocal seen
        now = look_at(reloader.files)
        # A file that is named only now is as it was when it was read.
        before = {**reloader.looks, **seen}
        if any(path in before for path in changed(before, now)):
            log.info("the configuration has changed: reloading")
            reloader.ask(quietly=True)
        seen = {**{path: look for path, look in before.items() if path in reloader.files}, **now}

    await _watch(lambda: _folders_of(reloader.files), look)


async def watch_agents(authored: Authored, reloader: Reloader) -> None:
    """Replace an agent whenever one of its author's files has changed, until cancelled.

    `authored` gives the files and folders of an agent.
    """
    seen: dict[str, _Sources] = {}

    async def look(told: bool) -> None:
        nonlocal seen
        agents = dict(reloader.agents)
        if not told and seen.keys() == agents.keys():
            return
        now = await trio.to_thread.run_sync(_find_sources, authored, agents)
        for name, sources in now.items():
            if name in seen and sources.looks != seen[name].looks:
                what = next(iter(changed(seen[name].looks, sources.looks)), "a file is gone")
                logs.event(log, logging.INFO, f"changed: {what}; replacing workers", agent=name)
                reloader.ask([name], quietly=True)
        seen = now

    await look(False)
    await _watch(lambda: [folder for each in seen.values() for folder in each.folders], look)


class _Sources(NamedTuple):
    """What an author writes of one agent."""

    looks: Looks
    folders: tuple[str, ...]


def _find_sources(authored: Authored, agents: Mapping[str, AgentSettings]) -> dict[str, _Sources]:
    return {name: _sources_below(authored(agent)) for name, agent in agents.items()}


def _sources_below(paths: Iterable[str]) -> _Sources:
    files = [path for path in paths if not os.path.isdir(path)]
    folders = _folders_of(files)
    for path in filter(os.path.isdir, paths):
        for folder, inner, names in os.walk(path):
            inner[:] = [each for each in inner if each not in NOT_AUTHORED]
            if len(folders) >= MAX_FOLDERS:
                break
            folders.append(folder)
            files += [os.path.join(folder, name) for name in names if is_source(name)]
    return _Sources(look_at(files), tuple(dict.fromkeys(folders)))


def is_source(name: str) -> bool:
    """Whether an author may have written a file with this name."""
    return not name.startswith(".#") and not name.endswith(NOT_SOURCE)


def _folders_of(files: Iterable[str]) -> list[str]:
    """The folders in which files would be replaced, under both of their names."""
    found: dict[str, None] = {}
    for path in files:
        for name in (path, os.path.realpath(path)):
            found[os.path.dirname(os.path.abspath(name))] = None
    return [folder for folder in found if os.path.isdir(folder)]


async def _watch(
    folders: Callable[[], Collection[str]], look: Callable[[bool], Awaitable[None]]
) -> None:
    """Call `look` again and again, with whether there was a change in these folders."""
    from watchfiles import awatch  # noqa: PLC0415 - only where something is watched

    while True:
        watched = list(folders())
        try:
            watch = awatch(
                *watched,
                watch_filter=None,
                recursive=False,
                debounce=LONGEST_MILLISECONDS,
                step=QUIET_MILLISECONDS,
                rust_timeout=LOOK_MILLISECONDS,
                yield_on_timeout=True,
            )
            async with aclosing(watch):
                async for changes in watch:
                    await look(bool(changes))
                    if list(folders()) != watched:
                        break
        except (OSError, RuntimeError) as error:
            log.warning("files cannot be watched, and are looked at instead: %s", error)
            await trio.sleep(UNWATCHED_SECONDS)
            await look(True)
