"""What an earlier gateway left in control groups is ended, if it is certain that it has ended.

Any user may keep folders with the files of groups; where root can make groups, they are real ones.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.sandbox.limits import claims
from gateway.sandbox.limits.cgroups import find_cgroups, group_name
from gateway.sandbox.limits.claims import OWN, PREFIX, Claim, take_over
from tests.sandbox.running import PATIENCE
from tests.sandbox.users import PROJECT

DEAD = PREFIX + "0" * 16

# A gateway that makes a claim and a group with one process, says so, and waits to be killed.
GATEWAY = """
import subprocess, sys
from pathlib import Path
from gateway.sandbox.limits import cgroups, claims
parent, real = Path(sys.argv[1]), sys.argv[2] == "real"
claims.take_over([parent])
group = parent / cgroups.group_name("test", 0)
group.mkdir()
left = subprocess.Popen(["sleep", "1000"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
(group / "cgroup.procs").write_text(str(left.pid))
print(group, left.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture(params=["files", "divided", "version 2"])
def parent(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder of files; a group of those that the gateway divides; one of version 2, where only
    the kernel's own means end processes."""
    if request.param == "files":
        yield tmp_path
        return
    folder = find_cgroups().folders.get("memory") if request.param == "divided" else version_2()
    if folder is None:  # not a failure in CI either: a group is the machine's to give
        pytest.skip("there is no control group that may be divided here")
    group = folder / group_name("claims", os.getpid())
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no group can be made in {folder}: {error.strerror}")
    yield group
    for inner in group.glob("*/"):
        claims.end_processes(inner)
        inner.rmdir()
    group.rmdir()


def version_2() -> Path | None:
    """The test's own group of version 2, mounted alone or beside version 1, if it can be killed."""
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    tops = [Path(line.split()[1]) for line in mounts if line.split()[2] == "cgroup2"]
    own = Path("/proc/self/cgroup").read_text().partition("0::/")[2].partition("\n")[0]
    # In a container, the path may be the host's.
    groups = [group for top in tops[:1] for group in (top / own, top) if group.is_dir()]
    return groups[0] if groups else None


@contextlib.contextmanager
def earlier(parent: Path) -> Iterator[tuple[subprocess.Popen[str], Path, int]]:
    """An earlier gateway, its group, and a descriptor of the process that it keeps there."""
    kind = "real" if parent.is_relative_to("/sys") else "files"
    with subprocess.Popen(
        [sys.executable, "-c", GATEWAY, str(parent), kind],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as gateway:
        assert gateway.stdout is not None
        group, pid = gateway.stdout.readline().split()
        left = os.pidfd_open(int(pid))
        try:
            yield gateway, Path(group), left
        finally:
            gateway.kill()
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(left, signal.SIGKILL)
            os.close(left)


def lives(pidfd: int) -> bool:
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except ProcessLookupError:
        return False
    return not select.select([pidfd], [], [], 0)[0]


def test_what_a_killed_gateway_left_is_ended_and_what_a_living_one_has_is_not(
    parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = parent.is_relative_to("/sys")
    if not real:  # a file goes on naming the process
        monkeypatch.setattr(claims, "ROUNDS", 1)
    elif (parent / "cgroup.kill").exists():  # the one means of version 2
        monkeypatch.setattr(claims, "_kill_in", None)
    with earlier(parent) as (dead, group, left), earlier(parent) as (_, neighbours, other):
        dead.kill()
        dead.wait()
        assert lives(left)  # the control: nothing else ends it
        claims._sweep(parent)
        assert select.select([left], [], [], PATIENCE)[0]
        assert lives(other)
        assert neighbours.is_dir()
        if real:
            assert not group.exists()
            assert not (parent / group.name.rpartition("-test-")[0]).exists()
            # What the living one has is taken over only once its process is gone, too.
            signal.pidfd_send_signal(other, signal.SIGKILL)
    claims._sweep(parent)


# Never the same process for long: who reads its id and kills by it comes too late.
RUNAWAY = """
import os, sys, time
with open(sys.argv[1] + "/cgroup.procs", "w") as file:
    file.write(str(os.getpid()))
print("there", flush=True)
os.close(1)
end = time.monotonic() + 100
while time.monotonic() < end:
    if os.fork():
        os._exit(0)
"""


def test_version_2_ends_a_process_that_forks_away_from_every_signal(
    parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (parent / "cgroup.kill").exists():
        pytest.skip("this is no group of version 2")
    monkeypatch.setattr(claims, "_kill_in", None)
    group = parent / group_name("runaway", 0)
    group.mkdir()
    lifeline, held = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", RUNAWAY, str(group)], stdout=subprocess.PIPE, pass_fds=(held,)
    ) as first:
        os.close(held)
        assert first.stdout is not None
        assert first.stdout.readline() == b"there\n"
        first.wait()
    # The control: it goes on without the process that was started, and holds its end of a pipe.
    assert not select.select([lifeline], [], [], 0)[0]
    assert claims.end_processes(group) > 0
    assert select.select([lifeline], [], [], PATIENCE)[0]
    os.close(lifeline)


def test_a_group_without_a_claim_or_of_another_name_is_left_alone(tmp_path: Path) -> None:
    for name in (f"{DEAD}-test-0", "agent-gateway-web", "somebody-else"):
        (tmp_path / name).mkdir()
    before = sorted(tmp_path.iterdir())
    claims._sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == before
    (tmp_path / f"{DEAD}-test-0/cgroup.procs").write_text("")
    (tmp_path / DEAD).mkdir()  # the control: the group of a claim that nobody holds
    with pytest.raises(OSError, match="not empty"):  # only of a copy
        claims._end_all(tmp_path / DEAD)


def test_a_claim_is_given_up_in_good_order_and_one_with_groups_is_left_to_be_found(
    tmp_path: Path,
) -> None:
    for busy, left in ((False, []), (True, [DEAD, f"{DEAD}-test-0"])):
        claim = Claim(tmp_path / DEAD)
        assert repr(claim) == f"<Claim {tmp_path / DEAD}>"
        claims._sweep(tmp_path)
        assert [each.name for each in tmp_path.iterdir()] == [DEAD]
        if busy:
            (tmp_path / f"{DEAD}-test-0").mkdir()
        del claim
        assert sorted(each.name for each in tmp_path.iterdir()) == left


def test_a_claim_that_was_taken_for_a_dead_ones_while_it_was_made_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = claims._lock

    def too_late(folder: Path) -> int | None:
        monkeypatch.setattr(claims, "_lock", lock)
        claims._sweep(tmp_path)
        return lock(folder)

    monkeypatch.setattr(claims, "_lock", too_late)
    claim = Claim(tmp_path / DEAD)
    assert (tmp_path / DEAD).is_dir()
    monkeypatch.setattr(claims, "_lock", lock)
    assert claims._lock(tmp_path / DEAD) is None
    del claim


def test_each_place_is_claimed_once_by_a_process(tmp_path: Path) -> None:
    take_over([tmp_path])
    take_over([tmp_path])
    assert [each.name for each in tmp_path.iterdir()] == [OWN]


def test_a_process_that_has_left_the_group_is_not_ended(tmp_path: Path) -> None:
    """Its id was read from the group, and may be another's by now."""
    (tmp_path / "cgroup.procs").write_text("0\n")
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as other:
        claims._kill_in(tmp_path, other.pid)
        assert other.poll() is None
        (tmp_path / "cgroup.procs").write_text(f"{other.pid}\n")  # the control
        claims._kill_in(tmp_path, other.pid)
        assert other.wait() == -signal.SIGKILL
    claims._kill_in(tmp_path, other.pid)  # it is gone: no error
