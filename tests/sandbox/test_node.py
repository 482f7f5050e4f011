"""Projects in JavaScript are served as they are: what they import is shown, and no more."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.sandbox import SandboxError
from gateway.sandbox.files.discover import discover
from gateway.sandbox.files.places import contains
from tests.javascript import need_package, need_runtime
from tests.sandbox.users import PROJECT, as_user, available_users, need_sandbox

MODULE = '{"type": "module", "exports": "./index.js"}'
WORKSPACE = '{"workspaces": ["packages/*"]}'


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that workers, each with a user of its own, may come to."""
    with tempfile.TemporaryDirectory(prefix="projects-") as name:
        folder = Path(os.path.realpath(name))
        folder.chmod(0o755)
        yield folder


def write(place: Path, **files: str) -> None:
    for name, text in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def link(place: Path, name: str, target: str) -> None:
    path = place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def package(place: Path, name: str, code: str) -> None:
    write(place, **{f"{name}/package.json": MODULE, f"{name}/index.js": code})


def found(place: Path, *words: str, cwd: str = "app") -> set[str]:
    """What is needed, relative to the place."""
    needs = discover(words, cwd=str(place / cwd), search_path="/usr/bin:/bin")
    return {os.path.relpath(each, place) for each in needs.paths if contains(str(place), each)}


def not_shown(place: Path, *words: str, cwd: str = "app") -> set[str]:
    needs = discover(words, cwd=str(place / cwd), search_path="/usr/bin:/bin")
    return {os.path.relpath(each, place) for each in needs.not_shown}


def add_runtime(place: Path) -> str:
    """A runtime by name only, since discovery starts nothing."""
    node = place / "runtime" / "node"
    write(place, **{"runtime/node": "\x7fELF"})
    node.chmod(0o755)
    return str(node)


def shown(place: Path, *words: str, cwd: str = "app") -> set[str]:
    return found(place, add_runtime(place), *words, cwd=cwd) - {"runtime/node"}


def test_a_program_brings_the_package_that_it_belongs_to(place: Path) -> None:
    write(place, **{"app/package.json": "{}", "app/src/deep/index.js": ""})
    assert shown(place, "src/deep/index.js") == {"app", "app/src/deep"}
    assert shown(place, f"{place}/app/src/deep/index.js", cwd=".") == {"app", "app/src/deep"}


@pytest.mark.parametrize("name", ["index.ts", "index.mjs", "index.cts", "view.tsx"])
def test_so_it_is_whatever_its_ending(place: Path, name: str) -> None:
    write(place, **{"app/package.json": "{}", f"app/src/{name}": ""})
    assert "app" in shown(place, f"src/{name}")
    assert "app" in shown(place, f"src/{name}:agent")


@pytest.mark.parametrize("word", ["src", "./src", "src/index", "."])
def test_a_program_may_be_named_as_node_names_it(place: Path, word: str) -> None:
    write(place, **{"app/package.json": "{}", "app/src/index.js": "", "app/index.js": ""})
    assert "app" in shown(place, word)


def test_without_a_package_it_brings_its_folder_and_the_modules_above(place: Path) -> None:
    write(place, **{"app/src/index.js": "", "app/node_modules/dep/index.js": ""})
    assert shown(place, "src/index.js") == {"app/src", "app/node_modules"}


def test_modules_above_the_package_come_along(place: Path) -> None:
    write(place, **{"node_modules/dep/index.js": "", "app/package.json": "{}", "app/index.js": ""})
    assert shown(place, "index.js") == {"app", "node_modules"}


def test_a_file_in_another_language_brings_its_folder_alone(place: Path) -> None:
    write(place, **{"app/package.json": "{}", "app/src/agent.py": ""})
    assert shown(place, "src/agent.py") == {"app/src"}


