"""The TypeScript SDK as it is shipped: checked, tested on its own, in the wheel and by npm."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import msgspec
import pytest

from tests.conftest import need
from tests.javascript import MODULES, need_package, need_runtime
from tests.javascript.__main__ import _find_npm

from .typescript import FOLDER

UNITS = sorted(FOLDER.glob("test/*.test.js"))
SHIPPED = sorted(path.name for kind in ("*.js", "*.d.ts") for path in FOLDER.glob(kind))


pytestmark = pytest.mark.timeout(300)  # each has several programs run, one after the other


def run(*command: str | Path, cwd: Path = FOLDER) -> str:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("runtime", ["node20", "node22", "node24", "bun"])
def test_its_own_units_pass_on_each_runtime(runtime: str) -> None:
    command = ["test"] if runtime == "bun" else ["--test"]
    run(need_runtime(runtime), *command, *UNITS)


def test_the_types_are_right() -> None:
    tsc = need_package("typescript") / "bin" / "tsc"
    run(need_runtime("node24"), tsc, "-p", FOLDER, "--typeRoots", MODULES / "@types")


def test_the_style_is_right() -> None:
    biome = need_package("@biomejs/biome") / "bin" / "biome"
    examples = sorted(FOLDER.parent.glob("examples/*.ts"))
    run(need_runtime("node24"), biome, "check", "--error-on-warnings", FOLDER, *examples)


def test_the_npm_package_serves_and_types_an_agent_from_its_tarball(tmp_path: Path) -> None:
    tsc = need_package("typescript") / "bin" / "tsc"
    run(*_find_npm(), "pack", "--silent", "--pack-destination", tmp_path)
    (tarball,) = tmp_path.glob("*.tgz")
    with tarfile.open(tarball) as archive:
        names = sorted(archive.getnames())
    run("tar", "-xzf", tarball, "-C", tmp_path)
    expected = [*SHIPPED, "README.md", "deno.json", "package.json"]
    assert names == sorted(f"package/{name}" for name in expected)
    modules = tmp_path / "node_modules"
    modules.mkdir()
    (tmp_path / "package").rename(modules / "agent-gateway-worker")
    (modules / "@types").symlink_to(MODULES / "@types")
    (modules / "undici-types").symlink_to(MODULES / "undici-types")
    (tmp_path / "bot.ts").write_text(
        "import { Agent } from 'agent-gateway-worker';\n"
        "import { events } from 'agent-gateway-worker/ai-sdk';\n"
        "export default new Agent('bot').invoke((input: string, ctx) => input + ctx.requestId)\n"
        "  .chat(() => events(new ReadableStream<{ type: string }>()));\n"
    )
    options = ("--noEmit", "--strict", "--module", "nodenext", "--lib", "es2024,dom")
    run(need_runtime("node24"), tsc, *options, "bot.ts", cwd=tmp_path)
    done = subprocess.run(
        [need_runtime("node24"), modules / "agent-gateway-worker" / "main.js", "bot.ts"],
        cwd=tmp_path,
        input='{"id":1,"method":"invoke","params":{"input":"x","request_id":"r"}}\n',
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert '"result":{"output":"xr"}' in done.stdout


def test_the_wheel_serves_an_agent_without_npm(tmp_path: Path) -> None:
    root = FOLDER.parents[1]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    need((root / "pyproject.toml").exists(), "a clone to build")
    run(*pip, "wheel", "--no-deps", "--wheel-dir", tmp_path, root, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for name in [*SHIPPED, "README.md", "deno.json", "package.json"]:
        assert f"worker/typescript/{name}" in names
    assert not any("/typescript/test/" in name for name in names)
    venv.create(tmp_path / "venv", symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    run(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    folder = tmp_path / "project"  # with nothing of npm's in it, or above it
    folder.mkdir()
    (folder / "bot.ts").write_text(
        "import { Agent, type Context } from 'agent-gateway-worker';\n"
        "import 'agent-gateway-worker/ai-sdk';\n"
        "export default new Agent('bot').invoke((input: string, ctx: Context) =>\n"
        "  `${input} for ${ctx.requestId} by ${process.argv[1]}`);\n"
    )
    done = subprocess.run(
        [python.with_name("agent-worker"), "--runtime", need_runtime("node24"), "bot.ts"],
        cwd=folder,
        # What the wheel depends on is in this environment already.
        env={**os.environ, "PYTHONPATH": str(Path(msgspec.__file__).parents[1])},
        input='{"id":1,"method":"invoke","params":{"input":"x","request_id":"r"}}\n',
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert os.listdir(folder) == ["bot.ts"]
    (served_by,) = re.findall(r'"output":"x for r by (.*)"', done.stdout)
    assert served_by.startswith(f"{tmp_path}/venv/")
    assert served_by.endswith("/worker/typescript/main.js")
