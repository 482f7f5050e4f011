"""One run of the benchmarks: its length, its rounds, and the context that each measure gets."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks import servers
from tests.benchmarks.figures import Figure, Target
from tests.benchmarks.servers import Server

Samples = dict[str, float]
"""One server's results in one round, by quantity."""


@dataclass
class Bench:
    """The settings of a run, and the work common to all measures."""

    folder: Path
    rounds: int = 5
    seconds: float = 2.0
    """Length of the load on one server in one round."""
    quick: bool = False
    """Only check that it works: one round, as little load as possible, meaningless figures."""
    peers: Mapping[str, Any] = field(default_factory=dict)
    baseline: str | None = None
    """The command of another gateway, of an earlier version perhaps, to measure beside this one."""

    def scaled(self, normal: int, quick: int) -> int:
        """A count of streams, requests or chunks, for this kind of run."""
        return quick if self.quick else normal

    def interleave(
        self,
        subjects: Mapping[str, Callable[[], Samples]],
        *,
        rounds: int | None = None,
        rehearse: bool = True,
    ) -> dict[str, dict[str, list[float]]]:
        """Let each subject do its work once a round; returns samples by quantity and subject.

        With `rehearse`, one extra round comes first and is not counted. Each round begins with a
        different subject, so that none is always first.
        """
        taken: dict[str, dict[str, list[float]]] = {}
        names = list(subjects)
        if rehearse and not self.quick:
            for name in names:
                subjects[name]()
        for number in range(rounds or self.rounds):
            shift = number % len(names)
            for name in names[shift:] + names[:shift]:
                for quantity, value in subjects[name]().items():
                    taken.setdefault(quantity, {}).setdefault(name, []).append(value)
            print(".", end="", file=sys.stderr, flush=True)
        return taken

    @contextmanager
    def all_servers(
        self,
        agents: Mapping[str, Mapping[str, Any]],
        *,
        bare: bool = True,
        raw_asgi: bool = True,
        without_sandbox: bool = True,
        peers: Sequence[str] = (),
    ) -> Iterator[dict[str, Server]]:
        """The gateway with these agents and the references, all running at once, by name."""
        with ExitStack() as stack:
            running = {"gateway": stack.enter_context(servers.gateway(self.folder, agents=agents))}
            if without_sandbox and not self.quick:
                running[NO_SANDBOX] = stack.enter_context(
                    servers.gateway(self.folder, agents=agents, sandbox="off", name=NO_SANDBOX)
                )
            if self.baseline is not None:
                running[BASELINE] = stack.enter_context(self.start_baseline(agents))
            if bare:
                running["bare"] = stack.enter_context(servers.bare(self.folder))
            if raw_asgi:
                running["raw ASGI"] = stack.enter_context(servers.raw_asgi(self.folder))
            for name in peers:
                if name in self.peers:
                    running[name] = stack.enter_context(self.peers[name](self.folder))
            yield running

    def start_baseline(
        self, agents: Mapping[str, Mapping[str, Any]]
    ) -> AbstractContextManager[Server]:
        """The gateway of `baseline` with these agents."""
        assert self.baseline is not None
        return servers.gateway(
            self.folder,
            agents=agents,
            server={},  # an earlier version may have no access log to switch off
            name=BASELINE,
            program=[self.baseline],
        )


NO_SANDBOX = "gateway, sandbox off"
BASELINE = "baseline"
NO_SLOWER = Target(BASELINE, at_least=0.97)
"""What a change may cost that is not about speed."""


@dataclass(frozen=True)
class Measure:
    """One measure: its name for `--only`, a description, and the function that runs it."""

    name: str
    about: str
    run: Callable[[Bench], Iterable[Figure]]
    needs_wrk: bool = False
