"""The contract between a sandbox and the process that is started in it.

A `Launcher` belongs to one agent and is called once per worker; a `Launch` describes one start.
This module knows neither how a sandbox is built nor how a process is run.
"""

from __future__ import annotations

import os
import secrets
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from gateway.config.keys import KEY_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from gateway.config.sandbox import SandboxSettings
    from gateway.config.services import Service
    from gateway.sandbox.files.state import AgentState
    from gateway.sandbox.network.metering import Meter, RecordReader
    from gateway.sandbox.symptoms import Diagnosis

MARK = "AGENT_GATEWAY_WORKER"
"""The environment variable by which a worker's processes are recognised without a sandbox."""

_OWN = secrets.token_hex(8)
"""With this, marks of this gateway begin: a gateway can be a worker of another one."""


def new_mark() -> str:
    """The value of `MARK` for one more worker."""
    return f"{_OWN}-{secrets.token_hex(8)}"


def is_own_mark(mark: str) -> bool:
    """Whether this gateway made the mark, for whichever worker."""
    return mark.startswith(f"{_OWN}-")


@dataclass(frozen=True, slots=True)
class Launch:
    """One start of a worker, ready for `subprocess.Popen`."""

    argv: tuple[str, ...]
    """The program (a path, or a name to look up in the PATH of `env`) and its arguments."""
    env: Mapping[str, str]
    """The whole environment of the process that is spawned."""
    cwd: str | None = None
    """The folder that the process starts in; None for the gateway's own."""
    pass_fds: tuple[int, ...] = ()
    """Descriptors that the process inherits under the same numbers. The launcher closes its own
    copies when the `with` block of `Launcher.launch` ends, which is right after the spawn."""
    other_user: bool = False
    """Whether the worker has another user id than the gateway. Then everybody may open its pipes,
    whom the kernel lets see them, so that the worker can open /dev/stderr and the like."""
    release: Callable[[], None] = lambda: None
    """The owner of the process calls this when every process of this start has ended."""
    watched_memory: int = 0
    """Bytes that the whole tree of processes may hold, where the gateway has to watch that because
    the kernel does not; else 0."""
    shares_cpus: bool = True
    """Whether the worker gets one share of busy CPUs, however many processes it has; else the
    gateway has to watch that."""
    too_large: Callable[[], bool] | None = None
    """Whether the folder that outlives the worker was found to hold more than it may, where there
    is a limit."""
    out_of_memory: Callable[[], bool] = lambda: False
    """Whether the kernel has ended a process of this start because its memory limit was met."""
    lifelines: tuple[int, ...] = ()
    """Sockets whose other ends the processes hold that serve the worker's network: when one hangs
    up, the worker has lost it for good. Open until `release`."""
    serves: Callable[..., None] | None = None
    """Told of each request that the worker is given (its id, and `alone`: whether it has no other),
    where that is of use: it may be the one on whose behalf the worker uses its network."""
    mark: str | None = None
    """The value of `MARK` in `env`, if set; every process of this worker inherits it."""


class Launcher(Protocol):
    """Starts the workers of one agent, always at the same level of isolation."""

    def launch(self, conversation: str | None = None) -> AbstractContextManager[Launch]:
        """Prepare one start; what must not outlive the spawn is released at the end of the block.

        `conversation`: whose folder the worker is to have, where each conversation has one. Raises
        OSError when a descriptor, a cgroup or a folder cannot be made.
        """
        ...

    def exit_status(self, returncode: int) -> int:
        """The exit status of the agent's command, from that of the process that was spawned.

        Both are as in `subprocess.Popen.returncode`: negative for a signal.
        """
        ...

    def explain(self, exit_status: int, stderr_tail: Sequence[str]) -> str | None:
        """One line on why the isolation could not be put in force, or None if it was.

        Called when a worker ended before its first word. `exit_status` is as in
        `subprocess.Popen.returncode`: negative for a signal.
        """
        ...

    def diagnose(self, texts: Sequence[str], *, started: bool) -> Diagnosis | None:
        """Guess which of the limits in force the last of `texts` speaks of: an agent's own words.

        `started`: whether the worker had spoken before.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """What the sandbox enforces, as plain values for `GET /agent/{name}` and `--check`."""
        ...

    def traffic(self) -> dict[str, Any]:
        """What was decided of the agent's connections so far, `services` and `network`, as plain
        values for `GET /agent/{name}`; nothing where none pass through here."""
        ...

    def processes(self) -> Sequence[int]:
        """The pids of the workers' helper processes, which are children of the gateway."""
        ...

    def logs(self) -> Sequence[int]:
        """Descriptors, which do not block, of what these processes write to their stderr."""
        ...

    def records(self) -> Sequence[RecordReader]:
        """What the network's processes decide. After `close`, they hold the last of it."""
        ...

    @property
    def meter(self) -> Meter:
        """What these processes have recorded, once somebody reads `records` into it."""
        ...

    def keep_from(self, ports: Sequence[int]) -> None:
        """Never connect the agent to these ports of this machine: the gateway listens on them.

        Raises OSError.
        """
        ...

    @property
    def state(self) -> AgentState | None:
        """What outlives the agent's workers, if anything does."""
        ...

    @property
    def services(self) -> Sequence[Service]:
        """The services that the agent may use."""
        ...

    def check_services(self, services: Sequence[Service], hidden: Iterable[str]) -> None:
        """Check what a change to these services would give away: their keys to this agent, or the
        files that `hidden` names, in which secrets stand. Raises SandboxError."""
        ...

    def can_change(self, wanted: SandboxSettings, services: Sequence[Service]) -> bool:
        """Whether workers that run can have the `network` of these settings, and these services:
        those of an agent without a network have no way to one."""
        ...

    def change_network(self, wanted: SandboxSettings) -> None:
        """Have the workers, those that run too, reach what these settings' `network` says alone.

        Only if it `can_change` so. Raises OSError, and then nothing has changed.
        """
        ...

    def change_services(self, services: Sequence[Service]) -> None:
        """Have the workers, those that run too, use these services under these rules and keys.

        Only if it `can_change` so; the variables of a service are for workers that start from now
        on. Raises OSError, and then nothing has changed.
        """
        ...

    def close(self) -> None:
        """Release everything that the launcher holds, after its last worker has ended. Blocks for
        seconds at most."""
        ...


def own_environment_first(environ: Mapping[str, str], bin_dir: str) -> dict[str, str]:
    """`environ` with `bin_dir` (the folder of the gateway's interpreter) in front of its PATH.

    That way `gateway --agent echo="agent-worker worker.examples.echo:agent"` finds the environment
    that the gateway was installed into, whether or not it is activated. The key of callers is left
    out: with or without a sandbox, no worker is to have it.
    """
    path = environ.get("PATH", os.defpath)
    others = {name: value for name, value in environ.items() if name != KEY_VARIABLE}
    return {**others, "PATH": f"{bin_dir}{os.pathsep}{path}"}
