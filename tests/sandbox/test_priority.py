"""Where no control group can be had, a worker with many busy processes yields to its neighbours."""

from __future__ import annotations

import json
import os
import sys

import pytest

from gateway.workers.priority import LOWEST, levels
from tests.sandbox.users import available_users, need_sandbox, run_as

# A reduced gateway: it starts a worker that keeps processes busy, and one that does not, and says
# which priorities their processes have once it has lowered any.
GATEWAY = """
import json, os, subprocess, sys
import trio
from gateway.sandbox import SandboxSettings, make, make_launcher
from gateway.sandbox.limits.cgroups import Cgroups
from gateway.workers import priority
from gateway.workers.memory import tree

priority.WATCH_SECONDS = 0.05
make.find_cgroups = lambda: Cgroups(2, {}, {"memory": "no group", "cpu": "no group"})
spin = "for i in " + "x " * int(sys.argv[1]) + "; do while :; do :; done & done; "

def start(script):
    made = make_launcher("agent", ["sh", "-c", script], SandboxSettings(), environ=os.environ,
                         cwd="/")
    with made.launch() as launch:
        assert not launch.shares_cpus
        process = subprocess.Popen(launch.argv, env=dict(launch.env), cwd=launch.cwd,
                                   pass_fds=launch.pass_fds, stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, start_new_session=True)
    process.stdout.readline()
    return process

async def main(watched):
    told = []
    async with trio.open_nursery() as nursery:
        def tell(busy, level):
            told.append([busy, level])
            lower = priority._lower
            def last(*args):
                lower(*args)
                trio.from_thread.run_sync(nursery.cancel_scope.cancel)
                return 0
            priority._lower = last
        with trio.fail_after(60):
            for process in watched:
                nursery.start_soon(priority.lower_when_greedy, process.pid, tell)
    found = [sorted({os.getpriority(os.PRIO_PROCESS, pid) for pid in tree(each.pid)})
             for each in watched]
    print(json.dumps([told, *found]))

watched = [start(spin + "echo; wait"), start("echo; exec cat")]
try:
    trio.run(main, watched)
finally:
    for process in watched:
        process.kill()
"""


@pytest.mark.parametrize("user", available_users())
def test_a_worker_with_more_busy_processes_than_cpus_gets_a_lower_priority(user: str) -> None:
    need_sandbox(user)
    count = 3 * len(os.sched_getaffinity(0))
    before = os.getpriority(os.PRIO_PROCESS, 0)
    done = run_as(user, sys.executable, "-c", GATEWAY, str(count), timeout=120)
    told, greedy, modest = json.loads(done.stdout)
    assert modest == [before], "the control"
    assert len(told) == 1
    busy, level = told[0]
    assert busy >= 2
    assert greedy == [max(level, before)]


@pytest.mark.parametrize(
    ("busy", "cpus", "expected"),
    [(0, 2, 0), (2, 2, 0), (3, 2, 2), (4, 2, 4), (240, 2, LOWEST), (10_000, 1, LOWEST)],
)
def test_the_level_makes_all_of_them_weigh_about_as_much_as_one_for_each_cpu(
    busy: int, cpus: int, expected: int
) -> None:
    assert levels(busy, cpus) == expected
    if 0 < expected < LOWEST:
        assert busy / 1.25**expected <= cpus < busy / 1.25 ** (expected - 1)
