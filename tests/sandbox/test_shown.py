"""What an agent's author can have shown by what lies in the project: nothing of anybody else's.

Each project is a way in which a home, or the keys in it, was once shown. It runs three times, as
each user: as it is, where nothing may be found; with the same folders named by the operator, and
without a sandbox, where everything has to be.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.sandbox.users import PROJECT, available_users, need_sandbox, run_as

FOUND = ("letters/one", ".ssh/id")
"""Of the home, readable by everybody: what keeps an agent from it is that it is not shown."""

AGENT = """
import json, sys
def read(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return None
print(json.dumps([read(path) for path in json.load(open(sys.path[0] + "/targets"))]))
"""

GATEWAY = """
import json, os, subprocess, sys
from gateway.sandbox import SandboxSettings, make_launcher
home, *words = sys.argv[1:]
named = (home + "/letters", home + "/.ssh")
for level, mounts in (("strict", ()), ("strict", named), ("off", ())):
    made = make_launcher("agent", words, SandboxSettings(mounts_ro=mounts), level=level,
                         environ=os.environ, cwd=os.getcwd(),
                         secrets=[os.path.abspath("gateway.toml")])
    with made.launch() as launch:
        done = subprocess.run(launch.argv, env=dict(launch.env), cwd=launch.cwd,
                              pass_fds=launch.pass_fds, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, check=True)
    made.close()
    print(done.stdout.decode().strip())
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """A home with a project in it, where every user can reach it."""
    with tempfile.TemporaryDirectory(prefix="shown-") as name:
        place = Path(name)
        place.chmod(0o755)
        home = place / "home"
        for path in FOUND:
            (home / path).parent.mkdir(parents=True)
            (home / path).write_text("word")
        (home / "bin").mkdir()
        project = place / "project"
        project.mkdir()
        (project / "gateway.toml").write_text("")
        (project / "agent.py").write_text(AGENT)
        (project / "targets").write_text(json.dumps([str(home / path) for path in FOUND]))
        yield home


def links_beside_the_configuration(home: Path, project: Path) -> list[str]:
    (project / "notes").symlink_to(home / "letters")
    (project / "keys").symlink_to(home / ".ssh")
    return [sys.executable, "agent.py"]


def links_in_the_command(home: Path, project: Path) -> list[str]:
    (project / "data").symlink_to(home)
    (project / "keys").symlink_to(home / ".ssh/id")
    return [sys.executable, "agent.py", "./data", "--keys=./keys"]


def an_environment_that_names_the_home_as_its_base(home: Path, project: Path) -> list[str]:
    make_environment(project, Path(os.path.realpath(sys.executable)), home / "bin")
    return [".venv/bin/python", "agent.py"]


def an_environment_made_from_a_link_in_the_home(home: Path, project: Path) -> list[str]:
    python = home / "bin/python3"
    python.symlink_to(os.path.realpath(sys.executable))
    make_environment(project, python, home / "bin")
    return [".venv/bin/python", "agent.py"]


def make_environment(project: Path, python: Path, base: Path) -> None:
    (project / ".venv/bin").mkdir(parents=True)
    (project / ".venv/pyvenv.cfg").write_text(f"home = {base}\n")
    (project / ".venv/bin/python").symlink_to(python)


@pytest.mark.parametrize("user", available_users())
@pytest.mark.parametrize(
    "make",
    [
        links_beside_the_configuration,
        links_in_the_command,
        an_environment_that_names_the_home_as_its_base,
        an_environment_made_from_a_link_in_the_home,
    ],
    ids=lambda make: make.__name__,
)
def test_what_a_project_leads_to_is_shown_only_if_the_operator_names_it(
    user: str, make: Callable[[Path, Path], list[str]], home: Path
) -> None:
    need_sandbox(user)
    words = make(home, home.parent / "project")
    done = run_as(
        user,
        sys.executable,
        "-c",
        GATEWAY,
        str(home),
        *words,
        cwd=home.parent / "project",
        HOME=str(home),
        PYTHONPATH=str(PROJECT),
    )
    guessed, named, off = map(json.loads, done.stdout.splitlines())
    assert named == off == ["word", "word"], "the control"
    assert guessed == [None, None]
