"""The trial before serving: it passes in a sandbox, and says what is wrong with one that leaks."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.sandbox import SandboxError, SandboxSettings, StrictLauncher, make_launcher, strict
from gateway.sandbox.bwrap import Confinement
from gateway.sandbox.files.mounts import Mount
from gateway.sandbox.launch import Launch
from gateway.sandbox.plain import PlainLauncher
from gateway.sandbox.refusals import explain_refusal
from gateway.sandbox.trial import Findings, _judge, try_sandbox
from tests.sandbox.users import need_sandbox

USER = "root" if os.geteuid() == 0 else "user"


@pytest.fixture
def launcher() -> StrictLauncher:
    need_sandbox(USER)
    made = make_launcher("agent", ["true"], SandboxSettings(), environ=os.environ, cwd="/")
    assert isinstance(made, StrictLauncher)
    return made


def test_a_sandbox_that_holds_says_what_holds(launcher: StrictLauncher) -> None:
    held = try_sandbox(launcher)
    assert "secrets cannot be read" in held
    assert "the gateway's ports cannot be reached" in held
    assert "no capabilities" in held


def test_the_least_that_the_settings_allow_is_enough_for_a_sandbox() -> None:
    need_sandbox(USER)
    least = SandboxSettings(memory="16M", pids=8, nofile=16, tmp=4096, fsize=1, cpu=0.01)
    made = make_launcher("agent", ["true"], least, environ=os.environ, cwd="/")
    assert "resource limits are in force" in try_sandbox(made)


def test_off_is_not_tried() -> None:
    assert try_sandbox(PlainLauncher(("true",), {})) == ()


def leaking(monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    """Take these options from bubblewrap behind the launcher's back."""
    make_options = strict.bwrap_options

    def fewer(*args: Any, **kwargs: Any) -> list[str]:
        return [each for each in make_options(*args, **kwargs) if each not in options]

    monkeypatch.setattr(strict, "bwrap_options", fewer)


def test_a_secret_that_can_be_read_is_a_refusal(launcher: StrictLauncher, tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text("x")
    tmp_path.chmod(0o755)
    shown = Mount(str(tmp_path), str(tmp_path))
    leaky = launcher.with_confinement(replace(launcher.confinement, mounts=(shown,)))
    with pytest.raises(SandboxError, match=r"does not hold: it can read .*/key"):
        try_sandbox(leaky, secrets=[str(secret)])


def test_a_shared_network_is_a_refusal(
    launcher: StrictLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaking(monkeypatch, "--unshare-net")
    with pytest.raises(SandboxError, match="does not hold: it can connect"):
        try_sandbox(launcher)


def test_a_missing_filter_is_a_refusal(launcher: StrictLauncher) -> None:
    allow_all = bytes.fromhex("060000000000ff7f")
    with pytest.raises(SandboxError, match="does not hold: system calls are not filtered"):
        try_sandbox(launcher.with_confinement(replace(launcher.confinement, seccomp=allow_all)))


def test_a_shared_process_table_is_a_refusal(
    launcher: StrictLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaking(monkeypatch, "--unshare-pid")
    with pytest.raises(SandboxError, match=r"does not hold: .*processes|cannot be put in force"):
        try_sandbox(launcher)


def test_a_set_up_that_fails_is_a_refusal_with_its_reason(launcher: StrictLauncher) -> None:
    gone = launcher.with_confinement(
        replace(launcher.confinement, mounts=(Mount("/x", "/nothing/there"),))
    )
    with pytest.raises(SandboxError, match="cannot be put in force: what is to be mounted"):
        try_sandbox(gone)


def test_a_trial_that_says_nothing_is_a_refusal(launcher: StrictLauncher) -> None:
    class Silent(StrictLauncher):
        def with_confinement(self, confinement: Confinement) -> StrictLauncher:
            del confinement
            return self

        @contextmanager
        def launch(self, conversation: str | None = None) -> Iterator[Launch]:
            yield Launch((sys.executable, "-c", "pass"), {})

    silent = Silent(
        launcher.confinement,
        tools=launcher._tools,
        cgroups=launcher._cgroups,
        uids=None,
        guard=launcher._guard,
    )
    with pytest.raises(SandboxError, match="cannot be put in force: it said nothing"):
        try_sandbox(silent)


LIMITS = {"nofile": 64, "nproc": 20}
GOOD = Findings(
    readable=[],
    writable=[],
    connected=False,
    unix_socket=False,
    rlimits={"nofile": 64, "fsize": -1, "nproc": 20},
    processes=2,
    CapInh="0" * 16,
    CapPrm="0" * 16,
    CapEff="0" * 16,
    CapBnd="0" * 16,
    CapAmb="0" * 16,
    NoNewPrivs="1",
    Seccomp="2",
)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"writable": ["/usr"]}, "it can write"),
        ({"CapEff": "000001ffffffffff"}, "it has capabilities"),
        ({"NoNewPrivs": "0"}, "it can gain privileges"),
        ({"Seccomp": "0"}, "system calls are not filtered"),
        ({"unix_socket": True}, "system calls are not filtered"),
        ({"processes": 90}, "it sees 90 processes"),
        ({"rlimits": {"nofile": 65, "fsize": -1, "nproc": 20}}, "its limits are .* instead of"),
    ],
)
def test_each_finding_is_judged(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SandboxError, match=complaint):
        _judge(msgspec.structs.replace(GOOD, **change), uid=5, as_root=True, rlimits=LIMITS)


def test_a_worker_that_is_root_outside_is_a_refusal() -> None:
    assert _judge(GOOD, uid=5, as_root=True, rlimits=LIMITS)
    for uid in (0, None):
        with pytest.raises(SandboxError, match="its user id outside is"):
            _judge(GOOD, uid=uid, as_root=True, rlimits=LIMITS)


@pytest.mark.parametrize(
    ("said", "meaning"),
    [
        (
            (
                "bwrap: No permissions to create new namespace, likely because the kernel does not "
                "allow non-privileged user namespaces."
            ),
            "forbids user namespaces.*seccomp=unconfined.*unprivileged_userns_clone=1",
        ),
        (
            "bwrap: setting up uid map: Permission denied",
            "AppArmor.*apparmor_restrict_unprivileged_userns=0",
        ),
        (
            "bwrap: loopback: Failed RTM_NEWADDR: Operation not permitted",
            "AppArmor.*apparmor_restrict_unprivileged_userns=0",
        ),
        ("bwrap: Can't mount proc on /newroot/proc: Operation not permitted", "systempaths=unconf"),
        (
            (
                "bwrap: Creating new namespace failed: nesting depth or "
                "/proc/sys/user/max_*_namespaces exceeded (ENOSPC)"
            ),
            "raise user.max_",
        ),
        ("bwrap: Unknown option --disable-userns", "too old: install 0.8"),
        ("bwrap: Failed to make / slave: Permission denied", "CAP_SYS_ADMIN"),
        (
            "setpriv: failed to execute agent: No such file or directory",
            "name its folder in mounts",
        ),
        ("setpriv: failed to execute /x/python: Permission denied", "name its folder in mounts_ro"),
        ("bwrap: something new", "^bwrap: something new$"),
    ],
)
def test_each_known_refusal_says_what_to_install_or_allow(said: str, meaning: str) -> None:
    explained = explain_refusal(["a word of the agent", said])
    assert explained is not None
    assert re.search(meaning, explained)
    assert said in explained
    assert "\n" not in explained


def test_what_an_agent_says_is_not_a_refusal() -> None:
    assert explain_refusal(["Traceback", "ValueError: bwrap"]) is None
