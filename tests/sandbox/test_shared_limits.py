"""What an agent uses up of the limits that the kernel keeps by user id.

Each case runs as an ordinary user without subordinate ids, where agents share these limits with the
gateway, with them, and as root, where they do not: each is the other's control. The gateway
survives all three.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.harness import RunningGateway, running_gateway
from tests.http.raw import connected
from tests.sandbox.exhaust_agent import NOFILE
from tests.sandbox.users import WITH_IDS, as_user, need_sandbox

COMMAND = [sys.executable, "-u", str(Path(__file__).with_name("exhaust_agent.py"))]
AGENTS = f"""
[agents.hog]
command = {json.dumps(COMMAND)}
[agents.other]
command = {json.dumps(COMMAND)}
[agents.networked]
command = {json.dumps(COMMAND)}
workers = {{ min = 0 }}
sandbox.network = ["a.example.com:443"]
"""

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="needs users whose limits nobody else has"
)

OWN_UID = 1_200_000_000 + os.getpid()
"""Whose limits are used up: nobody's but this run's."""

WATCHES = int(Path("/proc/sys/fs/epoll/max_user_watches").read_text())
LONG = 250
"""Seconds for what takes a loaded machine some tens of them: a bound, never a measure."""

MOST_WATCHES = 8_000_000
"""To take them all, and to give them back, takes two processors some seconds for each million."""

EITHER = pytest.mark.parametrize("user", ["user", WITH_IDS])
ANY = pytest.mark.parametrize("user", ["user", WITH_IDS, "root"])


@asynccontextmanager
async def gateway_of(user: str, toml: str, *arguments: str) -> AsyncIterator[RunningGateway]:
    """A gateway of that user."""
    need_sandbox(user)
    # Not pytest's folder: that is private, and an ordinary user has to get there.
    with tempfile.TemporaryDirectory(prefix="limits-") as name:
        os.chmod(name, 0o755)
        async with running_gateway(
            None,
            *arguments,
            toml=toml,
            folder=Path(name),
            prefix=as_user(user, own_uid=None if user == "root" else OWN_UID),
        ) as gateway:
            yield gateway


async def ask(gateway: RunningGateway, agent: str, what: str) -> dict[str, Any]:
    path, body = f"/agent/{agent}/invoke", {"input": what}
    answer = await gateway.client.post(path, json=body, timeout=LONG)
    assert answer.status_code == 200, answer.text
    output: dict[str, Any] = answer.json()["output"]
    return output


@ANY
async def test_the_log_says_at_the_start_what_is_shared_and_what_the_kernel_does_not_hold(
    user: str,
) -> None:
    async with gateway_of(user, AGENTS) as gateway:
        sandbox = (await gateway.state("hog"))["sandbox"]
    said = "\n".join(gateway.log)  # all of it, now that the gateway has ended
    assert ("workers share limits of the gateway's user" in said) is (user == "user")
    limits = {name: each for name, each in sandbox["limits"].items() if each["value"] is not None}
    for name, each in limits.items():
        assert (f"{name} is NOT enforced: " in said) is (not each["enforced"])
        watched = each["enforced"] and "reason" in each
        assert (f"{name} is held by a watch, a moment late: " in said) is watched


@EITHER  # to take them all takes long; as root, inotify shows that the limits are the worker's own
@pytest.mark.timeout(2 * LONG)
async def test_an_agent_that_takes_all_epoll_watches_does_not_end_the_gateway(user: str) -> None:
    if WATCHES > MOST_WATCHES:
        pytest.skip(f"{WATCHES} epoll watches are too many to be used up")
    async with gateway_of(user, AGENTS) as gateway:
        assert (await ask(gateway, "hog", "watches"))["full"]
        # The connection that is open, and the worker that runs, have their watches.
        assert await ask(gateway, "other", "nothing") == {}
        [hog] = (await gateway.state("hog"))["workers"]
        async with connected(gateway.port) as fresh:
            await fresh.request("/live", method="GET")
            answer = await fresh.answer()
        if user == WITH_IDS:
            assert answer.status == 200
        else:
            assert (answer.status, answer.error["type"]) == (503, "overloaded")
            assert "No space left on device" in await gateway.logged("connection is refused")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(gateway.post, "/agent/networked/invoke", input="any"))
                said = await gateway.logged("worker not started")
                assert "its pipes cannot be watched: No space left on device" in said
                nursery.cancel_scope.cancel()
        os.kill(hog["pid"], signal.SIGKILL)
        with trio.fail_after(LONG):  # for the kernel to take them back
            while not await _is_answered(gateway.port):  # noqa: ASYNC110 - there is no event
                await trio.sleep(0.1)


async def _is_answered(port: int) -> bool:
    async with connected(port) as fresh:
        await fresh.request("/live", method="GET")
        return (await fresh.answer()).status == 200


@ANY
async def test_descriptors_in_flight_keep_no_worker_from_starting(user: str) -> None:
    async with gateway_of(user, AGENTS) as gateway:
        assert (await ask(gateway, "hog", "in_flight"))["sent"] > NOFILE
        # Its port for the proxy is sent as a descriptor before it starts.
        refused = (await ask(gateway, "networked", "may_send"))["error"]
        assert refused == ("ETOOMANYREFS" if user == "user" else None)


@pytest.mark.parametrize(
    ("user", "level"),
    [(user, level) for user in ("user", WITH_IDS) for level in ("off", "strict")]
    + [("root", "strict")],
)
async def test_an_agent_leaves_the_users_inotify_instances_alone(user: str, level: str) -> None:
    async with gateway_of(user, AGENTS, "--sandbox", level) as gateway:
        taken = await ask(gateway, "hog", "inotify")
        code = "import ctypes; print(ctypes.CDLL(None).inotify_init())"
        own_uid = None if user == "root" else OWN_UID
        command = as_user(user, sys.executable, "-c", code, own_uid=own_uid)
        said = (await trio.run_process(command, capture_stdout=True)).stdout
        if level == "strict":
            own = taken["instances"] > 0 and taken["error"] == "EMFILE"  # another user's
            assert own if user == "root" else taken == {"instances": 0, "error": "ENOSYS"}
            assert int(said) >= 0
        else:
            assert (taken["error"], int(said)) == ("EMFILE", -1)


# A gateway reduced to one worker, which takes what it can; then the gateway takes its own.
TAKE = """
import json, os, signal, subprocess, sys
from gateway.sandbox import SandboxSettings, make_launcher
made = make_launcher(
    "a", [sys.executable, "-I", "-c", sys.argv[2]], SandboxSettings(pids=0, memory="0"),
    level=sys.argv[1], environ=os.environ, cwd="/",
)
with made.launch() as launch:
    worker = subprocess.Popen(
        launch.argv, env=dict(launch.env), cwd=launch.cwd, pass_fds=launch.pass_fds,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
    )
