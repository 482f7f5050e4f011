"""The sandboxes of all agents: each that is unlike the others is tried, and tried once."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from gateway.sandbox import SandboxError, SandboxSettings, make_launcher, trials
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


def test_agents_that_see_or_may_do_something_else_are_tried_each(
    tried: list[Launcher], tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    unlike = {
        "a": launcher(),
        "b": launcher(mounts_ro=(str(tmp_path),)),
        "c": launcher(pids=100),
        "d": launcher(network=True),
        "e": PlainLauncher(("true",), {}),
    }
    trials.try_sandboxes(unlike)
    assert {id(each) for each in tried} == {id(unlike[name]) for name in "abcd"}


def test_trials_run_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2, timeout=PATIENCE)
    monkeypatch.setattr(trials, "try_sandbox", lambda launcher, secrets: both.wait())
    trials.try_sandboxes({"a": launcher(), "b": launcher(pids=100)})


def test_a_sandbox_that_does_not_hold_is_an_error_that_names_its_agents(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(launcher: Launcher, secrets: object) -> None:
        raise SandboxError("it does not hold")

    monkeypatch.setattr(trials, "try_sandbox", fail)
    with pytest.raises(SandboxError, match="agent 'a' and 1 like it: it does not hold"):
        trials.try_sandboxes({"a": launcher(), "b": launcher()})
    with pytest.raises(SandboxError, match="agent 'c': it does not hold"):
        trials.try_sandboxes({"c": launcher()})
