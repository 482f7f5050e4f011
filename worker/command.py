"""`agent-worker path/to/file.py:agent` or `agent-worker module:agent`: serve an agent.

The command takes stdin and stdout away before it imports the agent's module. Every mistake in the
command line is one line on stderr; an exception raised by the module comes with its traceback.

No file of the agent's can stand in for the SDK: a script that `pip` installs does not look into the
current folder, and the agent's folder is looked into only once the SDK has been imported.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn, cast

from protocol import LocalProtocolError

from . import javascript, shadowing, start, stdio
from .agent import Agent

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from .loops import Backend

USAGE = (
    "[--backend asyncio|trio] PATH/TO/FILE.py:AGENT | MODULE:AGENT | PATH/TO/FILE.ts | "
    "replay FILE... -- COMMAND"
)

OTHER_LANGUAGES: dict[str, Callable[[list[str]], NoReturn]] = dict.fromkeys(
    javascript.ENDINGS, javascript.serve
)
"""By the ending of the file that a command line names, with its dot: the function that replaces
this process by one that serves it. It gets all the arguments."""


def script() -> None:
    """The console script `agent-worker`."""
    if sys.argv[1:2] == ["replay"]:
        from .replay.command import main as replay  # noqa: PLC0415  (not needed to serve)

        replay(sys.argv[2:])
    main(sys.argv[1:])


def main(arguments: list[str], *, program: str = "agent-worker") -> None:
    """Serve the agent that the command line names. Exits with 2 for a wrong command line."""
    for argument in arguments:
        serve_other = OTHER_LANGUAGES.get(os.path.splitext(_file_of(argument))[1])
        if serve_other is not None:
            serve_other(arguments)
    usage = f"usage: {program} {USAGE}"
    target, backend = _parse(arguments, usage=usage)
    try:
        wire = stdio.take_stdio()
    except OSError as error:
        _fail(f"stdin or stdout is closed: {error}")
    agent = _load(target, usage=usage)
    try:
        start.serve(agent, wire, backend=cast("Backend", backend))
    except (ValueError, LocalProtocolError) as error:
        _fail(str(error))


def _file_of(argument: str) -> str:
    """The file of `FILE` or `FILE:NAME`."""
    return argument.rpartition(":")[0] or argument


def _parse(arguments: list[str], *, usage: str) -> tuple[str, str]:
    # Importing argparse would take a tenth of the whole start.
    backend = "asyncio"
    targets = []
    rest = iter(arguments)
    for argument in rest:
        if argument in {"-h", "--help"}:
            print(f"{usage}\n\n{__doc__}")  # noqa: T201  (--help asks for it)
            raise SystemExit(0)
        name, equals, value = argument.partition("=")
        if name == "--backend":
            backend = value if equals else next(rest, "")
        elif argument.startswith("-"):
            _fail(f"no option {argument}; {usage}", status=2)
        else:
            targets.append(argument)
    if len(targets) != 1:
        _fail(f"expected one agent to serve, got {len(targets)}; {usage}", status=2)
    if backend not in start.BACKENDS:
        _fail(f"--backend is {backend!r}, expected one of {', '.join(start.BACKENDS)}", status=2)
    return targets[0], backend


def _load(target: str, *, usage: str) -> Agent:
    place, colon, name = target.rpartition(":")
    if not (colon and place and name):
        _fail(f"{target!r} does not name an agent; {usage}", status=2)
    module = _import_file(place) if place.endswith(".py") else _import_module(place)
    agents = sorted(key for key, value in vars(module).items() if isinstance(value, Agent))
    found = f"it has {', '.join(agents)}" if agents else "it has no agents at all"
    for line in shadowing.unnoticed(module, _folders(place)):
        _say(line)
    if not hasattr(module, name):
        _fail(f"{place} has no {name!r}; {found}{_meant(place)}")
    agent = getattr(module, name)
    if not isinstance(agent, Agent):
        kind = type(agent).__name__
        _fail(f"{target} is of type {kind}, expected a worker.Agent; {found}{_meant(place)}")
    return agent


def _folders(place: str) -> list[str]:
    """The folders of the project in which its modules are looked for."""
    own = os.path.dirname(os.path.abspath(place)) if place.endswith(".py") else os.getcwd()
    return list(dict.fromkeys((own, os.getcwd())))


def _meant(place: str) -> str:
    """A hint for who named one of the SDK's packages and meant a file of the same name."""
    path = None
    if place in shadowing.PACKAGES:
        path = shadowing.namesake(place, [os.getcwd()])
    return "" if path is None else f". {place} is the SDK's package: name {path} instead"


def _import_module(name: str) -> ModuleType:
    from importlib import import_module  # noqa: PLC0415  (only one of the two ways is taken)

    if not {"", os.getcwd()}.intersection(sys.path):
        # As `python -m` does, but only now: nothing in this folder can stand in the SDK's way.
        sys.path.insert(0, os.getcwd())
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            _fail(f"no module {error.name!r} in {os.getcwd()} or on sys.path")
        _fail_importing(name, error)
    except BaseException as error:  # noqa: BLE001  (a boundary: reports whatever the module raised)
        _fail_importing(name, error)


def _import_file(path: str) -> ModuleType:
    from importlib.util import module_from_spec, spec_from_file_location  # noqa: PLC0415

    if not os.path.isfile(path):
        _fail(f"no file {path!r} in {os.getcwd()}")
    folder, filename = os.path.split(os.path.abspath(path))
    name = filename.removesuffix(".py")
    if name in sys.modules:
        # The file of an agent may be called worker.py, too.
        name = f"_{name}"
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    # As for a script: its neighbours can be imported, and pickle and the like find the module by
    # its name.
    sys.path.insert(0, folder)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:  # noqa: BLE001  (a boundary: reports whatever the module raised)
        _fail_importing(path, error)
    return module


def _fail_importing(place: str, error: BaseException) -> NoReturn:
    traceback.print_exception(error)
    hint = shadowing.explain(error, _folders(place))
    if hint is None and isinstance(error, ModuleNotFoundError):
        hint = _other_environment(_folders(place))
    _fail(
        f"importing {place} failed: {type(error).__name__}: {error}"
        + ("" if hint is None else f" ({hint})")
    )


def _other_environment(folders: list[str]) -> str | None:
    """The project's own virtual environment, if this is not it: what is missing may be in there."""
    for folder in folders:
        for name in (".venv", "venv"):
            environment = os.path.join(folder, name)
            if os.path.exists(f"{environment}/pyvenv.cfg") and not os.path.samefile(
                environment, sys.prefix
            ):
                start = f"start {environment}/bin/agent-worker"
                if not os.path.exists(f"{environment}/bin/agent-worker"):
                    start = f"install the SDK there and {start}"
                return f"{sys.prefix} is not the project's own environment: {start}"
    return None


def _fail(message: str, *, status: int = 1) -> NoReturn:
    _say(message)
    raise SystemExit(status)


def _say(message: str) -> None:
    sys.stderr.write(f"worker: {message}\n")
