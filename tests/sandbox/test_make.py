"""From a command and settings to a launcher: at the level that was asked for, or not at all."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.sandbox import SandboxError, SandboxSettings, make, make_launcher, tools
from gateway.sandbox.limits.cgroups import Cgroups
from gateway.sandbox.plain import PlainLauncher
from gateway.sandbox.strict import StrictLauncher
from tests.sandbox.running import lines_of
from tests.sandbox.users import need, need_sandbox

USER = "root" if os.geteuid() == 0 else "user"


def launcher(*argv: str, cwd: str = "/", environ: Any = None, **settings: Any) -> StrictLauncher:
    need("bwrap")
    made = make_launcher(
        "agent",
        argv or ("true",),
        SandboxSettings(**settings),
        environ=os.environ if environ is None else environ,
        cwd=cwd,
    )
    assert isinstance(made, StrictLauncher)
    return made


def output(launcher: StrictLauncher) -> str:
    """What a worker of the launcher prints."""
    need_sandbox(USER)
    return "\n".join(lines_of(launcher))


@pytest.fixture
def open_folder(tmp_path: Path) -> Path:
    """A folder that a worker with another user id can reach: pytest's own is private."""
    tmp_path.chmod(0o755)
    return tmp_path


def test_strict_is_the_default() -> None:
    assert launcher().describe()["level"] == "strict"


def test_off_is_chosen_by_name_and_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        made = make_launcher(
            "careless", ["true"], SandboxSettings(), level="off", environ={}, cwd="/"
        )
    assert isinstance(made, PlainLauncher)
    assert made.describe()["level"] == "off"
    assert "'careless' runs WITHOUT a sandbox" in caplog.text


@pytest.mark.parametrize("tool", ["bwrap", "setpriv"])
def test_a_missing_tool_is_named_with_its_package(
    monkeypatch: pytest.MonkeyPatch, tool: str
) -> None:
    which = tools.shutil.which
    monkeypatch.setattr(
        tools.shutil, "which", lambda name, **rest: None if name == tool else which(name, **rest)
    )
    with pytest.raises(SandboxError, match=f"agent 'agent': {tool} is missing: install"):
        make_launcher("agent", ["true"], SandboxSettings(), environ=os.environ, cwd="/")


def test_a_bubblewrap_that_is_too_old_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "bwrap"
    old.write_text("#!/bin/sh\necho bubblewrap 0.6.1\n")
    old.chmod(0o755)
    with pytest.raises(
        SandboxError, match=r"'bubblewrap 0.6.1': bubblewrap 0.8 or newer is needed"
    ):
        tools._check_version(str(old))


def test_a_command_that_does_not_exist_names_the_agent() -> None:
    with pytest.raises(SandboxError, match="agent 'agent': there is no command 'nothing-such'"):
        launcher("nothing-such")


def test_a_limit_that_is_required_and_cannot_be_had_is_a_refusal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    none = Cgroups(2, {}, {"memory": "no group", "cpu": "no group"})
    monkeypatch.setattr(make, "find_cgroups", lambda: none)
    assert launcher().describe()["limits"]["memory"] == {
        "value": 1 << 30,
        "enforced": True,
        "by": "watch",
        "reason": "no group",
    }
    assert launcher(cpu=0.5).describe()["limits"]["cpu"]["enforced"] is False
    with pytest.raises(SandboxError, match="'memory', which cannot be enforced here: no group"):
        launcher(require=("memory",))
    assert launcher(require=("pids",)).describe()["limits"]["pids"]["enforced"]


def test_a_limit_that_is_required_and_not_set_is_a_refusal() -> None:
    with pytest.raises(SandboxError, match="require names 'cpu', for which no limit is set"):
        launcher(require=("cpu",))


