"""The shape of the project, read from its source: who knows whom, and how large a module may be.

Every import counts, also one inside a function and one for type checking only: a module that names
another knows it.
"""

from __future__ import annotations

import ast
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT = Path(__file__).resolve().parent.parent

TOP_LEVEL = {
    "CHANGELOG.md",
    "README.md",
    "gateway",
    "protocol",
    "pyproject.toml",
    "tests",
    "worker",
}
MADE_BY_TOOLS = {"__pycache__", "build", "dist", "node_modules"}
"""As .gitignore has them."""

MAX_MODULE_LINES = 450
"""What can be read at one sitting. The aim is 400."""

PURE_STANDARD_LIBRARY = {
    "__future__",
    "codecs",
    "collections.abc",
    "enum",
    "hashlib",
    "io",  # for `BytesIO`: a buffer in memory
    "itertools",
    "re",
    "secrets",  # for ids that nobody can guess
    "typing",
}
"""What the protocol may import besides msgspec: a list of what does no I/O, knows no time and
starts nothing is shorter than one of what does."""

GROUND = {
    *(
        "call",
        "clock",
        "config",
        "errors",
        "exchange",
        "needs",
        "observe",
        "readiness",
        "stopping",
        "tracebacks",
        "turns",
        "words",
    )
}
"""What every room of the gateway may know. Of rooms, it knows none."""

ROOMS = ("sandbox", "workers", "agents", "fleet", "front")
"""From the bottom up: a room may know the ground and the rooms before it, and no other."""

ENTRANCE = {"__main__", "cli", "commands", "composition"}
"""Where the rooms are put together."""

PURE = (
    "gateway.agents.conversations",
    "gateway.agents.crew",
    "gateway.agents.pool",
    "gateway.agents.pool_types",
    "gateway.agents.restart",
    "gateway.agents.scaling",
    "gateway.agents.waiting",
    "gateway.config",
    "gateway.errors",
    "gateway.fleet.bus",
    "gateway.fleet.lookup",
    "gateway.fleet.front.described",
    "gateway.fleet.front.errors",
    "gateway.fleet.front.hosts",
    "gateway.fleet.host.lines",
    "gateway.fleet.messages",
    "gateway.fleet.pipe",
    "gateway.fleet.ownership",
    "gateway.fleet.subjects",
    "gateway.front.addresses",
    "gateway.front.anthropic",
    "gateway.front.bodies",
    "gateway.front.chats",
    "gateway.front.console.rings",
    "gateway.front.cors",
    "gateway.front.dialect",
    "gateway.front.event_stream",
    "gateway.front.head",
    "gateway.front.hosts",
    "gateway.front.native",
    "gateway.front.openai",
    "gateway.front.run_codec",
    "gateway.front.runs.ids",
    "gateway.front.runs.registry",
    "gateway.front.runs.ring",
    "gateway.front.runs.views",
    "gateway.front.runs.wishes",
    "gateway.front.target",
    "gateway.needs",
    "gateway.sandbox.bwrap",
    "gateway.sandbox.network.budget",
    "gateway.sandbox.network.error_forms",
    "gateway.sandbox.network.mask",
    "gateway.sandbox.network.rules",
    "gateway.sandbox.network.usage",
    "gateway.words",
)
"""Decisions over plain state: tested without processes, tasks or time."""

HTTP_PLACES = {"front", "composition"}
"""Who may know the HTTP server."""

READERS_OF_HTTP = tuple(
    f"gateway.sandbox.network.{name}" for name in ("door", "downstream", "forwarding", "upstream")
)
"""Parts of another process, which speaks HTTP with agents and services: h11 is their parser."""

HTTP_STACK = {"hypercorn", "quart", "quart_trio", "werkzeug", "wsproto", "h2", "h11"}


