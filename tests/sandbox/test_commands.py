"""Commands as people write them: each starts in the strict sandbox, as root's and as an ordinary
user's, or is refused with what to write instead.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.composition.launchers import LauncherMaker, States
from gateway.config import AgentSettings, ConfigError, ServerSettings, Settings
from gateway.sandbox import SandboxError
from gateway.sandbox.files.commands import shell_script, simple_commands, wrapped
from gateway.sandbox.files.discover import discover
from gateway.sandbox.files.programs import why_not_found
from tests.sandbox.users import PROJECT, as_user, available_users, need_sandbox

BIN = Path(sys.executable).parent
SDK = "from worker import Agent\n"
AGENT = "agent = Agent('mine', description=__name__)\nagent.invoke(lambda input: input)\n"

FORMS = {
    "agent-worker": "agent-worker agent.py:agent",
    "env": "env MODE=test python agent.py",
    "env -i and a path": f"env -i {sys.executable} agent.py",
    "nice": "nice -n 5 python agent.py",
    "timeout": "timeout -k 5 600s python agent.py",
    "sh -c": "sh -c 'exec python agent.py'",
    "sh -c with a folder": "sh -c 'cd deep/er && python ../../agent.py'",
    "a script of the shell": "./run.sh",
    "the same by its interpreter": "sh run.sh",
    "a script that finds itself": "./scripts/start",
    "a script that activates an environment": "./scripts/activating.sh",
    "an environment of its own": ".venv/bin/python -m worker agent.py:agent",
    "its console script": ".venv/bin/agent-worker agent.py:agent",
    "a package of src layout, editable": ".venv/bin/python -m deployed",
    "its own console script": ".venv/bin/serve-deployed",
    "an environment as pipx lays out": "{home}/.local/bin/serve-tool",
    "an environment as poetry lays out": "{home}/.cache/pypoetry/p-1/bin/python agent.py",
    # conda's finds its library by a path of its own; this copy has to be told.
    "an interpreter as conda lays out": "env LD_LIBRARY_PATH={home}/miniconda3/envs/e/lib "
    "{home}/miniconda3/envs/e/bin/python agent.py",
}


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A home with a project in it, and environments in the places that tools put them in."""
    with tempfile.TemporaryDirectory(prefix="home-") as folder:
        home = Path(folder)
        home.chmod(0o755)
        make_project(home / "project")
        make_environment(home / "project/.venv")
        make_environment(home / ".cache/pypoetry/p-1")
        pipx = home / ".local/share/pipx/venvs/tool"
        make_environment(pipx)
        console_script(pipx, "serve-tool", f"{SDK}{AGENT}agent.run()")
        (home / ".local/bin").mkdir()
        (home / ".local/bin/serve-tool").symlink_to(pipx / "bin/serve-tool")
        make_installation(home / "miniconda3/envs/e")
        (home / ".ssh").mkdir()
        (home / ".ssh/id").write_text("")
        yield home


def make_project(project: Path) -> None:
    (project / "deep/er").mkdir(parents=True)
    (project / "scripts").mkdir()
    (project / "agent.py").write_text(f"{SDK}{AGENT}if __name__ == '__main__': agent.run()\n")
    script(project / "run.sh", "#!/bin/sh\n# it's one\nexec python agent.py\n")
    here = 'HERE="$(cd "$(dirname "$0")/.." && pwd)"\n'
    script(
        project / "scripts/start", f'#!/bin/bash\n{here}exec "$HERE/.venv/bin/python" agent.py\n'
    )
    script(project / "scripts/activating.sh", ". .venv/bin/activate\nexec python agent.py\n")
    package = project / "src/deployed"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(f"{SDK}{AGENT}def main(): agent.run()\nmain()\n")
    (project / "pyproject.toml").write_text("[project]\nname='deployed'\nversion='1'\n")


