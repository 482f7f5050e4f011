"""A worker's control group is its own from before it starts until after it has ended."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.sandbox import SandboxSettings, StrictLauncher, make_launcher
from gateway.sandbox.limits.cgroups import group_name


@pytest.fixture
def launcher() -> StrictLauncher:
    made = make_launcher("agent", ["cat"], SandboxSettings(), environ=os.environ, cwd="/")
    assert isinstance(made, StrictLauncher)
    by = made.describe()["limits"]["memory"]["by"]
    # Not a failure in CI either: a group is the machine's to give.
    if not by.startswith("cgroup"):
        pytest.skip("there is no control group for memory here")
    return made


def group(argv: tuple[str, ...]) -> Path:
    """The folder that a start joins."""
    return next(Path(word).parent for word in argv if word.startswith("/sys/fs/cgroup/"))


def test_a_second_start_leaves_the_group_of_one_that_has_not_joined_it_yet(
    launcher: StrictLauncher,
) -> None:
    with launcher.launch() as first:
        pass
    with launcher.launch() as second:
        pass
    assert group(first.argv).is_dir()
    assert group(second.argv).is_dir()
    launcher.close()
    assert not group(first.argv).exists()


def test_a_group_is_removed_when_its_worker_has_ended(launcher: StrictLauncher) -> None:
    with launcher.launch() as first:
        pass
    first.release()
    with launcher.launch() as second:
        assert not group(first.argv).exists()
    second.release()
    launcher.close()


def test_a_workers_group_weighs_half_of_what_a_group_does_by_default(
    launcher: StrictLauncher,
) -> None:
    with launcher.launch() as launch:
        pass
    groups = {Path(word).parent for word in launch.argv if word.startswith("/sys/fs/cgroup/")}
    weights = [
        (int(path.read_text()), default_of(path))
        for group in groups
        for path in (group / "cpu.shares", group / "cpu.weight")
        if path.exists()
    ]
    launcher.close()
    if not weights:
        pytest.skip("there is no control group for cpu here")
    [(own, default)] = weights
    assert own == default // 2


def default_of(path: Path) -> int:
    """What this file of a group says in a new group beside it."""
    new = path.parent.with_name(group_name("default", os.getpid()))
    new.mkdir()
    try:
        return int((new / path.name).read_text())
    finally:
        new.rmdir()


def test_a_start_that_failed_leaves_no_group(launcher: StrictLauncher) -> None:
    with pytest.raises(OSError, match="no process"), launcher.launch() as launch:
        raise OSError("no process")
    launcher.remove_groups()
    assert not group(launch.argv).exists()