def test_nothing_of_the_gateways_environment_is_visible_but_what_is_allowed() -> None:
    environ = {"PATH": os.environ["PATH"], "KEY": "secret", "REGION": "north", "LANG": "xx"}
    made = launcher("env", environ=environ, env={"MODE": "test"}, env_allow=("REGION",))
    seen = dict(line.split("=", 1) for line in output(made).splitlines())
    assert seen.pop("PATH").split(":")[0] == "/usr/bin"
    # PWD is bubblewrap's.
    assert {**seen, "PWD": "/"} == {
        "DENO_V8_FLAGS": "--max-old-space-size=768",
        "HOME": "/tmp",
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "MODE": "test",
        "NODE_OPTIONS": "--max-old-space-size=768",
        "REGION": "north",
        "PWD": "/",
    }


@pytest.mark.parametrize("name", ["LD_PRELOAD", "LD_LIBRARY_PATH", "GCONV_PATH"])
def test_a_variable_that_acts_on_the_loader_is_a_refusal(name: str) -> None:
    """The sandbox's own programs would load what the agent may have written."""
    with pytest.raises(SandboxError, match=f'{name} would act.*"env {name}=... PROGRAM"'):
        launcher(env={name: "/x"})
    with pytest.raises(SandboxError, match=name):
        launcher(environ={"PATH": os.environ["PATH"], name: "/x"}, env_allow=(name,))


def test_an_allowed_variable_that_is_not_set_is_a_refusal() -> None:
    with pytest.raises(SandboxError, match="env_allow: REGION is not set"):
        launcher(environ={"PATH": os.environ["PATH"]}, env_allow=("REGION",))


def test_the_worker_starts_in_the_gateways_folder_of_which_it_sees_nothing(
    open_folder: Path,
) -> None:
    (open_folder / "other").write_text("")
    made = launcher("sh", "-c", "pwd; ls -A", cwd=str(open_folder))
    assert output(made) == str(open_folder)


def test_a_folder_to_start_in_is_mounted(open_folder: Path) -> None:
    (open_folder / "inner").mkdir()
    (open_folder / "inner" / "file").write_text("")
    settings = SandboxSettings(cwd="inner")
    made = make_launcher(
        "agent", ["sh", "-c", "pwd; ls"], settings, environ=os.environ, cwd=str(open_folder)
    )
    assert isinstance(made, StrictLauncher)
    assert output(made) == f"{open_folder}/inner\nfile"


def test_a_folder_to_start_in_that_does_not_exist_is_refused() -> None:
    with pytest.raises(SandboxError, match="cwd: the folder /nothing does not exist"):
        make_launcher("a", ["true"], SandboxSettings(cwd="/nothing"), environ={}, cwd="/")


def test_a_writable_mount_can_be_written_and_outlives_the_worker(open_folder: Path) -> None:
    shared = open_folder / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    made = launcher("sh", "-c", f"echo kept > {shared}/file", mounts_rw=(str(shared),))
    assert output(made) == ""
    assert (shared / "file").read_text() == "kept\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has workers with other user ids")
def test_with_root_the_group_of_a_writable_mount_may_write_there(open_folder: Path) -> None:
    shared = open_folder / "shared"
    shared.mkdir()
    os.chown(shared, 0, 4242)
    shared.chmod(0o770)
    made = launcher("sh", "-c", f"id -G; echo kept > {shared}/file", mounts_rw=(str(shared),))
    assert output(made).split()[1:] == ["4242"]
    assert (shared / "file").read_text() == "kept\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has workers with other user ids")
def test_with_root_a_mount_that_workers_could_not_use_is_refused(open_folder: Path) -> None:
    (open_folder / "private").mkdir()
    (open_folder / "private").chmod(0o700)
    private = (str(open_folder / "private"),)
    with pytest.raises(SandboxError, match=r"mounts_rw: .*chgrp GROUP"):
        launcher(mounts_rw=private)
    with pytest.raises(SandboxError, match=r"can be read by its owner only.*chmod -R o\+rX"):
        launcher(mounts_ro=private)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has workers with other user ids")