def script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def make_environment(prefix: Path) -> None:
    """As `python -m venv`, whose `ensurepip` takes seconds, with the SDK."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", prefix], check=True)
    (site,) = prefix.glob("lib/python3*/site-packages")
    install_sdk(site)
    console_script(prefix, "agent-worker", "from worker.command import script; script()")
    if prefix.name == ".venv":
        (site / "_deployed.pth").write_text(f"{prefix.parent}/src\n")
        origin = {"url": prefix.parent.as_uri(), "dir_info": {"editable": True}}
        (site / "deployed-1.dist-info").mkdir()
        (site / "deployed-1.dist-info/direct_url.json").write_text(json.dumps(origin))
        console_script(prefix, "serve-deployed", "import deployed.__main__")


def install_sdk(site: Path) -> None:
    """The SDK and what it needs, as pip leaves them."""
    for name in ("worker", "protocol"):
        shutil.copytree(PROJECT / name, site / name)
    installed = Path(sysconfig.get_paths()["platlib"])
    for name in ("anyio", "msgspec", "idna", "sniffio", "typing_extensions.py"):
        if (installed / name).is_dir():
            shutil.copytree(installed / name, site / name)
        elif (installed / name).exists():
            shutil.copy(installed / name, site / name)


def make_installation(prefix: Path) -> None:
    """A whole Python in one folder, without `pyvenv.cfg`."""
    version = f"python3.{sys.version_info[1]}"
    base = Path(sys.base_prefix)
    (prefix / "bin").mkdir(parents=True)
    shutil.copy(os.path.realpath(sys.executable), prefix / "bin" / version)
    (prefix / "bin/python").symlink_to(version)
    left_out = shutil.ignore_patterns(
        *("site-packages", "dist-packages", "test", "tests", "__pycache__", "config-*", "lib2to3"),
        *("idlelib", "tkinter", "ensurepip", "turtledemo", "pydoc_data", "*.a"),
    )
    shutil.copytree(base / "lib" / version, prefix / "lib" / version, ignore=left_out)
    for library in (base / "lib").glob("libpython3*.so*"):
        shutil.copy(library, prefix / "lib")
    # Where every Python looks: Debian's does not look into site-packages outside of environments.
    install_sdk(prefix / "lib" / version)


def console_script(prefix: Path, name: str, code: str) -> None:
    script(prefix / "bin" / name, f"#!{prefix}/bin/python\n{code}\n")


@pytest.fixture(scope="module", params=available_users())
def checked(request: pytest.FixtureRequest, home: Path) -> dict[str, Any]:
    """What `gateway --check` finds of every form, started in the project."""
    user = request.param
    need_sandbox(user)
    config = home / f"{user}.toml"
    with config.open("w") as file:
        for number, command in enumerate(FORMS.values()):
            file.write(f"[agents.a{number}]\ncommand = {json.dumps(command.format(home=home))}\n")
    done = subprocess.run(
        as_user(user, sys.executable, "-m", "gateway", "--check", "--config", str(config)),
        cwd=home / "project",
        env={**os.environ, "HOME": str(home), "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    decoder, rest, found = json.JSONDecoder(), done.stdout, []
    while rest.strip():
        one, end = decoder.raw_decode(rest.lstrip())
        rest = rest.lstrip()[end:]
        found.append(one)
    assert len(found) == len(FORMS), done.stderr
    return dict(zip(FORMS, found, strict=True))


@pytest.mark.parametrize("form", FORMS)
def test_a_command_that_works_without_a_sandbox_starts_in_it(
    checked: dict[str, Any], form: str
) -> None:
    found = checked[form]
    assert found["ok"], found
    assert found["handshake"] == "ready", found


def refused(project: Path, *words: str) -> str:
    """What is said instead of a start."""
    with pytest.raises(SandboxError) as error:
        discover(words, cwd=str(project), search_path=f"{project}/tools:/usr/bin:/bin")
    return str(error.value)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that is used with programs that prepare environments; they only have to exist."""
    for name in ("uv", "poetry", "conda", "npx", "npm", "uvx"):
        (tmp_path / "tools").mkdir(exist_ok=True)
        script(tmp_path / "tools" / name, "#!/bin/sh\n")
    (tmp_path / ".venv/bin").mkdir(parents=True)
    for name in ("python", "serve"):
        script(tmp_path / ".venv/bin" / name, "#!/bin/sh\n")
    (tmp_path / "package.json").write_text(
        '{"scripts": {"start": "tsx src/agent.ts", "built": "tsc && tsx a"}}'
    )
    (tmp_path / "plain.py").write_text("#!/usr/bin/env python3\n")
    (tmp_path / "plain.sh").write_text("")
    script(tmp_path / "ready.sh", "#!/bin/sh\n")
    return tmp_path


