"""The sandboxes of all agents: each that is unlike the others is tried, and tried once."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from gateway.sandbox import SandboxError, SandboxSettings, StrictLauncher, make_launcher, trials
from gateway.sandbox.launch import Launcher
from gateway.sandbox.plain import PlainLauncher
from tests.conftest import need
from tests.faults.scene import HAS_STRICT

PATIENCE = 20
"""Seconds for threads to meet."""


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[Launcher]:
    """The launchers whose sandboxes were tried, as far as these tests are concerned."""
    found: list[Launcher] = []
    monkeypatch.setattr(trials, "try_sandbox", lambda launcher, secrets: found.append(launcher))
    return found


def launcher(*argv: str, **settings: object) -> Launcher:
    need(HAS_STRICT, "the strict sandbox needs bubblewrap")
    settings_ = SandboxSettings(**settings)  # type: ignore[arg-type]
    return make_launcher("a", argv or ["true"], settings_, environ=os.environ, cwd="/")


def strict(launchers: dict[str, Launcher]) -> list[StrictLauncher]:
    return [each for each in launchers.values() if isinstance(each, StrictLauncher)]


def test_agents_whose_sandboxes_are_alike_are_tried_once(tried: list[Launcher]) -> None:
    alike = {
        "a": launcher("true"),
        "b": launcher("true"),
        "c": launcher("cat"),
        "d": launcher(env={"NAME": "value"}),
    }
    done: list[tuple[int, int]] = []
    trials.try_sandboxes(alike, progress=lambda *numbers: done.append(numbers))
    assert tried == [alike["a"]]
    assert done == [(0, 1), (1, 1)]


def test_agents_that_may_do_something_else_are_tried_each(tried: list[Launcher]) -> None:
    unlike = {
        "a": launcher(),
        "b": launcher(pids=100),
        "c": launcher(network=True),
        "d": PlainLauncher(("true",), {}),
    }
    trials.try_sandboxes(unlike)
    assert {id(each) for each in tried} == {id(unlike[name]) for name in "abc"}


def folder(path: Path, mode: int = 0o755) -> str:
    for each in (path.parent, path):
        each.mkdir(exist_ok=True)
        each.chmod(0o755)
    path.chmod(mode)
    return str(path)


def test_agents_that_see_something_else_are_tried_with_all_that_they_see(
    tried: list[Launcher], tmp_path: Path
) -> None:
    one, other = folder(tmp_path / "one"), folder(tmp_path / "other")
    trials.try_sandboxes({"a": launcher(mounts_ro=(one,)), "b": launcher(mounts_ro=(other,))})
    (both,) = tried
    assert isinstance(both, StrictLauncher)
    assert {one, other} <= {mount.path for mount in both.confinement.mounts}


def test_what_one_may_only_read_and_the_other_write_is_tried_apart(
    tried: list[Launcher], tmp_path: Path
) -> None:
    path = folder(tmp_path / "one", 0o777)
    trials.try_sandboxes({"a": launcher(mounts_ro=(path,)), "b": launcher(mounts_rw=(path,))})
    assert len(tried) == 2


def test_a_real_trial_of_many_that_see_something_else(tmp_path: Path) -> None:
    launchers = {f"a{n}": launcher(mounts_ro=(folder(tmp_path / str(n)),)) for n in range(30)}
    launchers["w"] = launcher(mounts_rw=(folder(tmp_path / "w", 0o777),))
    done: list[tuple[int, int]] = []
    trials.try_sandboxes(launchers, progress=lambda *numbers: done.append(numbers))
    # An ordinary user with subordinate ids has workers of its own and others.
    kinds = len({each.confinement.subordinate for each in strict(launchers)})
    assert done[-1] == (kinds, kinds)


def test_trials_run_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2, timeout=PATIENCE)
    monkeypatch.setattr(trials, "try_sandbox", lambda launcher, secrets: both.wait())
    trials.try_sandboxes({"a": launcher(), "b": launcher(pids=100)})


def test_a_sandbox_that_does_not_hold_is_an_error_that_names_its_agent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bad = folder(tmp_path / "bad")

    def fail(launcher: StrictLauncher, secrets: object) -> None:
        if bad in {mount.path for mount in launcher.confinement.mounts}:
            raise SandboxError("it does not hold")

    monkeypatch.setattr(trials, "try_sandbox", fail)
    launchers = {"a": launcher(), "b": launcher(mounts_ro=(bad,)), "c": launcher()}
    with pytest.raises(SandboxError, match="agent 'b': it does not hold"):
        trials.try_sandboxes(launchers)


def test_sandboxes_that_hold_each_for_itself_hold(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    paths = {folder(tmp_path / "one"), folder(tmp_path / "other")}

    def fail(launcher: StrictLauncher, secrets: object) -> None:
        if paths <= {mount.path for mount in launcher.confinement.mounts}:
            raise SandboxError("not together")

    monkeypatch.setattr(trials, "try_sandbox", fail)
    trials.try_sandboxes({path: launcher(mounts_ro=(path,)) for path in paths})