def test_neither_a_home_nor_what_holds_keys_is_a_package(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(place, **{"package.json": "{}", "node_modules/dep/index.js": "", "app/index.js": ""})
    assert shown(place, "index.js") == {".", "app"}  # the control
    (place / ".ssh").mkdir()
    assert shown(place, "index.js") == {"app"}
    (place / ".ssh").rmdir()
    monkeypatch.setenv("HOME", str(place))
    assert shown(place, "index.js") == {"app"}


def workspace(place: Path, manifest: str = WORKSPACE) -> None:
    write(
        place, **{"package.json": manifest, "secret.txt": "x", "packages/other/package.json": "{}"}
    )
    write(place, **{"packages/agent/package.json": "{}", "packages/agent/index.js": ""})
    package(place, "packages/lib", "")
    link(place, "node_modules/@me/lib", "../../packages/lib")


def test_a_link_to_a_package_of_the_same_workspace_is_followed(place: Path) -> None:
    workspace(place)
    assert shown(place, "index.js", cwd="packages/agent") == {
        "packages/agent",
        "packages/lib",
        "node_modules",
    }


def test_a_workspace_of_pnpm_is_one_too(place: Path) -> None:
    workspace(place, "{}")
    assert "packages/lib" not in shown(place, "index.js", cwd="packages/agent")  # the control
    write(place, **{"pnpm-workspace.yaml": "packages: [packages/*]\n"})
    assert "packages/lib" in shown(place, "index.js", cwd="packages/agent")


def test_a_package_of_the_workspace_may_be_the_program(place: Path) -> None:
    workspace(place)
    for cwd in (".", "packages/other"):
        words = (f"{place}/node_modules/@me/lib/index.js",)
        assert {"packages/lib", "node_modules"} <= shown(place, *words, cwd=cwd)
        assert not_shown(place, add_runtime(place), *words, cwd=cwd) == set()


@pytest.mark.parametrize("leads", ["outside", "outside/deep", ".", "packages", "home/.ssh"])
def test_any_other_link_is_reported_and_not_followed(place: Path, leads: str) -> None:
    root = place / "root"
    workspace(root)
    package(place, "outside", "")
    package(place, "home/.ssh", "")
    write(place, **{"outside/deep/x": "", "package.json": "{}"})
    name = "packages/agent/node_modules/evil"
    target = root / leads if leads in {".", "packages"} else place / leads
    link(root, name, str(target))
    assert shown(root, "index.js", cwd="packages/agent") == {
        "packages/agent",
        "packages/lib",
        "node_modules",
    }
    words = (add_runtime(root), "index.js")
    assert not_shown(root, *words, cwd="packages/agent") == {name}


def test_a_workspace_that_the_program_itself_declares_reaches_no_further(place: Path) -> None:
    write(place, **{"app/package.json": WORKSPACE, "app/index.js": ""})
    package(place, "private", "")
    link(place, "app/node_modules/private", "../../private")
    assert shown(place, "index.js") == {"app"}


def test_modules_that_are_a_link_are_shown_only_within_the_project(place: Path) -> None:
    write(place, **{"app/package.json": "{}", "app/src/index.js": "", "home/dep/x.js": ""})
    link(place, "app/src/node_modules", str(place / "home"))
    assert "home" not in shown(place, "src/index.js")


def test_a_linked_program_is_judged_before_its_package(place: Path) -> None:
    package(place, "private", "")
    write(place, **{"app/package.json": "{}"})
    link(place, "app/index.js", "../private/index.js")
    assert shown(place, "index.js") == {"app"}


STORE = "home/.local/share/pnpm/store/v10/links"


def test_links_into_the_store_of_pnpm_show_the_packages_that_they_lead_to(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(place / "home"))
    write(place, **{"app/package.json": "{}", "app/index.js": ""})
    for name in ("@/a/1.0.0/aa/node_modules/a", "@me/b/2.0.0/bb/node_modules/@me/b", "@/c/1/cc/c"):
        package(place, f"{STORE}/{name}", "")
    link(place, "app/node_modules/a", f"{place}/{STORE}/@/a/1.0.0/aa/node_modules/a")
    link(
        place,
        f"{STORE}/@/a/1.0.0/aa/node_modules/@me/b",
        f"{place}/{STORE}/@me/b/2.0.0/bb/node_modules/@me/b",
    )
    assert shown(place, "index.js") == {
        "app",
        f"{STORE}/@/a/1.0.0/aa/node_modules",
        f"{STORE}/@me/b/2.0.0/bb/node_modules",
    }


def test_what_is_loaded_first_brings_its_package_too(place: Path) -> None:
    write(place, **{"app/src/index.js": "", "app/node_modules/pre/index.js": ""})
    write(place, **{"hooks/package.json": "{}", "hooks/src/x.mjs": ""})
    for words in (
        ("--import", "../hooks/src/x.mjs"),
        ("--import=../hooks/src/x.mjs",),
        ("--import", f"file://{place}/hooks/src/x.mjs"),
        ("-r", "../hooks/src/x.mjs"),
    ):
        assert "hooks" in shown(place, *words, "src/index.js")
    package(place, "elsewhere", "")
    assert shown(place, "--import", "pre", "../elsewhere/index.js") == {
        "elsewhere",
        "app/node_modules",
    }


def test_a_program_of_another_kind_that_is_given_a_module_needs_a_runtime(place: Path) -> None:
    write(place, **{"app/bot.ts": "", "tools/agent-worker": "#!/bin/sh\n"})
    (place / "tools/agent-worker").chmod(0o755)
    path = f"{place}/tools:{os.path.dirname(add_runtime(place))}:/bin"
    words = ["agent-worker", "bot.ts"]
    needs = discover(words, cwd=str(place / "app"), search_path=path)
    assert f"{place}/runtime/node" in needs.paths
    assert f"{place}/runtime" in needs.bin_dirs


def test_a_manifest_that_is_no_file_or_no_json_declares_nothing(place: Path) -> None:
    workspace(place, "{" * 100_000)
    assert "packages/lib" not in shown(place, "index.js", cwd="packages/agent")
    (place / "package.json").unlink()
    os.mkfifo(place / "package.json")
    assert "packages/lib" not in shown(place, "index.js", cwd="packages/agent")


def test_a_command_that_needs_a_unix_socket_is_refused_with_what_works(place: Path) -> None:
    package(place, "app/node_modules/tsx", "")
    write(place, **{"app/node_modules/tsx/dist/cli.mjs": "#!/usr/bin/env node\n", "app/bot.ts": ""})
    (place / "app/node_modules/tsx/dist/cli.mjs").chmod(0o755)
    link(place, "app/node_modules/.bin/tsx", "../tsx/dist/cli.mjs")
    with pytest.raises(SandboxError, match=r"unix socket.*write node --import tsx bot\.ts"):
        found(place, "node_modules/.bin/tsx", "bot.ts")
    assert "app/node_modules" in shown(place, "--import", "tsx", "bot.ts")


# The same, in the sandbox: what a program imports can be read there.

SAY = "process.stdout.write(JSON.stringify({a, b: globalThis.b ?? null}));"


def one_package(place: Path) -> tuple[str, list[str]]:
    write(place, **{"app/package.json": '{"type": "module"}', "app/lib.js": "export default 2;"})
    write(place, **{"app/src/index.js": f"import a from 'dep'; import '../lib.js'; {SAY}"})
    package(place, "app/node_modules/dep", "export default 1;")
    return "app", ["node", "src/index.js"]


def from_elsewhere(place: Path) -> tuple[str, list[str]]:
    one_package(place)
    return ".", ["node", f"{place}/app/src/index.js"]


def npm_workspace(place: Path) -> tuple[str, list[str]]:
    write(place, **{"package.json": WORKSPACE})
    package(place, "packages/agent", f"import a from '@me/lib'; {SAY}")
    package(place, "packages/lib", "export { default } from 'dep';")
    package(place, "node_modules/dep", "export default 1;")
    link(place, "node_modules/@me/lib", "../../packages/lib")
    return "packages/agent", ["node", "index.js"]


def pnpm(place: Path) -> tuple[str, list[str]]:
    package(place, "app", f"import a from 'dep'; {SAY}")
    package(place, "app/node_modules/.pnpm/dep@1/node_modules/dep", "export {default} from 'in';")
    package(place, "app/node_modules/.pnpm/in@1/node_modules/in", "export default 1;")
    link(place, "app/node_modules/dep", ".pnpm/dep@1/node_modules/dep")
    link(place, "app/node_modules/.pnpm/dep@1/node_modules/in", "../../in@1/node_modules/in")
    return "app", ["node", "index.js"]


def pnpm_workspace(place: Path) -> tuple[str, list[str]]:
    write(place, **{"pnpm-workspace.yaml": "packages: [packages/*]\n", "package.json": "{}"})
    package(place, "packages/agent", f"import a from '@me/lib'; {SAY}")
    package(place, "packages/lib", "export { default } from 'dep';")
    package(place, "node_modules/.pnpm/dep@1/node_modules/dep", "export default 1;")
    link(
        place, "packages/lib/node_modules/dep", "../../../node_modules/.pnpm/dep@1/node_modules/dep"
    )
    link(place, "packages/agent/node_modules/@me/lib", "../../../lib")
    return "packages/agent", ["node", "index.js"]


def pnpm_store(place: Path) -> tuple[str, list[str]]:
    package(place, "app", f"import a from 'dep'; {SAY}")
    store = f"{place.parent}/home/.local/share/pnpm/store/v10/links/@"
    package(Path(store), "dep/1.0.0/aa/node_modules/dep", "export {default} from 'in';")
    package(Path(store), "in/1.0.0/bb/node_modules/in", "export default 1;")
    link(Path(store), "dep/1.0.0/aa/node_modules/in", f"{store}/in/1.0.0/bb/node_modules/in")
    link(place, "app/node_modules/dep", f"{store}/dep/1.0.0/aa/node_modules/dep")
    return "app", ["node", "index.js"]


def bin_link(place: Path) -> tuple[str, list[str]]:
    write(place, **{"app/package.json": "{}"})
    package(place, "app/node_modules/dep", "export default 1;")
    package(place, "app/node_modules/tool", "")
    cli = f"#!/usr/bin/env node\nimport a from 'dep'; {SAY}"
    write(place, **{"app/node_modules/tool/cli.js": cli})
    (place / "app/node_modules/tool/cli.js").chmod(0o755)
    link(place, "app/node_modules/.bin/tool", "../tool/cli.js")
    return "app", ["node_modules/.bin/tool"]


def bin_link_from_elsewhere(place: Path) -> tuple[str, list[str]]:
    bin_link(place)
    return ".", [f"{place}/app/node_modules/.bin/tool"]


def bin_script(place: Path) -> tuple[str, list[str]]:
    """As pnpm writes it."""
    bin_link(place)
    tool = place / "app/node_modules/.bin/tool"
    tool.unlink()
    tool.write_text(
        '#!/bin/sh\nbasedir=$(dirname "$(echo "$0" | sed -e \'s,\\\\,/,g\')")\n'
        'exec node  "$basedir/../tool/cli.js" "$@"\n'
    )
    tool.chmod(0o755)
    return "app", ["node_modules/.bin/tool"]


def loaded_first(place: Path) -> tuple[str, list[str]]:
    one_package(place)
    write(place, **{"hooks/package.json": "{}", "hooks/b.mjs": "globalThis.b = 'first';"})
    return "app", ["node", "--import", "../hooks/b.mjs", "src/index.js"]


def package_loaded_first(place: Path) -> tuple[str, list[str]]:
    one_package(place)
    package(place, "app/node_modules/pre", "globalThis.b = 'first';")
    return "app", ["node", "--import", "pre", "src/index.js"]


def tsx(place: Path) -> tuple[str, list[str]]:
    """What tsx's own command is refused for; Node by itself runs no `enum`."""
    one_package(place)
    write(
        place,
        **{"app/src/x.ts": f"import dep from 'dep'; enum E {{ A = dep }}; let a = E.A; {SAY}"},
    )
    for name in ("tsx", "esbuild", "@esbuild"):
        shutil.copytree(need_package(name), place / "app/node_modules" / name)
    return "app", ["node", "--import", "tsx", "src/x.ts"]


LAYOUTS = [
    one_package, from_elsewhere, npm_workspace, pnpm, pnpm_workspace, pnpm_store, bin_link,
    bin_link_from_elsewhere, bin_script, loaded_first, package_loaded_first, tsx,
]  # fmt: skip


START = """
import json, os, subprocess, sys
import msgspec
from gateway.sandbox import SandboxSettings, make_launcher
settings = msgspec.json.decode(sys.argv[1], type=SandboxSettings)
launcher = make_launcher("agent", sys.argv[2:], settings, environ=os.environ, cwd=os.getcwd())
with launcher.launch() as launch:
    done = subprocess.run(
        launch.argv, env=dict(launch.env), cwd=launch.cwd, pass_fds=launch.pass_fds,
        stdin=subprocess.DEVNULL,
    )
sys.exit(done.returncode)
"""
"""One start of a command, with settings as JSON. Only the command itself writes to stdout."""


def run(
    place: Path, cwd: str, words: list[str], *, user: str, node: str, **settings: object
) -> str:
    """What the program says in the strict sandbox, with `node` in PATH and these settings alone."""
    need_sandbox(user)
    done = subprocess.run(
        as_user(user, sys.executable, "-c", START, json.dumps(settings), *words),
        cwd=place / "code" / cwd,
        env={
            **os.environ,
            "PYTHONPATH": str(PROJECT),
            "PATH": f"{os.path.dirname(node)}:/usr/bin:/bin",
            "HOME": str(place / "home"),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("user", available_users())
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_a_project_runs_as_it_is(layout: object, user: str, place: Path) -> None:
    assert callable(layout)
    cwd, words = layout(place / "code")
    said = json.loads(run(place, cwd, words, user=user, node=need_runtime("node22")))
    assert said["a"] == 1
    assert said["b"] == ("first" if "first" in layout.__name__ else None)


@pytest.mark.parametrize("user", available_users())
def test_node_of_a_version_manager_runs_with_its_own_packages(user: str, place: Path) -> None:
    prefix = place / "home/.nvm/versions/node/v24.0.0"
    write(place, **{"home/.nvm/package.json": "{}", "home/.nvm/secret": "x"})
    write(prefix, **{"lib/node_modules/npm/package.json": "{}"})
    (prefix / "bin").mkdir()
    shutil.copy(need_runtime("node24"), prefix / "bin/node")
    code = (
        "import fs from 'node:fs'; process.stdout.write(JSON.stringify([process.execPath, "
        f"fs.readdirSync('{place}/home/.nvm')]));"
    )
    write(place, **{"code/index.mjs": code})
    said = json.loads(run(place, ".", ["node", "index.mjs"], user=user, node=f"{prefix}/bin/node"))
    assert said == [f"{prefix}/bin/node", ["versions"]]


@pytest.mark.parametrize("runtime", ["node20", "node24", "bun", "deno"])
def test_other_runtimes_find_the_same(runtime: str, place: Path) -> None:
    cwd, words = npm_workspace(place / "code")
    program = need_runtime(runtime)
    before = ["run", "-A"] if runtime == "deno" else []
    user = "root" if os.geteuid() == 0 else "user"
    said = run(place, cwd, [program, *before, *words[1:]], user=user, node=program)
    assert json.loads(said)["a"] == 1


READ = (
    "import fs from 'node:fs';"
    "const read = (name) => { try { return fs.readFileSync(name, 'utf8'); }"
    " catch (error) { return error.code; } };"
    "process.stdout.write(JSON.stringify(process.argv.slice(2).map(read)));"
)


@pytest.mark.parametrize("user", available_users())
def test_a_link_of_the_authors_shows_nothing_of_a_home(user: str, place: Path) -> None:
    package(place, "home/letters", "a letter")
    package(place, "home/.ssh", "a key")
    write(place, **{"code/package.json": WORKSPACE, "code/index.mjs": READ})
    package(place, "code/node_modules/own", "own")
    link(place, "code/node_modules/letters", f"{place}/home/letters")
    link(place, "code/node_modules/keys", f"{place}/home/.ssh")
    link(place, "code/node_modules/@all/home", f"{place}/home")
    names = [f"node_modules/{name}" for name in ("own", "letters", "keys", "@all/home/letters")]
    words = ["node", "index.mjs", *(f"{name}/index.js" for name in names)]
    said = json.loads(run(place, ".", words, user=user, node=need_runtime("node22")))
    assert said == ["own", "ENOENT", "ENOENT", "ENOENT"]
    # The control: what the operator names is shown under its own name, and so the link leads there.
    named = [f"{place}/home/letters"]
    node = need_runtime("node22")
    said = json.loads(run(place, ".", words, user=user, node=node, mounts_ro=named))
    assert said == ["own", "a letter", "ENOENT", "a letter"]
