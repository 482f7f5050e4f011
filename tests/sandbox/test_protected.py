"""What a worker cannot change or read within what it is shown, tried in real sandboxes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.sandbox import (
    SandboxError,
    SandboxSettings,
    StrictLauncher,
    check_apart,
    make_launcher,
)
from gateway.sandbox.limits.uids import FIRST_UID
from tests.sandbox.running import run_worker, running
from tests.sandbox.users import available_users, need_sandbox, run_as

USERS = pytest.mark.parametrize("user", available_users())


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user can reach, which pytest's own is not."""
    with tempfile.TemporaryDirectory(prefix="protected-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def shared(path: Path) -> Path:
    """A folder that workers with any user id may write to."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o777)
    return path


TRY = """
import errno, json, os
def tried(act, *args):
    try:
        act(*args)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"
def write(path):
    with open(path, "a") as file:
        file.write("x")
"""


@USERS
def test_in_a_writable_workspace_what_tools_execute_stays_as_it_is(user: str, place: Path) -> None:
    work = shared(place / "work")
    for name in (".git/hooks", ".venv/bin", "notes"):
        shared(work / name)
        shared((work / name).parent)
    for name in (".git/config", "gateway.toml", "notes/today"):
        (work / name).write_text("")
        (work / name).chmod(0o666)
    code = f"""{TRY}
os.chdir({str(work)!r})
print(json.dumps({{
    "file": tried(write, "new"), "edit": tried(write, "notes/today"),
    "hook": tried(write, ".git/hooks/post-commit"), "config": tried(write, ".git/config"),
    "python": tried(write, ".venv/bin/python"), "gateway": tried(write, "gateway.toml"),
    "move": tried(os.rename, ".git", "old"), "remove": tried(os.unlink, "gateway.toml"),
}}))
"""
    with running(user, code, mounts_rw=[str(work)]) as worker:
        said = json.loads(worker.line())
    assert said.pop("file") == said.pop("edit") == "done"  # the control
    assert set(said.values()) <= {"EROFS", "EBUSY", "EACCES"}, said
    assert not (work / ".git/hooks/post-commit").exists()


@USERS
def test_what_looks_secret_in_a_guessed_folder_cannot_be_opened_unless_it_is_named(
    user: str, place: Path
) -> None:
    need_sandbox(user)
    project = place / "project"
    project.mkdir()
    for name in (".env", "other"):
        (project / name).write_text("word")
        (project / name).chmod(0o644)
    (project / "agent.py").write_text(
        f"""{TRY}
print(json.dumps([tried(lambda name: open(name).read(1), name) for name in (".env", "other")]))
"""
    )
    code = f"""
import json, os, subprocess, sys
from gateway.sandbox import SandboxSettings, make_launcher
for named in ((), ("project/.env",)):
    made = make_launcher(
        "agent", [sys.executable, "-c", "import runpy, os; os.chdir('project');"
        "runpy.run_path('agent.py')", "./project/agent.py"],
        SandboxSettings(mounts_ro=named), environ=os.environ, cwd={str(place)!r},
    )
    with made.launch() as launch:
        done = subprocess.run(launch.argv, env=dict(launch.env), cwd=launch.cwd,
                              pass_fds=launch.pass_fds, capture_output=True, check=True)
    # The sandbox may show a checkout of the gateway, too, which has a key for its own tests.
    masked = [path for path in made.describe()["masked"] if path.startswith({str(place)!r})]
    print(json.dumps([json.loads(done.stdout), masked]))
"""
    done = run_as(user, sys.executable, "-c", code)
    masked, named = map(json.loads, done.stdout.splitlines())
    assert masked == [["EACCES", "done"], [f"{project}/.env"]]
    assert named == [["done", "done"], []]
    assert "cannot open what looks like a secret, unless mounts_ro names it: " in done.stderr
    assert f"'{project}/.env'" in done.stderr


def made(name: str, place: Path, **settings: object) -> StrictLauncher:
    need_sandbox("root" if os.geteuid() == 0 else "user")
    launcher = make_launcher(
        name,
        ["sh", "-c", "cat b/letter"],
        SandboxSettings(**settings),  # type: ignore[arg-type]
        environ=os.environ,
        cwd=str(place),
    )
    assert isinstance(launcher, StrictLauncher)
    return launcher


def test_agents_are_checked_against_one_another_by_name(place: Path) -> None:
    shared(place / "s/b")
    shared(place / "s")
    writer = made("writer", place, mounts_rw=("s",))
    reader = made("reader", place, mounts_ro=("s/b",))
    check_apart({"writer": writer})
    with pytest.raises(SandboxError, match=r"'reader': .*/s/b lies in .*/s, which agent 'writer'"):
        check_apart({"writer": writer, "reader": reader})


def test_a_folder_that_was_swapped_for_a_link_is_not_shown_at_the_next_start(place: Path) -> None:
    shared(place / "b")
    (place / "b/letter").write_text("public")
    shared(place / "private")
    (place / "private/letter").write_text("private")
    launcher = made("reader", place, mounts_ro=("b",))

    assert run_worker(launcher).stdout == "public"
    (place / "b").rename(place / "old")
    (place / "b").symlink_to("private")
    with pytest.raises(OSError, match="replaced since the gateway started"):
        run_worker(launcher)


def test_what_its_owner_removed_does_not_keep_workers_from_starting(place: Path) -> None:
    shared(place / "work/.git")
    shared(place / "work")
    launcher = made("writer", place, mounts_rw=("work",))
    (place / "work/.git").rmdir()
    assert "b/letter" in run_worker(launcher).stderr  # the agent ran


SWAPPED = """
import os, shutil, subprocess, sys
from gateway.sandbox import SandboxSettings, make_launcher
place, removed, *acts = sys.argv[1:]
made = make_launcher("writer", ["sh", "-c", 'read act; eval "$act"'],
                     SandboxSettings(mounts_rw=("work",)), environ=os.environ, cwd=place)
for act in acts:
    with made.launch() as launch:
        worker = subprocess.Popen(
            launch.argv, env=dict(launch.env), cwd=launch.cwd, pass_fds=launch.pass_fds,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
    worker.stdin.write("echo there; read act; eval $act" + chr(10))
    worker.stdin.flush()
    print(worker.stdout.readline(), end="")
    if removed and act == acts[0]:
        shutil.rmtree(place + "/work/.git")
    print(worker.communicate(act)[0], end="")
made.close()
"""


@USERS
@pytest.mark.parametrize("target", ["..", "../private", "{place}/private"])
@pytest.mark.parametrize("removed", ["removed", ""])
def test_a_link_in_place_of_what_its_owner_removed_leads_no_worker_out(
    user: str, place: Path, target: str, removed: str
) -> None:
    need_sandbox(user)
    (place / "private").mkdir()
    (place / "private/letter").write_text("read")
    shared(place / "work/.git/hooks")
    shared(place / "work/.git")
    shared(place / "work")
    # The worker that was there before is free to take the place; the next ones look around.
    link = f"cd {place}/work && ln -sT {target.format(place=place)} .git"
    places = [f"{place}/private", *(f"{place}/work/.git/{each}" for each in ("", "private"))]
    look = f"for each in {' '.join(places)}; do cat $each/letter; done"
    touch = f"touch {place}/work/.git/new"
    done = run_as(
        user,
        *(sys.executable, "-c", SWAPPED, str(place), removed),
        *(f"{link} && echo linked", look, touch),
    )
    linked = ["linked"] if removed else []
    assert done.stdout.splitlines() == ["there", *linked, "there", "there"]
    assert not [*place.glob("new"), *place.glob("*/new"), *place.glob("work/.git/new")]
    told = [
        done.stderr.count(f"'{place}/work/.git' {what}")
        for what in ("was removed or replaced", "may have been made by a worker")
    ]
    assert told == ([1, 1] if removed else [0, 0])


RACE = """
import os, subprocess, sys
from gateway.sandbox import SandboxSettings, make_launcher
place, swapped = sys.argv[1:]
git = place + "/work/.git"
made = make_launcher("writer", ["sh", "-c", 'read act; eval "$act"'],
                     SandboxSettings(mounts_rw=("work",)), environ=os.environ, cwd=place)
with made.launch() as launch:
    if swapped:  # after the gateway has looked, before bubblewrap does
        os.rename(git, place + "/work/old")
        os.symlink("..", git)
    done = subprocess.run(
        launch.argv, env=dict(launch.env), cwd=launch.cwd, pass_fds=launch.pass_fds, text=True,
        input=f"ls -l /proc/self/fd; cat {git}/letter {place}/private/letter" + chr(10),
        capture_output=True,
    )
print(done.stdout, done.stderr)
"""


@USERS
@pytest.mark.parametrize("swapped", ["swapped", ""])
def test_a_link_that_comes_between_the_look_and_the_mount_is_not_followed(
    user: str, place: Path, swapped: str
) -> None:
    need_sandbox(user)
    usage = subprocess.run(["bwrap", "--help"], capture_output=True, text=True, check=False)
    if "--ro-bind-fd" not in usage.stdout + usage.stderr:
        pytest.skip("this bubblewrap cannot mount what a descriptor is of")
    (place / "private").mkdir()
    (place / "private/letter").write_text("secret")
    shared(place / "work/.git")
    (place / "work/.git/letter").write_text("own")
    shared(place / "work")
    done = run_as(user, sys.executable, "-c", RACE, str(place), swapped)
    if swapped:
        assert "secret" not in done.stdout
        assert "own" not in done.stdout
        assert "bwrap: " in done.stdout
    else:
        assert "own" in done.stdout
        fds = done.stdout.partition("own")[0]
        assert place.name not in fds  # no descriptor reaches the worker


@USERS
def test_no_helper_executes_what_lies_in_a_folder_of_the_import_path(
    user: str, place: Path
) -> None:
    for name in ("sitecustomize", "usercustomize"):
        (place / f"{name}.py").write_text(f"open({str(place)!r} + '/executed', 'w')")
    shared(place / "written")
    place.chmod(0o777)
    # The control: any other Python with this path executes it.
    environ = {**os.environ, "PYTHONPATH": str(place)}
    subprocess.run([sys.executable, "-c", ""], env=environ, check=True)
    (place / "executed").unlink()
    code = f"""
import os, sys
from gateway.sandbox import SandboxSettings, make_launcher
sys.path.insert(0, {str(place)!r})
settings = SandboxSettings(network=("a.invalid:1",))
made = make_launcher("agent", ["true"], settings, environ=os.environ, cwd="/")
with made._proxy.announce():
    pass
made.close()
"""
    assert run_as(user, sys.executable, "-c", code).stderr == ""
    assert not (place / "executed").exists()


def test_a_proxy_imports_nothing_from_the_folder_that_the_gateway_is_in(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "trio.py").write_text(f"open({str(place)!r} + '/executed', 'w')")
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    launcher = made("agent", place, network=("a.invalid:1",))
    proxy = launcher._proxy
    assert proxy is not None
    with proxy.announce():
        pass
    launcher.close()
    assert not (place / "executed").exists()


@USERS
def test_what_a_worker_makes_for_tools_to_execute_is_told_and_by_root_also_at_the_next_start(
    user: str, place: Path
) -> None:
    need_sandbox(user)
    shared(place / "work/.venv")
    shared(place / "work")
    code = f"""
import os, subprocess, sys
from gateway.sandbox import SandboxSettings, make_launcher
made = make_launcher("agent", ["sh", "-c", sys.argv[1]], SandboxSettings(mounts_rw=("work",)),
                     environ=os.environ, cwd={str(place)!r})
for _ in range(2):
    with made.launch() as launch:
        subprocess.run(launch.argv, env=dict(launch.env), cwd=launch.cwd,
                       pass_fds=launch.pass_fds, check=True)
    print("ended", file=sys.stderr)
made.close()
"""
    told = []
    for script in ("mkdir -p work/.git/hooks work/src", "true"):
        done = run_as(user, sys.executable, "-c", code, script)
        told.append(done.stderr.splitlines())
    first = told[0].pop(1)
    assert first.startswith(f"'{place}/work/.git' may have been made by a worker: ")
    again = [first] if user == "root" else []  # by an ordinary user's owner nobody can tell
    assert told == [["ended", "ended"], [*again, "ended", "ended"]]


def test_a_link_that_a_worker_left_does_not_keep_the_gateway_from_starting(place: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root's workers have users of their own")
    shared(place / "work")
    (place / "work/.git").symlink_to("/")
    with pytest.raises(SandboxError, match="cannot be kept from being replaced"):
        made("writer", place, mounts_rw=("work",))  # the control: somebody else's
    os.lchown(place / "work/.git", FIRST_UID, FIRST_UID)
    assert made("writer", place, mounts_rw=("work",)).confinement.protected == ()