taken = worker.stdout.readline().decode()
children = []
try:
    for _ in range(10):
        children.append(os.fork())
        if not children[-1]:
            signal.pause()
except BlockingIOError:
    pass
for each in children:
    os.kill(each, signal.SIGKILL)
    os.waitpid(each, 0)
os.killpg(worker.pid, signal.SIGKILL)
print(json.dumps([int(taken), len(children), made.describe().get("shared_limits")]))
"""

FORK = """
import os, signal
count = 0
try:
    while count < 1000:
        if not os.fork():
            signal.pause()
        count += 1
except BlockingIOError:
    pass
print(count, flush=True)
signal.pause()
"""

TIMERS = """
import ctypes, signal
libc = ctypes.CDLL(None)
count = 0
while count < 1000 and not libc.timer_create(1, None, ctypes.byref(ctypes.c_void_p())):
    count += 1
print(count, flush=True)
signal.pause()
"""


def take(user: str, level: str, code: str, *limits: str) -> tuple[int, int, list[str]]:
    need_sandbox(user)
    command = ["prlimit", *limits, sys.executable, "-c", TAKE, level, code]
    said = subprocess.check_output(
        as_user(user, *command, own_uid=OWN_UID + 10_000_000), timeout=60
    )
    taken, left, shared = json.loads(said)
    return taken, left, shared


@EITHER
def test_processes_of_workers_leave_some_to_the_gateway(user: str) -> None:
    taken, left, shared = take(user, "strict", FORK, "--nproc=200")
    assert 100 < taken < 175
    assert left == 10
    assert any("all workers can have 175 together" in each for each in shared)


def test_without_the_sandbox_processes_of_a_worker_leave_none() -> None:
    assert take("user", "off", FORK, "--nproc=200")[1] == 0


@EITHER
def test_pending_signals_of_workers_leave_half_to_the_users_programs(user: str) -> None:
    taken, _, shared = take(user, "strict", TIMERS, "--sigpending=200")
    assert 0 < taken <= 100
    assert any("all workers can have 100 together" in each for each in shared)


def test_without_the_sandbox_a_worker_takes_them_all() -> None:
    assert take("user", "off", TIMERS, "--sigpending=200")[0] == 200