@pytest.mark.parametrize(
    ("command", "instead"),
    [
        ("uv run agent.py", "write .venv/bin/python agent.py"),
        ("uv run --with x --frozen serve --fast", "write .venv/bin/serve --fast"),
        ("uv run -m pkg 'a b'", "write .venv/bin/python -m pkg 'a b'"),
        ("uv run other", "write .venv/bin/other, and prepare it first (uv sync)"),
        ("env X=1 uv run agent.py", "write .venv/bin/python agent.py"),
        ("sh -c 'cd . && uv run agent.py'", "write .venv/bin/python agent.py"),
        ("poetry run serve", '"$(poetry env info --path)/bin/serve"'),
        ("conda run -n e python a.py", '"$(conda info --base)/envs/NAME/bin/python" a.py'),
        ("uvx serve@1.0 x", "write .venv/bin/serve x"),
        ("npx --yes tsx@4 src/agent.ts -v", "write node --import tsx src/agent.ts -v, and install"),
        ("npx tsx watch src/agent.ts", "write node --import tsx src/agent.ts, and install"),
        ("npx -p x @of/tool@1 'a b'", "write node_modules/.bin/tool 'a b', and install it"),
        ("npx there --fast", "write node_modules/.bin/there --fast"),
        ("npm exec -- tsx a.ts", "files: write node --import tsx a.ts"),
        ("pnpm dlx tool a.ts", "files: write node_modules/.bin/tool a.ts"),
        ("npm start", "answers may stand: write node --import tsx src/agent.ts, for what"),
        ("npm start", "for what package.json has as 'start': tsx src/agent.ts"),
        ("npm run built", "add --silent, or write the command that it runs, which package.json"),
    ],
)
def test_what_prepares_an_environment_first_is_refused_with_what_to_write(
    project: Path, command: str, instead: str
) -> None:
    assert instead in refused(project, *AgentSettings(command=command).argv)


def maker(settings: Settings) -> LauncherMaker:
    return LauncherMaker(States(settings.server, ExitStack(), serving=False))


def test_what_is_installed_need_not_be_installed_first(project: Path) -> None:
    (project / "node_modules/.bin").mkdir(parents=True)
    for name in ("there", "tsx"):
        script(project / "node_modules/.bin" / name, "#!/bin/sh\n")
    assert refused(project, "npx", "there", "-v").endswith("write node_modules/.bin/there -v")
    assert refused(project, "npx", "tsx", "a.ts").endswith("write node --import tsx a.ts")


def test_what_to_write_is_told_also_where_the_gateway_has_no_such_program(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    settings = Settings(agents={"it": AgentSettings(command="pdm run agent.py")})
    with pytest.raises(ConfigError, match=r"it.command: .*: write .venv/bin/python agent.py"):
        maker(settings).make(settings)
    off = msgspec.structs.replace(settings, server=ServerSettings(sandbox="off"))
    with pytest.raises(ConfigError, match=r"it.command: there is no command 'pdm'"):
        maker(off).make(off)


def test_what_only_looks_like_that_is_started(project: Path) -> None:
    for words in (["uv", "--version"], ["npm", "start", "--silent"], ["npx"], ["conda", "info"]):
        needs = discover(words, cwd=str(project), search_path=f"{project}/tools:/usr/bin:/bin")
        assert needs.program == f"{project}/tools/{words[0]}"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("./plain.py", "plain.py may not be executed: chmod +x {project}/plain.py, or name its"),
        ("./plain.py", "interpreter: python3 ./plain.py"),
        ("plain.py", "interpreter: python3 ./plain.py"),
        ("{project}/plain.sh", "interpreter: sh {project}/plain.sh"),
        ("ready.sh", "write ./ready.sh"),
        ("./tools", "{project}/tools is a folder"),
        ("X=1", "'X=1' sets a variable for a shell, and there is none: write env X=1 …"),
        ("cd", "'cd' is a word of a shell, and there is none: write sh -c 'cd …'"),
        ("~/x", "is expanded by a shell, and there is none: write {home}/x"),
        ("$HOME/x", "is replaced by a shell, and there is none: write sh -c '$HOME/x …'"),
        ("./nothing", "there is no command './nothing' in /usr/bin or {project}: not found"),
        ("nothing", "there is no command 'nothing' in /usr/bin or {project}: not found"),
    ],
)
def test_a_program_that_is_not_found_is_told_with_what_to_write(
    project: Path, word: str, said: str
) -> None:
    places = {"project": project, "home": os.path.expanduser("~")}
    told = why_not_found(word.format(**places), cwd=str(project), search_path="/usr/bin")
    assert told is not None
    assert said.format(**places) in told
    assert why_not_found("./ready.sh", cwd=str(project), search_path="/usr/bin") is None


def found(project: Path, *words: str) -> set[str]:
    needs = discover(words, cwd=str(project), search_path="/usr/bin:/bin")
    return {each for each in needs.paths if each.startswith(str(project.parent))}


@pytest.mark.parametrize(
    "reads", ["cat {path}", "cat '{path}'", "P={path}; cat $P", "cd {path}; cat ."]
)
def test_a_script_of_the_projects_does_not_show_what_lies_elsewhere(
    tmp_path: Path, reads: str
) -> None:
    project, letters = tmp_path / "project", tmp_path / "letters"
    (project / "sub").mkdir(parents=True)
    letters.mkdir()
    (letters / "one").write_text("")
    script(project / "run.sh", f"#!/bin/sh\n{reads.format(path=letters)}/one\n{letters}/bin/x\n")
    assert found(project, "./run.sh") == {str(project)}
    # The control: the same words in the command are the operator's.
    assert str(letters) in found(project, "sh", "-c", f"cat {letters}/one")


