"""`python -m worker module:agent` or `python -m worker path/to/file.py:agent`.

The command takes stdin and stdout away before it imports the agent's module. Every mistake in the
command line is one line on stderr; an exception raised by the module comes with its traceback.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn, cast

from protocol import LocalProtocolError

from . import start, stdio
from .agent import Agent

if TYPE_CHECKING:
    from types import ModuleType

    from .loops import Backend

USAGE = "usage: python -m worker [--backend asyncio|trio] MODULE:AGENT | PATH/TO/FILE.py:AGENT"


def main(arguments: list[str]) -> None:
    """Serve the agent that the command line names. Exits with 2 for a wrong command line."""
    target, backend = _parse(arguments)
    try:
        wire = stdio.take_stdio()
    except OSError as error:
        _fail(f"stdin or stdout is closed: {error}")
    agent = _load(target)
    try:
        start.serve(agent, wire, backend=cast("Backend", backend))
    except (ValueError, LocalProtocolError) as error:
        _fail(str(error))


def _parse(arguments: list[str]) -> tuple[str, str]:
    # Importing argparse would take a tenth of the whole start.
    backend = "asyncio"
    targets = []
    rest = iter(arguments)
    for argument in rest:
        if argument in {"-h", "--help"}:
            print(f"{USAGE}\n\n{__doc__}")  # noqa: T201  (--help asks for it)
            raise SystemExit(0)
        name, equals, value = argument.partition("=")
        if name == "--backend":
            backend = value if equals else next(rest, "")
        elif argument.startswith("-"):
            _fail(f"no option {argument}; {USAGE}", status=2)
        else:
            targets.append(argument)
    if len(targets) != 1:
        _fail(f"expected one agent to serve, got {len(targets)}; {USAGE}", status=2)
    if backend not in start.BACKENDS:
        _fail(f"--backend is {backend!r}, expected one of {', '.join(start.BACKENDS)}", status=2)
    return targets[0], backend


def _load(target: str) -> Agent:
    place, colon, name = target.rpartition(":")
    if not (colon and place and name):
        _fail(f"{target!r} does not name an agent; {USAGE}", status=2)
    module = _import_file(place) if place.endswith(".py") else _import_module(place)
    agents = sorted(key for key, value in vars(module).items() if isinstance(value, Agent))
    found = f"it has {', '.join(agents)}" if agents else "it has no agents at all"
    if not hasattr(module, name):
        _fail(f"{place} has no {name!r}; {found}")
    agent = getattr(module, name)
    if not isinstance(agent, Agent):
        _fail(f"{target} is of type {type(agent).__name__}, expected a worker.Agent; {found}")
    return agent


def _import_module(name: str) -> ModuleType:
    from importlib import import_module  # noqa: PLC0415  (only one of the two ways is taken)

    if sys.flags.safe_path:
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
    _fail(f"importing {place} failed: {type(error).__name__}: {error}")


def _fail(message: str, *, status: int = 1) -> NoReturn:
    sys.stderr.write(f"worker: {message}\n")
    raise SystemExit(status)


if __name__ == "__main__":
    main(sys.argv[1:])
