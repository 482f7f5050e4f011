"""From settings to the launchers of agents, at the start and at each reload."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.config import ConfigError, read_services
from gateway.config.services import key_files
from gateway.sandbox import (
    SandboxError,
    check_apart,
    lasting_ids,
    make_launcher,
    refuse_runner,
    try_sandboxes,
    why_not_found,
    working_folder,
)
from gateway.sandbox.files.discover import discover
from gateway.sandbox.files.places import is_system
from gateway.sandbox.files.state import StateDir, default_place
from gateway.sandbox.launch import own_environment_first

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from contextlib import ExitStack

    from gateway.config import AgentSettings, ServerSettings, Settings
    from gateway.sandbox.files.state import AgentState
    from gateway.sandbox.launch import Launcher

log = logging.getLogger("gateway")


class States:
    """What outlives the workers of agents. Its folder is opened when the first agent needs it."""

    def __init__(self, server: ServerSettings, stack: ExitStack, *, serving: bool) -> None:
        """Whatever is opened is closed with `stack`. `serving`: keep other gateways from the same
        folder."""
        self._place = server.state_dir or default_place(os.environ)
        self._ids = lasting_ids() if server.sandbox == "strict" else None
        self._stack = stack
        self._serving = serving
        self._whole: StateDir | None = None
        self.of: dict[str, AgentState] = {}
        """Those that are in force, by agent."""

    def __repr__(self) -> str:
        return f"<States in {self._place} of {len(self.of)} agents>"

    @property
    def folder(self) -> str | None:
        """None while it is not open."""
        return None if self._whole is None else self._whole.path

    def open(self, agents: Mapping[str, AgentSettings]) -> dict[str, AgentState]:
        """Those of these agents that have such. Puts none in force. Raises SandboxError."""
        wanted = {
            name: agent
            for name, agent in agents.items()
            # With root, what workers write belongs to an id that all of the agent's have to have.
            if agent.kept is not None or (self._ids and agent.sandbox.mounts_rw)
        }
        if not wanted:
            return {}
        kept = [name for name, agent in wanted.items() if agent.kept is not None]
        if kept and self._ids is not None and not self._ids:
            raise SandboxError(f"agent {kept[0]!r}: state: there are too few user ids for folders")
        try:
            whole = self._open_folder(serving=self._serving and bool(kept))
        except SandboxError as error:
            if kept:
                raise
            message = "what workers leave in mounts_rw belongs to each worker alone: %s"
            log.warning(message, error)
            return {}
        try:
            return {name: self._state(whole, name, agent) for name, agent in wanted.items()}
        except OSError as error:
            place = error.filename or self._place
            raise SandboxError(f"state_dir: {place}: {error.strerror}") from error

    def _open_folder(self, *, serving: bool) -> StateDir:
        if self._whole is None:
            path = os.path.abspath(os.path.expanduser(self._place))
            self._whole = StateDir(path, ids=self._ids, serving=serving)
            self._stack.callback(self._whole.close)
        elif serving and not self._whole.serving:
            self._whole.keep_others_out()
        return self._whole

    def _state(self, whole: StateDir, name: str, agent: AgentSettings) -> AgentState:
        before = self.of.get(name)
        if before is not None and before.per_conversation == agent.state_per_conversation:
            return before.with_settings(agent.kept)
        return whole.agent(
            name,
            agent.kept,
            per_conversation=agent.state_per_conversation,
            in_use=before is not None,
        )


class LauncherMaker:
    """Makes the launchers of one gateway, all with its environment and its working folder."""

    def __init__(self, states: States) -> None:
        self._states = states
        self._environ = own_environment_first(os.environ, str(Path(sys.executable).parent))
        self._cwd = str(Path.cwd())
        self._making: dict[str, Launcher] = {}

    def __repr__(self) -> str:
        return f"<LauncherMaker {list(self._making)}>"

    def authored(self, agent: AgentSettings) -> list[str]:
        """The files and folders that an agent's author writes, as far as its command tells."""
        folder = working_folder(agent.sandbox, self._cwd)
        try:
            needs = discover(agent.argv, cwd=folder, search_path=self._environ["PATH"])
        except (SandboxError, OSError):
            return []
        named = (path for path in needs.files if not is_system(path))
        return list(dict.fromkeys([*needs.projects, *named]))

    def processes(self) -> Iterator[int]:
        """The processes of the launchers that are being made: children of the gateway."""
        for launcher in list(self._making.values()):
            yield from launcher.processes()

    def made(self) -> None:
        """What was made is somebody's: its processes are no longer named here."""
        self._making = {}

    def make(
        self,
        settings: Settings,
        names: Collection[str] | None = None,
        *,
        beside: Mapping[str, Launcher] | None = None,
        progress: Callable[[int, int], None] = lambda done, all_: None,
    ) -> dict[str, Launcher]:
        """One launcher for each of these agents, of all by default, after a trial of its sandbox.

        `beside` are the launchers of all agents that are served. What is made is to be closed by
        whoever asked for it, after `made`. Blocks. Raises ConfigError if a command does not exist,
        SandboxError if a sandbox cannot be enforced; then nothing is left.
        """
        names = settings.run_here if names is None else names
        known = dict(beside or {})
        try:
            states = self._states.open({name: settings.agents[name] for name in names})
            secrets = [str(settings.path.resolve())] if settings.path else []
            secrets += [settings.keys_file] if settings.keys_file else []
            secrets += settings.secret_files
            keys = [path for each in settings.services.values() for path in key_files(each)]
            hidden = [*secrets, *keys, *filter(None, [self._states.folder])]
            if settings.server.record:
                hidden.append(settings.server.record_folder)
            for name in names:
                state = states.get(name)
                self._making[name] = self._make_one(settings, name, state, hidden, known.get(name))
            others = {name: each for name, each in known.items() if name in settings.agents}
            check_apart({**others, **self._making})
            try_sandboxes(self._making, secrets=secrets, progress=progress)
        except BaseException:
            for launcher in self._making.values():
                launcher.close()
            self.made()
            raise
        return dict(self._making)

    def _make_one(
        self,
        settings: Settings,
        name: str,
        state: AgentState | None,
        hidden: list[str],
        before: Launcher | None,
    ) -> Launcher:
        agent = settings.agents[name]
        folder = working_folder(agent.sandbox, self._cwd)
        why = why_not_found(agent.argv[0], cwd=folder, search_path=self._environ["PATH"])
        if why is not None:
            if settings.server.sandbox == "strict":
                why = refuse_runner(agent.argv, cwd=folder) or why
            raise ConfigError(f"agents.{name}.command: {why}")
        launcher = make_launcher(
            name,
            agent.argv,
            agent.sandbox,
            level=settings.server.sandbox,
            environ=self._environ,
            cwd=self._cwd,
            secrets=hidden,
            state=state,
            workers=agent.workers.max,
            services=read_services(settings, name, self._environ),
            meter=None if before is None else before.meter,
        )
        if before is None:
            launcher.meter.set_budgets(launcher.services)
        return launcher