def test_an_environment_does_not_show_sources_that_lie_elsewhere(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    project = tmp_path / "project"
    prefix = project / ".venv"
    (prefix / "bin").mkdir(parents=True)
    script(prefix / "bin/python", "#!/bin/sh\n")
    (prefix / "pyvenv.cfg").write_text("")
    origin = prefix / "lib/python3.11/site-packages/x-1.dist-info/direct_url.json"
    origin.parent.mkdir(parents=True)
    elsewhere.mkdir()
    (project / "link").symlink_to(elsewhere)
    (project / "src").mkdir()
    for source, shown in (
        (elsewhere, False),
        (tmp_path, False),
        (Path("/root"), False),
        (project / "link", False),
        (project / "src/../..", False),
        (project / "src", True),
    ):
        origin.write_text(json.dumps({"url": f"file://{source}", "dir_info": {"editable": True}}))
        needs = discover([".venv/bin/python"], cwd=str(project), search_path="/usr/bin")
        assert (str(source) in needs.paths) == shown, source
        assert (str(elsewhere) in needs.paths) is False
        assert bool(needs.not_shown) != shown
    for broken in ("", "[]", '{"url": 5}', '{"url": "https://x/y"}', '{"url": "file://%00"}'):
        origin.write_text(broken)
        discover([".venv/bin/python"], cwd=str(project), search_path="/usr/bin")


def test_an_environment_without_compiled_modules_is_named_with_what_compiles_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("compiled", "not-compiled"):
        prefix = tmp_path / name
        (prefix / "bin").mkdir(parents=True)
        script(prefix / "bin/python", "#!/bin/sh\n")
        (prefix / "pyvenv.cfg").write_text("home = /usr/bin\n")
        package = prefix / "lib/python3.11/site-packages/package"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        if name == "compiled":
            (package / "__pycache__").mkdir()
        for _ in range(2):
            discover([f"{prefix}/bin/python"], cwd=str(tmp_path), search_path="/usr/bin")
    (record,) = caplog.records
    assert f"{tmp_path}/not-compiled/bin/python -m compileall -q" in record.getMessage()


def test_scripts_that_call_each_other_are_read_once(tmp_path: Path) -> None:
    for one, other in (("a.sh", "b.sh"), ("b.sh", "a.sh")):
        script(tmp_path / one, f"#!/bin/sh\nsh {other}; ./{other}; . ./{other}\n")
    assert found(tmp_path, "./a.sh") == {str(tmp_path)}


@pytest.mark.parametrize(
    ("words", "inner"),
    [
        ("env -i A=1 python x", "python x"),
        ("/usr/bin/env -u HOME -- python x", "python x"),
        ("env -S 'python -u' x", "python -u x"),
        ("timeout -k 5 10s python x", "python x"),
        ("stdbuf -oL jq .", "jq ."),
        ("env", None),
        ("python x", None),
    ],
)
def test_the_command_within_a_command_is_found(words: str, inner: str | None) -> None:
    assert wrapped(AgentSettings(command=words).argv) == (inner and inner.split())


@pytest.mark.parametrize(
    ("words", "script"),
    [
        ("sh -c 'a b' c", "a b"),
        ("bash -euo pipefail -c x", "x"),
        ("sh -lc x", "x"),
        ("sh x -c y", None),
        ("sh -c", None),
        ("python -c x", None),
    ],
)
def test_the_script_of_a_shell_is_found(words: str, script: str | None) -> None:
    assert shell_script(AgentSettings(command=words).argv) == script


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("a b | c > d && e", ["/f: a b", "/f: c", "/f: e"]),
        ("cd g; a\ncd /h\nb", ["/f/g: a", "/h: b"]),
        ("# isn't\na # isn't\nb 'c # d'", ["/f: a", "/f: b c # d"]),
        ("if a; then X=1 exec b; fi", ["/f: a", "/f: b", "/f: fi"]),
        ('X=p/q; "$X/r" $Y `z` s', ["/f: p/q/r s"]),
        ('cd "$(dirname "$0")/.." && a', ["/f: a"]),
        ('H="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"; $H/a', ["/f: /f/own/a"]),
        ("a \\\n b", ["/f: a b"]),
        ("a 'b", ["/f: a"]),
        ("", []),
    ],
)
def test_the_commands_of_a_script_are_found(script: str, expected: list[str]) -> None:
    commands = simple_commands(script, folder="/f", own_folder="/f/own")
    assert [f"{folder}: {' '.join(words)}" for folder, words in commands] == expected
