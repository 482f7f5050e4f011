"""Which control groups may be divided, and what is written into them, on copies of the files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.sandbox.limits import cgroups
from gateway.sandbox.limits.cgroups import Cgroups, find_cgroups, remove


@pytest.fixture
def top(tmp_path: Path) -> Path:
    return tmp_path / "cgroup"


def version_1(top: Path) -> tuple[str, str]:
    for controller in ("memory", "cpu,cpuacct"):
        (top / controller / "own").mkdir(parents=True)
    mounts = (
        f"cgroup {top}/memory cgroup rw,memory 0 0\n"
        f"cgroup {top}/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\n"
        f"cgroup2 {top}/unified cgroup2 rw 0 0\n"
        "tmpfs /tmp tmpfs rw 0 0\n"
    )
    return mounts, "4:memory:/own\n1:cpu,cpuacct:/own\n0::/\n"


VERSIONS = [(1, "cpu.shares", "102"), (2, "cpu.weight", "10")]


def version_2(group: Path, *, controllers: str = "cpu memory pids", enabled: str = "") -> None:
    """The files that a real group would have."""
    group.mkdir(parents=True, exist_ok=True)
    (group / "cgroup.controllers").write_text(controllers)
    (group / "cgroup.subtree_control").write_text(enabled)
    (group / "cgroup.procs").write_text(f"{os.getpid()}\n")


def find_version_2(top: Path, own: str) -> Cgroups:
    return find_cgroups(mounts=f"cgroup2 {top} cgroup2 rw 0 0\n", own=f"0::{own}\n")


def test_version_1_divides_the_own_group_of_each_hierarchy(top: Path) -> None:
    mounts, own = version_1(top)
    found = find_cgroups(mounts=mounts, own=own)
    assert found.version == 1
    assert found.folders == {"memory": top / "memory/own", "cpu": top / "cpu,cpuacct/own"}
    assert found.reasons == {}


def test_in_a_container_version_1_divides_the_top_of_what_is_visible(top: Path) -> None:
    mounts, own = version_1(top)
    found = find_cgroups(mounts=mounts, own=own.replace("/own", "/docker/0123"))
    assert found.folders == {"memory": top / "memory", "cpu": top / "cpu,cpuacct"}


def test_a_hierarchy_that_is_not_there_is_reported(top: Path) -> None:
    mounts, own = version_1(top)
    found = find_cgroups(mounts=mounts.split("\n", 1)[1], own=own)
    assert list(found.folders) == ["cpu"]
    assert "no such control group" in found.reasons["memory"]


def test_version_1_limits_are_written_where_the_kernel_reads_them(top: Path) -> None:
    found = find_cgroups(mounts=version_1(top)[0], own=version_1_own())
    group = found.new("worker", memory=1 << 20, cpu=0.5)
    memory, cpu = top / "memory/own/worker", top / "cpu,cpuacct/own/worker"
    assert group == (memory, cpu)
    assert (memory / "memory.limit_in_bytes").read_text() == "1048576"
    assert (cpu / "cpu.cfs_quota_us").read_text() == "50000"
    assert found.join_file == "tasks"


@pytest.mark.parametrize(("version", "file", "text"), VERSIONS)
def test_a_weight_is_set_where_the_controller_is_even_without_a_limit(
    tmp_path: Path, version: int, file: str, text: str
) -> None:
    found = Cgroups(version, {"memory": tmp_path, "cpu": tmp_path})
    assert found.new("worker", weight=10) == (tmp_path / "worker",)
    assert (tmp_path / "worker" / file).read_text() == text
    assert Cgroups(version, {"memory": tmp_path}).new("other", weight=10) == ()


def version_1_own() -> str:
    return "4:memory:/own\n1:cpu,cpuacct:/own\n"


def test_without_a_limit_there_is_no_group(top: Path) -> None:
    mounts, own = version_1(top)
    assert find_cgroups(mounts=mounts, own=own).new("worker") == ()


def test_a_delegated_group_is_divided_after_the_gateway_has_moved_into_a_leaf(
    top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = top / "system.slice/gateway.service"
    version_2(own)
    delegate(own, monkeypatch)
    found = find_version_2(top, "/system.slice/gateway.service")
    assert found.folders == {"memory": own, "cpu": own}
    assert (own / "gateway/cgroup.procs").read_text() == str(os.getpid())
    assert (own / "cgroup.subtree_control").read_text() == "+memory +cpu"


def test_a_gateway_in_a_leaf_divides_the_group_above(
    top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With systemd's DelegateSubgroup, and when a second agent asks."""
    own = top / "gateway.service"
    version_2(own, enabled="cpu memory pids")
    version_2(own / "leaf")
    delegate(own, monkeypatch)
    found = find_version_2(top, "/gateway.service/leaf")
    assert found.folders == {"memory": own, "cpu": own}
    assert not (own / "gateway").exists()


def test_roots_own_group_is_left_alone_when_nobody_handed_it_over(
    top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = top / "user.slice/session-1.scope"
    version_2(own)
    delegate(None, monkeypatch)
    found = find_version_2(top, "/user.slice/session-1.scope")
    assert found.folders == {}
    assert "Delegate=yes" in found.reasons["memory"]
    assert not (own / "gateway").exists()


def test_the_top_group_of_a_container_is_divided(
    top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version_2(top)
    delegate(None, monkeypatch)
    assert find_version_2(top, "/").folders == {"memory": top, "cpu": top}


def test_a_controller_that_was_not_handed_over_is_reported(
    top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version_2(top, controllers="cpu")
    delegate(None, monkeypatch)
    found = find_version_2(top, "/")
    assert found.folders == {"cpu": top}
    assert "has no memory controller" in found.reasons["memory"]


def test_version_2_limits_are_written_where_the_kernel_reads_them(tmp_path: Path) -> None:
    found = Cgroups(2, {"memory": tmp_path, "cpu": tmp_path})
    (group,) = found.new("worker", memory=1 << 20, cpu=2)
    written = {path.name: path.read_text() for path in group.iterdir()}
    assert written == {
        "memory.max": "1048576",
        "memory.oom.group": "1",
        "cpu.max": "200000 100000",
    }
    assert found.join_file == "cgroup.procs"


def test_swap_is_limited_where_the_kernel_counts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Cgroups(2, {"memory": tmp_path})
    make = Path.mkdir

    def mkdir_as_the_kernel_does(self: Path) -> None:
        make(self)
        (self / "memory.swap.max").write_text("max")

    monkeypatch.setattr(Path, "mkdir", mkdir_as_the_kernel_does)
    (group,) = found.new("worker", memory=1 << 20)
    assert (group / "memory.swap.max").read_text() == "0ax"


def test_an_empty_group_is_removed_and_a_busy_one_is_kept(tmp_path: Path) -> None:
    empty, busy = tmp_path / "empty", tmp_path / "busy"
    empty.mkdir()
    (busy / "process").mkdir(parents=True)
    assert remove([empty])
    assert not remove((busy,))
    assert remove([empty])  # it is gone already


def delegate(group: Path | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mark the group as systemd does; in a folder of files such attributes may not be allowed."""
    monkeypatch.setattr(cgroups, "_is_marked", lambda each: each == group)
    monkeypatch.setattr(cgroups.os, "geteuid", lambda: 0)