def test_with_root_a_script_that_workers_could_not_read_is_refused(open_folder: Path) -> None:
    (open_folder / "agent.py").write_text("")
    (open_folder / "agent.py").chmod(0o600)
    with pytest.raises(SandboxError, match=r"agent.py can be read by its owner only"):
        launcher("/usr/bin/cat", str(open_folder / "agent.py"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has workers with other user ids")
def test_with_root_each_worker_has_a_user_id_of_its_own() -> None:
    one, other = launcher("id", "-u"), launcher("id", "-u")
    seen = {output(each) for each in (one, one, other, other)}
    assert len(seen) == 4
    assert "0" not in seen


def test_an_interpreter_under_a_private_home_is_found_and_starts() -> None:
    """The one that runs this test: in a virtual environment, and often under a version manager."""
    code = "import sys, msgspec, worker, protocol; print(sys.prefix, sys.base_prefix)"
    assert output(launcher(sys.executable, "-c", code)) == f"{sys.prefix} {sys.base_prefix}"


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["node", "-e", "console.log(6 * 7, require('os').userInfo().username)"], "42 worker"),
        (["jq", "-n", "6 * 7"], "42"),
        (["sh", "-c", "echo $((6 * 7)) $(id -un) $(hostname)"], "42 worker worker"),
        (
            ["python3", "-c", "import os, pwd; print(pwd.getpwuid(os.getuid()).pw_name)"],
            "worker",
        ),
    ],
    ids=["node", "jq", "sh", "python"],
)
def test_programs_of_the_system_run(words: list[str], answer: str) -> None:
    need(words[0])
    assert output(launcher(*words, environ={"PATH": "/usr/bin:/bin"})) == answer


@pytest.mark.parametrize(
    ("returncode", "status"), [(0, 0), (1, 1), (137, -9), (143, -15), (255, 255), (-9, -9)]
)
def test_a_signal_is_told_from_what_bubblewrap_ends_with(returncode: int, status: int) -> None:
    assert launcher().exit_status(returncode) == status


@pytest.mark.parametrize(("network", "trusts"), [((), "False"), (("a.example.com:443",), "True")])
def test_certificates_are_there_where_there_is_a_network(
    network: tuple[str, ...], trusts: str
) -> None:
    if not os.path.isdir("/etc/ssl/certs"):
        pytest.skip("this machine has no certificates (ca-certificates)")
    code = "import os; print(os.path.exists('/etc/ssl/certs'))"
    made = launcher(sys.executable, "-c", code, network=network)
    try:
        assert output(made) == trusts
    finally:
        made.close()


def test_the_time_zone_is_the_machines() -> None:
    assert (
        output(launcher("date", "+%z"))
        == subprocess.check_output(["date", "+%z"], text=True).strip()
    )


def test_the_sandbox_prints_what_it_gives() -> None:
    described = launcher(memory="0", cpu=0, tmp="1M", nofile=64, fsize="0").describe()
    assert described["network"] is False
    assert described["limits"]["memory"] == {
        "value": None,
        "enforced": False,
        "reason": "no limit was set",
    }
    assert described["limits"]["tmp"] == {"value": 1 << 20, "enforced": True, "by": "tmpfs"}
    assert described["limits"]["fsize"]["value"] is None


def test_no_descriptor_is_left_open_after_a_start() -> None:
    made = launcher()
    before = os.listdir("/proc/self/fd")
    with made.launch():
        pass
    assert os.listdir("/proc/self/fd") == before


def test_the_groups_of_workers_that_ended_are_removed() -> None:
    made = launcher("true")
    groups = []
    for _ in range(3):
        output(made)
        groups += made._made
    # The sandbox's init may be about to end still; the test's time limit bounds the wait for it.
    while not repr(made).endswith(" 0 groups>"):
        made.close()
    assert [folder for folders in groups for folder in folders if folder.exists()] == []
