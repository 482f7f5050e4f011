"""The level `off`: a worker started without any isolation, in the gateway's environment."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.sandbox.files.programs import find_program
from gateway.sandbox.launch import MARK, Launch, new_mark
from gateway.sandbox.network.metering import Meter, RecordReader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from gateway.config.sandbox import SandboxSettings
    from gateway.config.services import Service
    from gateway.sandbox.files.state import AgentState
    from gateway.sandbox.symptoms import Diagnosis


@dataclass(frozen=True, slots=True)
class PlainLauncher:
    """No isolation: the command as it is, in the gateway's environment."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str | None = None
    state: AgentState | None = None
    meter: Meter = field(default_factory=Meter)
    """Of nothing: without a sandbox, an agent has the gateway's own network."""
    services: tuple[Service, ...] = ()

    @contextmanager
    def launch(self, conversation: str | None = None) -> Iterator[Launch]:
        # Looked up here, because the program that is spawned may be setpriv.
        cwd, search_path = self.cwd or os.getcwd(), self.env.get("PATH", os.defpath)
        program = find_program(self.argv[0], cwd=cwd, search_path=search_path)
        if program is None:
            if Path(cwd, self.argv[0]).exists():
                raise PermissionError(errno.EACCES, "command may not be executed", self.argv[0])
            raise FileNotFoundError(errno.ENOENT, "command not found", self.argv[0])
        mark = new_mark()
        argv = (program, *self.argv[1:])
        setpriv = shutil.which("setpriv")
        if setpriv is not None:
            # The worker must not outlive the gateway, however the gateway ends.
            argv = (setpriv, "--pdeathsig", "KILL", "--", *argv)
        env = {**self.env, MARK: mark}
        home = None if self.state is None else self.state.take(conversation)
        if self.state is None or home is None:
            yield Launch(argv, env, self.cwd, mark=mark)
            return
        release = partial(self.state.give_back, home)
        try:
            env |= {"HOME": home.path}
            too_large = self.state.too_large(home)
            yield Launch(argv, env, self.cwd, mark=mark, release=release, too_large=too_large)
        except BaseException:
            release()  # no process was started
            raise

    def exit_status(self, returncode: int) -> int:
        return returncode

    def explain(self, exit_status: int, stderr_tail: Sequence[str]) -> str | None:
        del exit_status, stderr_tail
        return None

    def diagnose(self, texts: Sequence[str], *, started: bool) -> Diagnosis | None:
        del texts, started  # nothing is limited here
        return None

    def describe(self) -> dict[str, Any]:
        return {"level": "off"} | ({} if self.state is None else self.state.describe())

    def traffic(self) -> dict[str, Any]:
        return {}  # nothing is between the agent and the network here

    def processes(self) -> Sequence[int]:
        return ()

    def records(self) -> Sequence[RecordReader]:
        return ()

    def check_services(self, services: Sequence[Service], hidden: Iterable[str]) -> None:
        del services, hidden  # nothing is kept from anything here

    def can_change(self, wanted: SandboxSettings, services: Sequence[Service]) -> bool:
        del wanted
        return not services

    def change_network(self, wanted: SandboxSettings) -> None:
        del wanted

    def change_services(self, services: Sequence[Service]) -> None:
        assert not services

    def logs(self) -> Sequence[int]:
        return ()

    def keep_from(self, ports: Sequence[int]) -> None:
        del ports  # nothing is kept from anything here

    def close(self) -> None:
        pass
