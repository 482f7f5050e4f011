"""What is mounted without being named: found from the words of a command."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.sandbox import SandboxError
from gateway.sandbox.files.discover import discover
from gateway.sandbox.files.places import contains, is_wide


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A project with an agent, a virtual environment, its base under a version manager, a tool."""
    base = tmp_path / "manager" / "versions" / "3.99"
    program(base / "bin" / "python3.99", "\x7fELF")
    (base / "lib" / "python3.99").mkdir(parents=True)
    (base / "lib" / "python3.99" / "os.py").write_text("")
    environment = tmp_path / "project" / ".venv"
    (environment / "bin").mkdir(parents=True)
    (environment / "pyvenv.cfg").write_text(f"home = {base}/bin\nversion = 3.99\n")
    (environment / "bin" / "python3").symlink_to(base / "bin" / "python3.99")
    (environment / "bin" / "python").symlink_to("python3")
    program(environment / "bin" / "my-agent", f"#!{environment}/bin/python\n")
    for name in ("agent.py", "pkg/deep.py"):
        path = tmp_path / "project" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    return tmp_path


def program(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(0o755)


def found(place: Path, *words: str, path: str = "/usr/bin:/bin") -> set[str]:
    """What is needed, relative to the place, without what is always added."""
    needs = discover(words, cwd=str(place / "project"), search_path=path)
    return {os.path.relpath(each, place) for each in needs.paths if contains(str(place), each)}


def test_a_program_of_the_system_needs_nothing(place: Path) -> None:
    assert found(place, "sh", "-c", "exit") == set()


def test_the_program_becomes_an_absolute_path(place: Path) -> None:
    assert discover(["sh"], cwd="/", search_path="/usr/bin").program == "/usr/bin/sh"


def test_a_program_that_does_not_exist_is_named_with_where_it_was_looked_for(place: Path) -> None:
    with pytest.raises(SandboxError, match="no command 'nothing-such' in /usr/bin:/bin"):
        found(place, "nothing-such")


def test_a_version_managers_stand_in_is_refused_with_the_way_to_the_program(place: Path) -> None:
    program(place / "manager/shims/python3", "#!/usr/bin/env bash\nexec manager exec\n")
    with pytest.raises(SandboxError, match=r"stand-in.*\(pyenv which python3"):
        found(place, "python3", path=f"{place}/manager/shims:/usr/bin")


def test_a_virtual_environment_brings_its_base_along(place: Path) -> None:
    assert found(place, ".venv/bin/python") == {"project/.venv", "manager/versions/3.99"}


def test_a_virtual_environment_of_copies_brings_its_base_along_too(place: Path) -> None:
    (place / "project/.venv/bin/python").unlink()
    program(place / "project/.venv/bin/python", "\x7fELF")
    assert found(place, ".venv/bin/python") == {"project/.venv", "manager/versions/3.99"}


def test_the_program_is_looked_up_in_the_path(place: Path) -> None:
    path = f"{place}/project/.venv/bin:/usr/bin"
    assert found(place, "python", path=path) == {"project/.venv", "manager/versions/3.99"}
    needs = discover(["python"], cwd="/", search_path=path)
    assert needs.program == f"{place}/project/.venv/bin/python"
    assert needs.bin_dirs == [f"{place}/project/.venv/bin"]


def test_a_script_brings_its_interpreter(place: Path) -> None:
    assert found(place, ".venv/bin/my-agent") == {"project/.venv", "manager/versions/3.99"}


def test_a_script_that_asks_env_brings_what_env_would_find(place: Path) -> None:
    program(place / "tools" / "agent", "#!/usr/bin/env -S python -u\n")
    path = f"{place}/project/.venv/bin:/usr/bin"
    assert found(place, str(place / "tools/agent"), path=path) == {
        "tools/agent",
        "project/.venv",
        "manager/versions/3.99",
    }


def test_a_script_brings_the_folder_that_it_is_in(place: Path) -> None:
    assert found(place, "python3", "agent.py") == {"project"}
    assert found(place, "python3", "pkg/deep.py") == {"project/pkg"}


def test_the_path_in_front_of_a_colon_is_found(place: Path) -> None:
    assert found(place, "python3", "-m", "worker", "pkg/deep.py:agent") == {"project/pkg"}


def test_the_path_behind_an_equals_sign_is_found(place: Path) -> None:
    assert found(place, "sh", "--rules=pkg/deep.py") == {"project/pkg"}


def test_a_module_beside_the_start_brings_the_folder(place: Path) -> None:
    assert found(place, "python3", "-m", "pkg.deep") == {"project"}
    assert found(place, "python3", "-m", "worker", "agent:agent") == {"project"}


def test_a_module_from_elsewhere_brings_nothing(place: Path) -> None:
    assert found(place, "python3", "-m", "http.server") == set()


def test_a_bare_word_is_not_a_folder(place: Path) -> None:
    assert found(place, "echo", "pkg") == set()
    assert found(place, "echo", "./pkg") == {"project/pkg"}


def test_a_link_is_found_as_it_is_spelled_and_where_it_leads(place: Path) -> None:
    (place / "link").symlink_to("project/pkg")
    assert found(place, "python3", f"{place}/link/deep.py") == {"link", "project/pkg"}


def test_a_linked_file_brings_what_it_leads_to(place: Path) -> None:
    (place / "project/pkg/other.py").symlink_to("../agent.py")
    assert found(place, "python3", "pkg/other.py") == {"project/pkg", "project/agent.py"}


def test_a_script_in_the_home_folder_does_not_bring_the_home(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(place / "project"))
    assert found(place, "python3", "agent.py") == {"project/agent.py"}


@pytest.mark.parametrize("path", ["/", "/etc", "/tmp", "/home", "/home/somebody", "/root", "/opt"])
def test_folders_of_unrelated_things_are_never_guessed(path: str) -> None:
    assert is_wide(path)


@pytest.mark.parametrize("path", ["/app", "/opt/agent", "/srv/agents", "/home/somebody/project"])
def test_folders_of_one_thing_may_be_guessed(path: str) -> None:
    assert not is_wide(path)


def test_the_projects_own_packages_come_along_wherever_they_are_installed() -> None:
    import protocol

    needs = discover(["true"], cwd="/", search_path="/usr/bin")
    folder = str(Path(protocol.__file__).parent)
    assert folder in needs.paths


@pytest.fixture
def home(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a key, an installation of Python, a link to it, and somebody's own folders."""
    home = place / "home"
    for name in (".ssh/id", "letters/one", "tool/lib/secret"):
        (home / name).parent.mkdir(parents=True)
        (home / name).write_text("")
    runtime = home / ".local/share/python"
    program(runtime / "bin" / "python3.99", "\x7fELF")
    (runtime / "lib/python3.99").mkdir(parents=True)
    (runtime / "lib/python3.99/os.py").write_text("")
    (home / ".local/bin").mkdir()
    (home / ".local/bin/python3").symlink_to(runtime / "bin/python3.99")
    program(home / "tool/bin/tool", "#!/bin/sh\n")
    program(home / ".ssh/tool", "#!/bin/sh\n")
    program(home / "bin/tool", "#!/bin/sh\n")
    (home / "lib").mkdir()
    monkeypatch.setenv("HOME", str(home))
    return home


def link(place: Path, name: str, target: Path) -> None:
    path = place / "project" / name
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


@pytest.mark.parametrize("leads", ["home", "home/letters", "home/.ssh", ".", "manager"])
def test_a_link_that_leads_out_of_the_project_is_not_shown(
    place: Path, home: Path, leads: str
) -> None:
    link(place, "data", place / leads)
    # The controls: a folder of the project's is shown when it is named in the same way, and the
    # same folder when the operator's command names it, unless it is no folder of one thing.
    assert found(place, "python3", "./pkg") == {"project/pkg"}
    may_be_named = {leads} & {"home/letters", "manager"}
    assert found(place, "python3", str(place / leads)) == may_be_named
    assert found(place, "python3", "./data") == set()
    needs = discover(["python3", "./data"], cwd=str(place / "project"), search_path="/usr/bin")
    assert needs.not_shown == [str(place / "project/data")]


@pytest.mark.parametrize(
    "words", [("python3", "src/agent.py"), ("sh", "--rules=src/agent.py"), ("sh", "src/agent.py:x")]
)
def test_neither_is_the_link_of_a_scripts_folder(
    place: Path, home: Path, words: tuple[str, ...]
) -> None:
    (home / "letters/agent.py").write_text("")
    honest = [word.replace("src", f"{home}/letters") for word in words]
    assert found(place, *honest) == {"home/letters"}  # the control
    link(place, "src", home / "letters")
    assert found(place, *words) == set()


def test_a_script_that_is_a_link_to_a_key_shows_no_key(place: Path, home: Path) -> None:
    link(place, "bin/agent.py", place / "project/agent.py")
    control = {"project/bin", "project/agent.py"}
    assert found(place, "python3", "bin/agent.py") == control
    link(place, "agent.py", home / ".ssh/id")
    assert found(place, "python3", "agent.py") == {"project"}


def test_a_link_of_a_link_is_judged_where_it_ends(place: Path, home: Path) -> None:
    link(place, "data", place / "project/pkg/more")
    (place / "project/pkg/more").mkdir()
    assert found(place, "python3", "./data") == {"project/data", "project/pkg/more"}  # the control
    (place / "project/pkg/more").rmdir()
    link(place, "pkg/more", home / "letters")
    assert found(place, "python3", "./data") == set()


def test_a_link_in_a_place_of_unrelated_things_is_the_operators(place: Path, home: Path) -> None:
    (home / "current").symlink_to(place / "project")
    assert found(place, "python3", f"{home}/current/agent.py") == {"home/current", "project"}


def test_a_link_that_goes_round_leads_nowhere(place: Path) -> None:
    link(place, "a", place / "project/b")
    link(place, "b", place / "project/a")
    assert found(place, "python3", "./a") == set()


@pytest.mark.parametrize("value", ["home/bin", "home/tool/bin", "home/.ssh/bin", "bin", "../bin"])
def test_what_a_virtual_environment_says_of_its_base_shows_an_installation_or_nothing(
    place: Path, home: Path, value: str
) -> None:
    settings = place / "project/.venv/pyvenv.cfg"
    settings.write_text(f"home = {place}/{value}\n")
    assert found(place, ".venv/bin/python") == {"project/.venv", "manager/versions/3.99"}
    (place / "project/.venv/bin/python").unlink()
    program(place / "project/.venv/bin/python", "\x7fELF")
    assert found(place, ".venv/bin/python") == {"project/.venv"}
    # The control: what is said is followed where it is an installation.
    settings.write_text(f"home = {place}/manager/versions/3.99/bin\n")
    assert found(place, ".venv/bin/python") == {"project/.venv", "manager/versions/3.99"}


def test_an_environment_made_from_a_linked_python_shows_the_installation_and_not_the_home(
    place: Path, home: Path
) -> None:
    (place / "project/.venv/pyvenv.cfg").write_text(f"home = {home}/.local/bin\n")
    link(place, ".venv/bin/python3", home / ".local/bin/python3")
    assert found(place, ".venv/bin/python") == {
        "project/.venv",
        "home/.local/bin/python3",
        "home/.local/share/python",
    }


@pytest.mark.parametrize("leads", ["home/tool/bin/tool", "home/.ssh/tool", "home/bin/tool"])
def test_a_program_that_is_a_link_out_of_the_project_is_not_shown(
    place: Path, home: Path, leads: str
) -> None:
    link(place, "run", place / leads)
    assert found(place, "./run") == set()
    # The control: the same program, named by the operator.
    assert found(place, str(place / leads)) == (
        set() if ".ssh" in leads else {"home/tool"} if "tool/bin" in leads else {leads}
    )


def test_neither_is_a_program_in_a_linked_folder(place: Path, home: Path) -> None:
    link(place, "tools", home / "tool")
    assert found(place, "./tools/bin/tool") == set()
    link(place, "tools", home / "tool/bin")
    assert found(place, "./tools/tool") == set()
    link(place, "env", home / ".local/share/python")
    assert found(place, "./env/bin/python3.99") == {"project/env", "home/.local/share/python"}


def test_the_first_line_of_a_script_shows_no_program_of_somebody_elses(
    place: Path, home: Path
) -> None:
    program(place / "project/run", f"#!{home}/tool/bin/tool\n")
    assert found(place, "./run") == {"project"}
    program(place / "project/run", f"#!{home}/.local/bin/python3\n")
    assert found(place, "./run") == {"project"}
    program(place / "project/run", f"#!{home}/.local/share/python/bin/python3.99\n")
    assert found(place, "./run") == {"project", "home/.local/share/python"}


def test_a_folder_that_holds_keys_is_never_guessed(place: Path) -> None:
    assert found(place, "python3", "agent.py", "./pkg") == {"project", "project/pkg"}  # the control
    (place / "project/.aws").mkdir()
    assert found(place, "python3", "agent.py", "./pkg") == {"project/agent.py", "project/pkg"}
    assert found(place, "python3", "-m", "pkg.deep") == {"project/pkg"}


def test_a_program_of_the_operators_path_is_shown_where_its_links_lead(
    place: Path, home: Path
) -> None:
    """As package managers lay out their programs."""
    program(place / "brew/Cellar/jq/1.7/bin/jq", "\x7fELF")
    (place / "brew/Cellar/jq/1.7/lib").mkdir()
    (place / "brew/bin").mkdir()
    (place / "brew/bin/jq").symlink_to("../Cellar/jq/1.7/bin/jq")
    shown = {"brew/bin/jq", "brew/Cellar/jq/1.7"}
    assert found(place, "jq", path=f"{place}/brew/bin") == shown
    # A project's own folder in PATH is the project's all the same.
    link(place, "bin/tool", home / "tool/bin/tool")
    assert found(place, "tool", path=f"{place}/project/bin") == set()


def test_a_program_may_be_a_link_into_its_own_installation(place: Path, home: Path) -> None:
    node = place / "node"
    program(node / "lib/node_modules/npm/bin/npx-cli.js", "#!/usr/bin/env sh\n")
    (node / "lib/node_modules/npm/lib").mkdir()
    (node / "bin").mkdir()
    (node / "bin/npx").symlink_to("../lib/node_modules/npm/bin/npx-cli.js")
    assert found(place, f"{node}/bin/npx") == {"node"}