def modules(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found
    return found


def name_of(path: Path) -> str:
    """`gateway.sandbox.make` for its file; a package's name for its `__init__`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or path.is_dir()


def imports(path: Path) -> Iterator[str]:
    """The full name of each module that is imported, of ours and of others."""
    package = name_of(path) if path.stem == "__init__" else name_of(path).rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            # `from gateway import logs` imports a module, `from gateway.errors import …` names.
            submodules = [f"{base}.{alias.name}" for alias in node.names]
            ours = [name for name in submodules if is_module(name)]
            yield from ours
            if len(ours) < len(submodules):
                yield base


def top(name: str) -> str:
    return name.partition(".")[0]


def place(name: str) -> str:
    """The first part of the gateway's tree that a module stands in; nothing for another package."""
    package, _, rest = name.partition(".")
    return top(rest) if package == "gateway" else ""


def is_in(name: str, places: Iterable[str]) -> bool:
    return any(name == each or name.startswith(f"{each}.") for each in places)


def by_name(path: Path) -> str:
    return str(path.relative_to(ROOT))


CONFORMANCE = "protocol.conformance"
"""A program that ships with the specification, for those who write workers: it starts a worker and
talks to it. Nothing else may know it, so that the wire itself stays without I/O."""


@pytest.mark.parametrize(
    "path",
    [path for path in modules("protocol") if not is_in(name_of(path), [CONFORMANCE])],
    ids=by_name,
)
def test_the_protocol_knows_msgspec_and_nothing_that_does_io(path: Path) -> None:
    others = {name for name in imports(path) if top(name) != "protocol"}
    assert others <= PURE_STANDARD_LIBRARY | {"msgspec"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "io":
            assert [alias.name for alias in node.names] == ["BytesIO"]


@pytest.mark.parametrize("path", modules("protocol/conformance"), ids=by_name)
def test_the_conformance_suite_needs_nothing_but_the_protocol(path: Path) -> None:
    others = {top(name) for name in imports(path)} - {"protocol", "msgspec"}
    assert others <= sys.stdlib_module_names


@pytest.mark.parametrize(
    "path",
    [
        path
        for package in ("gateway", "protocol", "worker")
        for path in modules(package)
        if not is_in(name_of(path), [CONFORMANCE])
    ],
    ids=by_name,
)
def test_nothing_knows_the_conformance_suite(path: Path) -> None:
    assert not any(is_in(name, [CONFORMANCE]) for name in imports(path))


@pytest.mark.parametrize("path", modules("worker"), ids=by_name)
def test_a_worker_never_knows_the_gateway_nor_any_http_server(path: Path) -> None:
    assert {top(name) for name in imports(path)}.isdisjoint({"gateway", "tests"} | HTTP_STACK)


@pytest.mark.parametrize("path", modules("gateway"), ids=by_name)
def test_the_gateway_never_knows_the_worker_sdk(path: Path) -> None:
    assert {top(name) for name in imports(path)}.isdisjoint({"worker", "tests"})


@pytest.mark.parametrize("path", modules("gateway"), ids=by_name)
def test_a_room_knows_the_ground_and_the_rooms_below_it(path: Path) -> None:
    own = place(name_of(path))
    known = {place(name) for name in imports(path)} - {"", own}
    if not own:  # the package itself
        assert not known
    elif own in GROUND:
        assert known <= GROUND
    elif own in ROOMS:
        assert known <= GROUND | set(ROOMS[: ROOMS.index(own)])
    else:
        assert own in ENTRANCE, f"gateway/ has no place for {own}: see GROUND, ROOMS and ENTRANCE"


def test_every_room_exists() -> None:
    assert {place(name_of(path)) for path in modules("gateway")} - {""} == (
        GROUND | set(ROOMS) | ENTRANCE
    )


@pytest.mark.parametrize("package", ["protocol", "worker", "gateway"])
def test_no_module_knows_itself_through_others(package: str) -> None:
    graph = {
        # A package's `__init__` is its front: what it gathers may know one another, not it.
        name_of(path): {name for name in imports(path) if top(name) == package}
        for path in modules(package)
    }
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"imports go round in a circle: {' → '.join(reversed(error.args[1]))}")


@pytest.mark.parametrize("path", modules("gateway"), ids=by_name)
def test_decisions_know_no_tasks_and_only_the_front_knows_http(path: Path) -> None:
    known = {top(name) for name in imports(path)}
    if is_in(name_of(path), PURE):
        assert known.isdisjoint({"trio", "anyio", "asyncio", "subprocess", "socket", "threading"})
    if place(name_of(path)) not in HTTP_PLACES:
        forbidden = HTTP_STACK - ({"h11"} if name_of(path) in READERS_OF_HTTP else set())
        assert known.isdisjoint(forbidden)


@pytest.mark.parametrize(
    "path", [path for p in ("gateway", "protocol", "worker") for path in modules(p)], ids=by_name
)
def test_a_module_can_be_read_at_one_sitting(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_MODULE_LINES


DIALECTS = sorted(
    path.parent
    for path in (ROOT / "gateway" / "front").glob("*/__init__.py")
    if path.parent.name not in {"chats", "console", "docs", "limits", "runs"}
)
"""Every package in the front is one, but for what is the same for all of them."""

KNOWN_TO_DIALECTS = PURE_STANDARD_LIBRARY | {
    "gateway.front.bodies",
    "gateway.front.chats",
    "gateway.front.described",
    "gateway.front.dialect",
    "gateway.front.event_stream",
    "gateway.front.run_codec",
    "base64",
    "copy",
    "hashlib",
    "hmac",
    "math",
    "msgspec",
    "unicodedata",
    "urllib.parse",
}
"""Besides the ground, the protocol and its own modules; `dialect` says why."""

ROUTES = "routes"
"""The module or package of a dialect that may know Quart, or an SDK, and the dispatcher."""


@pytest.mark.parametrize(
    "path",
    [
        path
        for dialect in DIALECTS
        for path in sorted(dialect.rglob("*.py"))
        if ROUTES not in {path.stem, path.parent.name}
    ],
    ids=by_name,
)
def test_a_dialect_knows_the_seam_the_ground_and_the_protocol(path: Path) -> None:
    own = next(name_of(dialect) for dialect in DIALECTS if path.is_relative_to(dialect))
    others = {name for name in imports(path) if not is_in(name, (own, "protocol"))}
    assert {
        name for name in others if place(name) not in GROUND and not is_in(name, KNOWN_TO_DIALECTS)
    } == set()


def test_nothing_else_lies_at_the_top() -> None:
    names = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    found = {name for name in names if not name.endswith(".egg-info")} - MADE_BY_TOOLS
    assert found == TOP_LEVEL
