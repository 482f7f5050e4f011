"""`agent-worker bot.ts`: hand an agent in TypeScript or JavaScript to a runtime that serves it.

The wire is moved here, before the runtime starts: no runtime of JavaScript can do it as well (a
socket cannot be reopened, and Deno keeps its descriptors to itself). The rest of the command is
`worker/typescript/main.js`, which checks the file and reports every mistake.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from . import stdio

ENDINGS = (".js", ".mjs", ".cjs", ".ts", ".mts", ".cts")
"""Of the files that are served here."""

RUNTIMES = ("node", "bun", "deno")
"""The first of these in PATH serves, unless the command names one."""

_NEEDS_FLAG_SINCE, _NEEDS_NO_FLAG = (22, 6), (22, 18)
_STRIP_TYPES = ("--experimental-strip-types", "--disable-warning=ExperimentalWarning")
"""How Node of these versions runs TypeScript. Older ones know no such option, and do not start."""

_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "typescript")
_MAIN = os.path.join(_FOLDER, "main.js")
_USAGE = "usage: agent-worker [--runtime node|bun|deno|PATH] PATH/TO/FILE.ts[:AGENT]"


def serve(arguments: list[str]) -> NoReturn:
    """Replace this process by a runtime that serves the agent. Exits with 2 for a wrong option."""
    runtime, rest = _parse(arguments)
    program = _find(runtime)
    try:
        wire = stdio.take_stdio()
    except OSError as error:
        _fail(f"stdin or stdout is closed: {error}")
    for descriptor in wire:
        os.set_inheritable(descriptor, True)  # main.js takes them over
    argv = [*_command(program, rest), _MAIN, f"--wire={wire.stdin},{wire.stdout}", *rest]
    try:
        os.execv(program, argv)  # noqa: S606  (the same process, so that signals reach the runtime)
    except OSError as error:
        _fail(f"{program} cannot be started: {error}")


def _parse(arguments: list[str]) -> tuple[str | None, list[str]]:
    runtime = None
    others = []
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if name == "--runtime":
            runtime = value if equals else next(rest, "")
            if not runtime:
                _fail(f"--runtime needs a name or a path; {_USAGE}", status=2)
        elif argument in {"-h", "--help"}:
            print(f"{_USAGE}\n\n{__doc__}")  # noqa: T201  (--help asks for it)
            raise SystemExit(0)
        else:
            others.append(argument)
    return runtime, others


def _find(runtime: str | None) -> str:
    import shutil  # noqa: PLC0415  (an agent in Python does not need it)

    found = next(filter(None, map(shutil.which, [runtime] if runtime else RUNTIMES)), None)
    if found is not None:
        return found
    if runtime:
        _fail(f"there is no {runtime!r} in PATH")
    return _fail("there is no JavaScript runtime in PATH; install Node 20 or newer, or Bun")


def _command(program: str, arguments: list[str]) -> list[str]:
    if os.path.basename(program).startswith("deno"):
        # The sandbox says what an agent may do, and nobody is there to answer a prompt.
        command = [program, "run", "--allow-all", "--no-prompt"]
        if not any(map(_has_deno_settings, arguments)):
            command.append(f"--import-map={os.path.join(_FOLDER, 'deno.json')}")
        return command
    if (_NEEDS_FLAG_SINCE <= _node_version(program) < _NEEDS_NO_FLAG) and any(
        ".ts" in argument or ".mts" in argument for argument in arguments
    ):
        return [program, *_STRIP_TYPES]
    return [program]


def _node_version(program: str) -> tuple[int, ...]:
    """The version of a Node that was installed with its headers, as those of nodejs.org are, or
    nothing.

    Asking the program itself would double the time of a start.
    """
    prefix = os.path.dirname(os.path.dirname(os.path.realpath(program)))
    try:
        with open(os.path.join(prefix, "include", "node", "node_version.h")) as file:
            words = [line.split() for line in file]
    except OSError:
        return ()
    values = {each[1]: int(each[2]) for each in words if len(each) == 3 and each[2].isdigit()}
    return tuple(values.get(f"NODE_{part}_VERSION", 0) for part in ("MAJOR", "MINOR"))


def _has_deno_settings(file: str) -> bool:
    """Whether the project has an import map of its own, which ours would replace."""
    folder = os.path.dirname(os.path.abspath(file))
    if any(os.path.exists(os.path.join(folder, name)) for name in ("deno.json", "deno.jsonc")):
        return True
    return folder != os.sep and _has_deno_settings(folder)


def _fail(message: str, *, status: int = 1) -> NoReturn:
    sys.stderr.write(f"agent-worker: {message}\n")
    raise SystemExit(status)
