"""The launcher of the strict sandbox: one worker at a time, under bubblewrap.

This module owns the resources of one start: the files that bubblewrap reads, the control group, the
user id, the announcement to the proxy. It knows neither how the command line is written (`bwrap`
does) nor how a process is run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import signal
import time
import weakref
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.sandbox.bwrap import (
    BLOCK_FD,
    INFO_FD,
    WORKER_UID,
    IdMapping,
    bwrap_options,
    inside_command,
    outside_command,
)
from gateway.sandbox.changes import check_hidden, with_network, with_services
from gateway.sandbox.environment import check_keys_apart
from gateway.sandbox.files.sources import Sources
from gateway.sandbox.handed import etc_files, inheritable, memory_file
from gateway.sandbox.launch import Launch
from gateway.sandbox.limits import cgroups as groups
from gateway.sandbox.limits.claims import take_over
from gateway.sandbox.limits.rlimits import rlimits_of
from gateway.sandbox.limits.shared import most_processes, shared_limits
from gateway.sandbox.limits.subordinate import Ids, map_arguments
from gateway.sandbox.limits.uids import UidBlock
from gateway.sandbox.network import listener
from gateway.sandbox.network.metering import Meter
from gateway.sandbox.refusals import explain_refusal
from gateway.sandbox.symptoms import diagnose
from gateway.sandbox.words import user_in_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from gateway.config.sandbox import SandboxSettings
    from gateway.config.services import Service
    from gateway.sandbox.bwrap import Confinement, Tools
    from gateway.sandbox.files.state import AgentState, Home
    from gateway.sandbox.limits.guard import Guard
    from gateway.sandbox.limits.subordinate import Mappers, SubordinateIds
    from gateway.sandbox.network.metering import RecordReader
    from gateway.sandbox.network.proxy import Proxy
    from gateway.sandbox.symptoms import Diagnosis

WORKER_WEIGHT = 50
"""A worker's share of busy CPUs, in percent of the gateway's, however many processes it has: one
that spins holds up neither the gateway nor its neighbours. Much less would starve workers on a
machine that has other work."""

_SIGNALS = frozenset(signal.valid_signals())
_UNLIMITED = {"value": None, "enforced": False, "reason": "no limit was set"}


class StrictLauncher:
    """Starts the workers of one agent, each in a sandbox of its own."""

    def __init__(
        self,
        confinement: Confinement,
        *,
        tools: Tools,
        cgroups: groups.Cgroups,
        uids: UidBlock | None,
        subordinate: SubordinateIds | None = None,
        guard: Guard,
        proxy: Proxy | None = None,
        door: Proxy | None = None,
        services: Sequence[Service] = (),
        meter: Meter | None = None,
        state: AgentState | None = None,
        sharing: int = 1,
    ) -> None:
        """`uids` are given where the gateway is root, `subordinate` where it is not and its workers
        have ids of their own nevertheless, `proxy` where the agent has a network, `door` where it
        has `services`, and `state` where it has a folder, or with root a user id, that outlives
        its workers. `sharing`: how many workers may have one user id then.
        """
        self.confinement = confinement
        self._sources = Sources(
            confinement.mounts, protected=confinement.protected, masked=confinement.masked
        )
        self._tools = tools
        self._cgroups = cgroups
        self._uids = uids
        self._subordinate = subordinate if confinement.subordinate else None
        self._guard = guard
        self._proxy = proxy
        self._door = door
        self.services = services
        self.meter = meter or Meter()
        """What the agent's processes of the network have recorded."""
        self.state = state
        self._sharing = sharing
        self._token = secrets.token_hex(4)
        self._made: list[tuple[Path, ...]] = []
        self._ended: list[tuple[Path, ...]] = []
        take_over(cgroups.folders.values())
        # Runs at the end of the interpreter, too. After a kill, the next gateway takes over.
        weakref.finalize(self, _remove, self._made)

    def __repr__(self) -> str:
        return f"<StrictLauncher {self.confinement.argv[0]} {len(self._made)} groups>"

    def with_confinement(self, confinement: Confinement) -> StrictLauncher:
        """A launcher for another confinement with the same tools, groups, user ids and proxy."""
        return StrictLauncher(
            confinement,
            tools=self._tools,
            cgroups=self._cgroups,
            uids=self._uids,
            subordinate=self._subordinate,
            guard=self._guard,
            proxy=self._proxy,
            door=self._door,
            services=self.services,
            meter=self.meter,
            state=self.state,
            sharing=self._sharing,
        )

    @contextlib.contextmanager
    def launch(self, conversation: str | None = None) -> Iterator[Launch]:
        """As `gateway.sandbox.launch.Launcher.launch`."""
        ending = contextlib.ExitStack()
        try:
            home = None
            if self.state is not None and (home := self.state.take(conversation)) is not None:
                ending.callback(self.state.give_back, home)
            with self._launch_in(home, ending) as launch:
                yield launch
        except BaseException:
            ending.close()  # no process was started
            raise

    @contextlib.contextmanager
    def _launch_in(self, home: Home | None, ending: contextlib.ExitStack) -> Iterator[Launch]:
        """One start in a folder. `ending` is closed when every process of it has ended."""
        self.remove_groups()
        number = next(self.meter.numbers)
        confinement = self._as_it_is_now(home)
        self._guard.ensure()
        rlimits = self.rlimits()
        uid = WORKER_UID if self._uids is None else self._uids.take()
        if home is not None and home.uid is not None:
            uid = home.uid
        with contextlib.ExitStack() as stack:
            claim = None if self._subordinate is None else self._subordinate.take()
            if claim is not None:
                ending.callback(claim.release)
            files = {
                path: memory_file(stack, content)
                for path, content in etc_files(uid, confinement.env["HOME"]).items()
            }
            seccomp = memory_file(stack, confinement.seccomp)
            kept = {
                source: inheritable(stack, descriptor)
                for source, descriptor in self._sources.descriptors(self._tools.bwrap).items()
            }
            options = bwrap_options(confinement, files=files, held=kept)
            options += ["--seccomp", str(seccomp)]
            inherited = [*files.values(), *kept.values(), seccomp]
            ports: list[tuple[int, int]] = []
            lifelines: list[int] = []
            for process, port in (
                (self._proxy, listener.PROXY_PORT),
                (self._door, listener.DOOR_PORT),
            ):
                if process is not None:
                    # It serves the worker while somebody has this socket: the worker closes its own
                    # when the agent starts.
                    handed_out = inheritable(stack, stack.enter_context(process.announce(number)))
                    lifelines.append(inheritable(ending, handed_out))
                    ports.append((handed_out, port))
            ending.callback(self.meter.forget, number)
            inherited += [descriptor for descriptor, _ in ports]
            before = listener.command(ports, rlimits.pop("nofile")) if ports else ()
            mapping = None
            if claim is not None and self._subordinate is not None:
                mapping = _mapping(self._subordinate.mappers, claim.ids)
                options += ["--info-fd", str(INFO_FD), "--userns-block-fd", str(BLOCK_FD)]
            # In a file, because the worker can read the command line in /proc/1/cmdline.
            arguments = memory_file(stack, b"".join(os.fsencode(each) + b"\0" for each in options))
            group = self._new_group(number)
            join_files = [str(folder / self._cgroups.join_file) for folder in group]
            # Called by the owner of the process: before the worker joined, the group is empty too.
            ending.callback(self._ended.append, group)
            yield Launch(
                argv=(
                    *outside_command(
                        self._tools,
                        join_files,
                        mapping=mapping,
                        most_processes=self._most_processes,
                    ),
                    *(self._tools.bwrap, "--args", str(arguments), "--"),
                    *inside_command(
                        self._tools,
                        confinement,
                        uid=uid,
                        rlimits=rlimits,
                        mark=self._guard.mark,
                    ),
                    *before,
                    *confinement.argv,
                ),
                # The worker can read bubblewrap's environment in /proc/1/environ.
                env={},
                cwd="/",
                pass_fds=(*inherited, arguments),
                other_user=confinement.changes_user,
                release=ending.close,
                watched_memory=self._watched_memory,
                too_large=self.state.too_large(home) if self.state and home else None,
                shares_cpus=self._shares_cpus,
                out_of_memory=partial(groups.out_of_memory, group),
                lifelines=tuple(lifelines),
                serves=partial(self.meter.serves, number) if ports else None,
            )

    def exit_status(self, returncode: int) -> int:
        """As `gateway.sandbox.launch.Launcher.exit_status`.

        When a signal ended the command, bubblewrap exits with 128 plus its number, as shells do.
        """
        number = returncode - 128
        return -number if number in _SIGNALS else returncode

    def explain(self, exit_status: int, stderr_tail: Sequence[str]) -> str | None:
        """As `gateway.sandbox.launch.Launcher.explain`."""
        return explain_refusal(stderr_tail) if exit_status > 0 else None

    def diagnose(self, texts: Sequence[str], *, started: bool) -> Diagnosis | None:
        """As `gateway.sandbox.launch.Launcher.diagnose`."""
        network = bool(self.confinement.settings.network_hosts)
        return diagnose(texts, network=network, started=started)

    def describe(self) -> dict[str, Any]:
        """As `gateway.sandbox.launch.Launcher.describe`: plain values, ready for JSON."""
        confinement, settings, rlimits = self.confinement, self.confinement.settings, self.rlimits()
        return {
            "level": "strict",
            "user": user_in_words(confinement, self.state),
            "why_shared": confinement.why_shared or None,
            "shared_limits": list(self.shared_limits),
            "network": list(settings.network_hosts) or False,
            "services": {each.name: each.describe() for each in self.services},
            "limits": {name: self._limit(name) for name in groups.CONTROLLERS}
            | {
                "pids": self._describe_pids(),
                "tmp": _enforced(settings.tmp_bytes, "tmpfs"),
                "nofile": _enforced(rlimits["nofile"], "rlimit"),
                "fsize": _enforced(rlimits["fsize"], "rlimit")
                if "fsize" in rlimits
                else _UNLIMITED,
            },
            "busy_cpus": f"cgroup v{self._cgroups.version}" if self._shares_cpus else "watch",
            "mounts": {
                mount.path: "read-write" if mount.writable else "read-only"
                for mount in (*confinement.mounts, *self._sources.protected())
            },
            "system": [path for path, _ in confinement.system.links]
            + list(confinement.system.shown),
            "masked": [mount.path for mount in self._sources.masked()],
            "secrets_shown": list(confinement.exposed),
            "not_shown": list(confinement.not_shown),
            "env": sorted(confinement.env),
            "cwd": confinement.cwd,
        } | ({} if self.state is None else self.state.describe())

    def traffic(self) -> dict[str, Any]:
        """As `gateway.sandbox.launch.Launcher.traffic`."""
        return self.meter.describe(time.time())

    def _describe_pids(self) -> dict[str, Any]:
        pids = self.confinement.settings.pids
        if not pids:
            return _UNLIMITED
        shared = {} if self._sharing == 1 else {"of_all_workers": pids * self._sharing}
        return _enforced(pids, "rlimit") | shared

    def remove_groups(self) -> None:
        """Remove the control groups of the workers that have ended."""
        _remove(self._ended)
        self._made[:] = [group for group in self._made if group and group[0].exists()]

    def processes(self) -> Sequence[int]:
        """As `gateway.sandbox.launch.Launcher.processes`."""
        helpers = (self._guard.pid, *(proxy.pid for proxy in self._proxies))
        return [pid for pid in helpers if pid is not None]

    def logs(self) -> Sequence[int]:
        """As `gateway.sandbox.launch.Launcher.logs`."""
        return [proxy.stderr for proxy in self._proxies]

    def records(self) -> Sequence[RecordReader]:
        """As `gateway.sandbox.launch.Launcher.records`."""
        return [proxy.records for proxy in self._proxies]

    @property
    def _proxies(self) -> Sequence[Proxy]:
        return [each for each in (self._proxy, self._door) if each is not None]

    def check_services(self, services: Sequence[Service], hidden: Iterable[str]) -> None:
        """As `gateway.sandbox.launch.Launcher.check_services`."""
        check_keys_apart(self.confinement.settings, services)
        check_hidden(self.confinement, hidden)

    def can_change(self, wanted: SandboxSettings, services: Sequence[Service]) -> bool:
        """As `gateway.sandbox.launch.Launcher.can_change`."""
        network = self._proxy is not None or not wanted.network_hosts
        return network and (self._door is not None or not services)

    def change_network(self, wanted: SandboxSettings) -> None:
        """As `gateway.sandbox.launch.Launcher.change_network`."""
        if self._proxy is None:
            return
        self._proxy.change(**wanted.network_rules)
        self.confinement = with_network(self.confinement, wanted)

    def change_services(self, services: Sequence[Service]) -> None:
        """As `gateway.sandbox.launch.Launcher.change_services`."""
        if self._door is None:
            return
        self._door.change(services={each.name: each.rules() for each in services})
        self.confinement = with_services(self.confinement, self.services, services)
        self.services = services
        self.meter.set_budgets(services)

    def keep_from(self, ports: Sequence[int]) -> None:
        """As `gateway.sandbox.launch.Launcher.keep_from`."""
        for each in self._proxies:
            each.change(ports=list(ports))

    def forget_trial(self) -> None:
        """Discard what the proxy decided in a trial: the agent has not asked for anything yet."""
        for proxy in self._proxies:
            proxy.forget()

    def why_no_network(self) -> str | None:
        """Why the proxy has ended, or None if it runs or none is needed."""
        return next(filter(None, (proxy.why_ended() for proxy in self._proxies)), None)

    def close(self) -> None:
        """As `gateway.sandbox.launch.Launcher.close`."""
        self._sources.close()
        _remove(self._made)
        for proxy in self._proxies:
            proxy.close()
        if self._uids is not None:
            self._uids.release()

    def _as_it_is_now(self, home: Home | None) -> Confinement:
        """The confinement, in a folder that outlives the worker, and without what its owner has
        removed since. Raises OSError."""
        self._sources.check()
        confinement = self.confinement
        if home is not None and home.shown:
            confinement = confinement.with_home(home.path)
        if not (confinement.protected or confinement.masked):
            return confinement
        return dataclasses.replace(
            confinement,
            protected=self._sources.protected(),
            masked=self._sources.masked(),
        )

    def _limit(self, name: str) -> dict[str, Any]:
        settings = self.confinement.settings
        value = settings.memory_bytes if name == "memory" else getattr(settings, name)
        if not value:
            return _UNLIMITED
        if name in self._cgroups.folders:
            return _enforced(value, f"cgroup v{self._cgroups.version}")
        reason = self._cgroups.reasons[name]
        if name == "memory":
            return _enforced(value, "watch") | {"reason": reason}
        return {"value": value, "enforced": False, "reason": reason}

    @property
    def shared_limits(self) -> tuple[str, ...]:
        """The limits of the gateway's user that its workers count against as well, in words."""
        if self.confinement.as_root:
            return ()
        rlimits, pids = self.rlimits(), self.confinement.settings.pids
        return shared_limits(
            nofile=rlimits["nofile"], pids=pids, own_ids=self.confinement.subordinate
        )

    @property
    def _most_processes(self) -> int | None:
        return None if self.confinement.as_root else most_processes()

    @property
    def _shares_cpus(self) -> bool:
        return "cpu" in self._cgroups.folders

    @property
    def _watched_memory(self) -> int:
        held = "memory" in self._cgroups.folders
        return 0 if held else self.confinement.settings.memory_bytes

    def _new_group(self, number: int) -> tuple[Path, ...]:
        settings = self.confinement.settings
        group = self._cgroups.new(
            groups.group_name(self._token, number),
            memory=settings.memory_bytes,
            cpu=settings.cpu,
            weight=WORKER_WEIGHT,
        )
        if group:
            self._made.append(group)
        return group

    def rlimits(self) -> dict[str, int]:
        """As `gateway.sandbox.limits.rlimits.rlimits_of`, of a process inside."""
        confinement = self.confinement
        return rlimits_of(
            confinement.settings, sharing=self._sharing, own_user=confinement.changes_user
        )


def _remove(made: list[tuple[Path, ...]]) -> None:
    made[:] = [group for group in made if not groups.remove(group)]


def _mapping(mappers: Mappers, ids: Ids) -> IdMapping:
    own = Ids(os.getuid(), os.getgid())
    return IdMapping(mappers, *map_arguments(ids, own, inside=WORKER_UID))


def _enforced(value: float, by: str) -> dict[str, Any]:
    return {"value": value, "enforced": True, "by": by}
