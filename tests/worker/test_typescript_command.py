"""`agent-worker bot.ts`: which files it serves, on which runtime, and what it says of mistakes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from protocol import ErrorCode
from tests.javascript import MODULES, need_package, need_runtime

from . import driver, typescript

AGENT_WORKER = str(Path(sys.executable).with_name("agent-worker"))
TYPED = """
import { type Context, InvalidInput } from "agent-gateway-worker";
interface Person { name: string }
export const invoke = async (input: Person, ctx: Context): Promise<string> => {
  if (input.name === undefined) throw new InvalidInput("input.name is missing");
  return `Hello, ${input.name}! ${ctx.requestId}`;
};
export async function* chat(messages: Array<{ content: string }>) {
  for (const word of messages.at(-1)!.content.split(" ")) yield `${word} `;
}
"""
SOURCES = {
    "good.mjs": "import { Agent } from 'agent-gateway-worker';"
    "export const agent = new Agent('good').invoke((input) => input);"
    "export const other = 7;",
    "two.mjs": "import { Agent } from 'agent-gateway-worker';"
    "export const a = new Agent('a').invoke((input) => 'a');"
    "export const b = new Agent('b').invoke((input) => 'b');",
    "default.mjs": "import { Agent } from 'agent-gateway-worker';"
    "export default new Agent('default').invoke((input) => 'default');",
    "runs.mjs": "import { Agent } from 'agent-gateway-worker';"
    "await new Agent('runs').invoke((input) => 'runs').run();",
    "common.cjs": "module.exports = { invoke: (input) => 'common', concurrency: 3 };",
    "object.mjs": "export default { invoke: (input) => 'object' };",
    "translated.cjs": "Object.defineProperty(exports, '__esModule', { value: true });"
    "const { Agent } = require('agent-gateway-worker');"
    "exports['a' + 'gent'] = new Agent('translated').invoke((input) => 'translated');",
    "bare.mjs": "import { Agent } from 'agent-gateway-worker'; export const a = new Agent('bare');",
    "empty.mjs": "",
    "wrong.mjs": "export const invoke = 7;",
    "broken.mjs": "throw new RangeError('at import');",
    "broken-later.mjs": "setTimeout(() => { throw new RangeError('later') });"
    "await new Promise((resolve) => setTimeout(resolve, 60000));",
    "needy.mjs": "import 'nowhere';",
    "leaver.mjs": "process.exit(0);",
    "bot.ts": TYPED,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, source in SOURCES.items():
        (tmp_path / name).write_text(source)
    return tmp_path


def run(
    *words: str, cwd: Path, runtime: str = "node24", requests: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [AGENT_WORKER, "--runtime", need_runtime(runtime), *words],
        cwd=cwd,
        input=requests,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["good.mjs", "two.mjs"], 2, "expected one agent to serve, got 2; usage: agent-worker"),
        (["--loud", "good.mjs"], 2, "no option --loud; usage: agent-worker"),
        (["missing.mjs"], 1, 'no file "missing.mjs" in '),
        (["good.mjs:missing"], 1, "good.mjs has no missing; it has agent"),
        (["good.mjs:other"], 1, "good.mjs:other is a number, expected an Agent; it has agent"),
        (["two.mjs"], 1, "two.mjs has a and b: say which, two.mjs:a"),
        (["empty.mjs"], 1, "empty.mjs exports neither an Agent nor a function named invoke or"),
        (["wrong.mjs"], 1, "wrong.mjs: the invoke handler is a number, not a function"),
        (["bare.mjs"], 1, 'agent "bare" has no handlers; call agent.invoke or agent.chat first'),
        (["broken.mjs"], 1, "importing broken.mjs failed: RangeError: at import"),
        (["broken-later.mjs"], 1, "importing broken-later.mjs failed: RangeError: later"),
        (["needy.mjs"], 1, "importing needy.mjs failed: Error: Cannot find package 'nowhere'"),
        (["leaver.mjs"], 1, "importing leaver.mjs failed: Error: process.exit(0) was called"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_clear_line(
    folder: Path, words: list[str], status: int, message: str
) -> None:
    done = run(*words, cwd=folder)
    assert done.returncode == status
    assert done.stdout == ""
    *stack, last = done.stderr.splitlines()
    assert last.startswith(f"agent-worker: {message}"), done.stderr
    assert bool(stack) == ("importing" in message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--runtime", "nowhere", "a.ts"], "agent-worker: there is no 'nowhere' in PATH"),
        (
            ["a.ts"],
            "agent-worker: there is no JavaScript runtime in PATH; install Node 20 or newer",
        ),
        (["a.ts", "--runtime"], "agent-worker: --runtime needs a name or a path; usage: "),
    ],
)
def test_a_runtime_that_is_missing_is_told(tmp_path: Path, words: list[str], message: str) -> None:
    done = subprocess.run(
        [AGENT_WORKER, *words],
        env={**os.environ, "PATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {1, 2}
    assert done.stderr.startswith(message)


@pytest.mark.parametrize(
    ("target", "output"),
    [
        ("good.mjs", '"x"'),
        ("two.mjs:b", '"b"'),
        ("default.mjs", '"default"'),
        ("runs.mjs", '"runs"'),
        ("common.cjs", '"common"'),
        ("object.mjs", '"object"'),
        ("translated.cjs", '"translated"'),
        ("translated.cjs:agent", '"translated"'),
    ],
)
@pytest.mark.parametrize("runtime", ["node20", "bun"])
def test_an_agent_is_found_however_its_module_gives_it(
    folder: Path, runtime: str, target: str, output: str
) -> None:
    request = '{"id":1,"method":"invoke","params":{"input":"x"}}\n'
    done = run(target, cwd=folder, runtime=runtime, requests=request)
    assert done.stdout.splitlines()[1:] == [
        f'{{"jsonrpc":"2.0","id":1,"result":{{"output":{output}}}}}'
    ], done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize("runtime", ["node20", "node22", "node24", "bun", "deno"])
async def test_typescript_is_served_as_it_is(folder: Path, runtime: str) -> None:
    if runtime == "node20":  # with the agent's own tsx
        need_package("tsx")
        (folder / "node_modules").symlink_to(MODULES)
    (folder / "whole.ts").write_text(
        "import { Agent } from 'agent-gateway-worker';\n"
        "export const agent: Agent = new Agent('whole').invoke((input: string) => input);\n"
    )
    command = [AGENT_WORKER, "--runtime", need_runtime(runtime), "whole.ts"]
    async with driver.start(command, cwd=folder) as worker:
        assert (await worker.invoke("x")).value == "x"
    command = [AGENT_WORKER, "--runtime", need_runtime(runtime), "bot.ts"]
    async with driver.start(command, cwd=folder) as worker:
        answer = await worker.invoke({"name": "Ada"}, request_id="r7")
        assert answer.value == "Hello, Ada! r7"
        assert (await worker.invoke({})).failure == (
            ErrorCode.INVALID_INPUT,
            "input.name is missing",
        )
        said = [{"role": "user", "content": "good day"}]
        assert (await worker.chat(said, stream=True)).chunks == ("good ", "day ")
        assert await worker.finish() == 0


@pytest.mark.parametrize(
    ("version", "file", "flagged"),
    [
        ((22, 5), "a.ts", False),
        ((22, 6), "a.ts", True),
        ((22, 17), "a.mts:agent", True),
        ((22, 17), "a.js", False),
        ((22, 18), "a.ts", False),
        (None, "a.ts", False),
    ],
)
def test_node_is_told_to_strip_types_where_it_must_be(
    tmp_path: Path, version: tuple[int, int] | None, file: str, flagged: bool
) -> None:
    program = tmp_path / "bin" / "node"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$@" >&2\n')
    program.chmod(0o755)
    if version is not None:
        (tmp_path / "include" / "node").mkdir(parents=True)
        (tmp_path / "include" / "node" / "node_version.h").write_text(
            f"#define NODE_MAJOR_VERSION {version[0]}\n#define NODE_MINOR_VERSION {version[1]}\n"
        )
    done = subprocess.run(
        [AGENT_WORKER, "--runtime", program, file], capture_output=True, text=True, check=True
    )
    assert done.stderr.split()[-1] == file
    assert ("--experimental-strip-types" in done.stderr) == flagged


def test_node_20_without_tsx_says_what_to_do(folder: Path) -> None:
    done = run("bot.ts", cwd=folder, runtime="node20")
    assert done.returncode == 1
    assert "does not run TypeScript, and tsx is not installed beside " in done.stderr
    assert "npm install tsx there, or use Node 22.18 or newer" in done.stderr


SCHEMAS = {
    "zod": ("import { z } from 'zod'; export const schema = z.object({ age: z.number() });"),
    "valibot": (
        "import * as v from 'valibot'; export const schema = v.object({ age: v.number() });"
    ),
    "arktype": ("import { type } from 'arktype'; export const schema = type({ age: 'number' });"),
}


@pytest.mark.parametrize("library", SCHEMAS)
async def test_an_input_that_does_not_match_a_schema_is_refused_with_its_path(
    tmp_path: Path, library: str
) -> None:
    need_package(library)
    (tmp_path / "node_modules").symlink_to(MODULES)
    (tmp_path / "agent.mjs").write_text(
        SCHEMAS[library] + "export const invoke = (input) => input.age + 1;"
    )
    async with driver.start(typescript.command("node24", "agent.mjs"), cwd=tmp_path) as worker:
        assert (await worker.invoke({"age": 41})).value == 42
        code, message = (await worker.invoke({"age": "old"})).failure
        assert code == ErrorCode.INVALID_INPUT
        assert message.startswith("input.age: "), message
        assert "number" in message
        assert await worker.finish() == 0
        assert worker.stderr == ""


async def test_a_module_that_calls_run_is_a_worker_by_itself(tmp_path: Path) -> None:
    (tmp_path / "bot.mjs").write_text(
        f"import {{ Agent }} from {str(typescript.FOLDER / 'index.js')!r};"
        "const agent = new Agent('bot').invoke((input) => input); agent.run();"
        "console.log('after run');"
        "agent.run().catch((error) => console.log(error.message));"
    )
    command = [need_runtime("node24"), "bot.mjs"]
    async with driver.start(command, cwd=tmp_path) as worker:
        assert (await worker.invoke("x")).value == "x"
        assert await worker.finish() == 0
        assert "after run" in worker.stderr
        assert "this process serves an agent already" in worker.stderr
