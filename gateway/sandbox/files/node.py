"""What a program in JavaScript or TypeScript loads from outside of its own folder, and what its
runtime has to be told.

This module owns where Node, Bun and Deno look for what a program imports, which of these places may
be shown without being named, and the runtimes' own environment. It reads the file system and
changes nothing.

# Theory of operation

A program in `P/src/index.js` belongs to the package `P`: the nearest folder above it that has a
`package.json`. It imports its own files from anywhere in `P`, and packages from `node_modules` in
`P` and in every folder above. In there, package managers put links:

- into the same `node_modules` (npm's `.bin`, pnpm's `.pnpm`);
- to another package of the same *workspace*: a folder above both, whose `package.json` or
  `pnpm-workspace.yaml` declares it;
- to pnpm's global virtual store, if that is switched on.

These are followed. An agent's author writes `P` and could link anything into `node_modules`, but
the declaration of a workspace stands above both packages, each of which shows itself alone, and the
store is known by its form. Any other link (`npm link`, `file:../elsewhere`) is reported, and only
the operator can show what it leads to. Places in which unrelated things or keys are kept are never
shown (`places`).
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.sandbox.files.authored import read_manifest
from gateway.sandbox.files.places import contains, is_system, is_wide

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

RUNTIMES = ("node", "bun", "deno")
"""The programs that run JavaScript, in the order in which `agent-worker` looks for them."""

PROXIED = str(Path(__file__).with_name("proxied.cjs"))
"""What Node loads first where the agent's network is a list of hosts."""

_HEAP_SHARE = 0.75
"""Of the memory limit, for the heap: the rest is for its code, stacks and buffers."""

_ENDINGS = (".js", ".mjs", ".cjs", ".jsx", ".ts", ".mts", ".cts", ".tsx")
_INDEX = ("", *_ENDINGS)
"""What a runtime adds to the name of the file that it is to run, if there is no such file."""
_MODULES = "node_modules"
_MANIFESTS = ("package.json", "deno.json", "deno.jsonc")
_PRELOADS = frozenset(
    ("--import", "--require", "-r", "--loader", "--experimental-loader", "--preload")
)
"""Options of the runtimes whose value is a file or a package that is loaded first."""

_STORE = re.compile(r"(.+/(?:pnpm/store|\.pnpm-store)/v\d+/links/[^/]+/[^/]+/[^/]+/[^/]+)/.+")
"""A package in pnpm's global virtual store, `links/@SCOPE/NAME/VERSION/HASH/node_modules/…`, with
`@` alone for no scope."""

_MAX_ENTRIES = 20_000
"""Entries of all `node_modules` of one program that are searched for links."""
_MAX_PACKAGES = 500
"""Packages that these links lead to: each takes a mount at every start of a worker."""


def environment(*, memory_bytes: int | None, proxied: bool, own_options: str) -> dict[str, str]:
    """The variables that tell a runtime of the agent's limits.

    `own_options` are the agent's NODE_OPTIONS: they come last, and so win.
    """
    env = {}
    options = []
    if memory_bytes:
        # V8 takes a share of the machine's memory for its heap, and does not see the limit.
        heap = f"--max-old-space-size={int(memory_bytes * _HEAP_SHARE) >> 20}"
        options.append(heap)
        env["DENO_V8_FLAGS"] = heap
    if proxied:
        quoted = PROXIED.replace("\\", "\\\\").replace('"', '\\"')
        options.append(f'--require "{quoted}"')
        env["NODE_USE_ENV_PROXY"] = "1"
    if options:
        env["NODE_OPTIONS"] = " ".join(filter(None, [*options, own_options]))
    return env


def is_module(path: str) -> bool:
    """Whether a file is run by a JavaScript runtime, by its name or its place."""
    return path.endswith(_ENDINGS) or _MODULES in path.split(os.sep)


def is_runtime(program: str) -> bool:
    """Whether a program, by its name, is a JavaScript runtime."""
    return os.path.basename(program) in {*RUNTIMES, "nodejs"}  # Debian's older name for node


def refuse(program: str, words: Sequence[str]) -> str | None:
    """What to write instead of a program that cannot do in a sandbox what it does first, or None.

    tsx's command listens on a unix socket, for its `watch`, also where nothing is watched.
    """
    if not os.path.realpath(program).endswith("/tsx/dist/cli.mjs"):
        return None
    instead = shlex.join(without_tsx(words[1:]))
    return f"tsx listens on a unix socket, which a worker may not: write {instead}"


def without_tsx(arguments: Sequence[str]) -> list[str]:
    """The command that does what tsx does with these words, but for watching files."""
    watches = list(arguments[:1]) == ["watch"]
    return ["node", "--import", "tsx", *arguments[1 if watches else 0 :]]


def entries(words: Sequence[str], *, program: str, cwd: str) -> list[str]:
    """The files and folders of JavaScript that a command loads, as its words name them.

    `program` is the absolute path of its first word.
    """
    found = [program] if is_module(program) and not is_runtime(program) else []
    named_by_runtime = _INDEX if is_runtime(program) else ("",)
    for word in words[1:]:
        if word.startswith("-"):
            continue
        for candidate in filter(None, (word, word.rpartition(":")[0])):
            place = os.path.abspath(os.path.join(cwd, candidate))
            named = [place + ending for ending in named_by_runtime]
            found += [path for path in named if os.path.isfile(path) and is_module(path)]
            if is_runtime(program) and os.path.isdir(place):
                found.append(os.path.join(place, "index.js"))
    return [*found, *_preloads(words, cwd=cwd)]


def _preloads(words: Sequence[str], *, cwd: str) -> Iterator[str]:
    """What the options of a runtime have loaded first.

    `--import ./x.mjs` names a file; `--import tsx` a package, which is looked for from `cwd`.
    """
    for word, following in zip(words, [*words[1:], ""], strict=True):
        option, equals, value = word.partition("=")
        named = (value if equals else following).removeprefix("file://")
        if option not in _PRELOADS or not named:
            continue
        if named.startswith((".", os.sep)):
            yield os.path.abspath(os.path.join(cwd, named))
        elif os.path.isdir(os.path.join(cwd, _MODULES)):
            yield os.path.join(cwd, _MODULES, named)


def find_modules(paths: Iterable[str]) -> tuple[list[str], list[str]]:
    """Where the imports of these programs are found, and those of the packages that they lead to.

    Returns the folders to show, and the links to what only the operator can show. The links on the
    way to `paths` themselves must have been judged before.
    """
    shown: list[str] = []
    elsewhere: list[str] = []
    waiting = [os.path.dirname(each) for path in paths for each in (path, os.path.realpath(path))]
    seen: set[str] = set()
    left = _MAX_ENTRIES
    while waiting and len(seen) < _MAX_PACKAGES:
        folder = waiting.pop()
        if folder in seen or is_system(folder):
            continue
        seen.add(folder)
        workspace = _workspace(os.path.realpath(folder))
        for place in _places(folder):
            if place in shown:
                continue
            shown.append(place)
            modules = place if os.path.basename(place) == _MODULES else f"{place}/{_MODULES}"
            links, searched = _links_out_of(modules, most=left)
            left -= searched
            for link, target in links:
                if (package := _followed(target, workspace)) is not None:
                    waiting.append(package)
                elif not is_system(target):
                    elsewhere.append(link)
    roots = [os.path.realpath(each) for each in shown]
    return shown, [
        link
        for link in dict.fromkeys(elsewhere)
        if not any(contains(root, os.path.realpath(link)) for root in roots)
    ]


def leads_to_a_module(path: str) -> bool:
    """Whether a path leads by a link in `node_modules` to what such a link may show: a program in
    `node_modules/.bin`, or a file in a linked package."""
    before, found, _ = path.rpartition(f"/{_MODULES}/")
    if not found:
        return False
    modules = os.path.realpath(f"{before}/{_MODULES}")
    target = os.path.realpath(path)
    package = _package_around(target)
    return contains(modules, target) or (
        package is not None and _followed(package, _workspace(modules)) is not None
    )


def _places(folder: str) -> Iterator[str]:
    """The package that a folder belongs to, and every `node_modules` above it.

    What lies in a `node_modules` belongs to the package beside that: its own is a library.
    """
    searching = True
    for above in _ancestors(folder):
        if _MODULES in above.split(os.sep):
            if os.path.basename(above) == _MODULES:
                yield above
            continue
        if searching and any(os.path.isfile(f"{above}/{name}") for name in _MANIFESTS):
            searching = False
            yield above
        elif os.path.isdir(f"{above}/{_MODULES}"):
            yield f"{above}/{_MODULES}"
        if _MODULES in folder.split(os.sep):
            searching = False


def _ancestors(folder: str) -> Iterator[str]:
    """The folder and those above it, up to one of unrelated things or of keys."""
    while not is_wide(folder) and not is_wide(os.path.realpath(folder)):
        yield folder
        folder = os.path.dirname(folder)


def _links_out_of(modules: str, *, most: int) -> tuple[list[tuple[str, str]], int]:
    """The links in a `node_modules` that lead out of it, with what they lead to, and how many
    entries were searched for them.

    A `node_modules` that is itself a link is not searched: it is judged as any other link is.
    """
    links = []
    searched = 0
    root = os.path.realpath(modules)
    folders = [] if os.path.islink(modules) else [modules]
    while folders and searched < most:
        folder = folders.pop()
        try:
            with os.scandir(folder) as listed:
                found = list(listed)
        except OSError:
            continue
        searched += len(found)
        for entry in found:
            if entry.is_symlink():
                target = os.path.realpath(entry.path)
                if not contains(root, target) and os.path.isdir(target):
                    links.append((entry.path, target))
            elif entry.name.startswith("@") or entry.name in {".pnpm", _MODULES}:
                folders.append(entry.path)
            elif os.path.basename(folder) == ".pnpm":
                folders.append(f"{entry.path}/{_MODULES}")
    return links, searched


def _followed(target: str, workspace: str | None) -> str | None:
    """The folder to show for a link that leads to `target`, or None if it may not show anything."""
    stored = _STORE.fullmatch(target)
    if stored is not None:
        # Its dependencies lie beside it, as links.
        package = f"{stored[1]}/{_MODULES}"
    elif workspace is not None and contains(workspace, target) and target != workspace:
        package = target
        if not os.path.isfile(f"{target}/package.json"):
            return None
    else:
        return None
    return None if is_wide(package) else package


def _package_around(target: str) -> str | None:
    """The package, or the folder in pnpm's store, that a file belongs to."""
    if _STORE.fullmatch(target):
        return target
    folders = _ancestors(os.path.dirname(target))
    return next((each for each in folders if os.path.isfile(f"{each}/package.json")), None)


def _workspace(folder: str) -> str | None:
    """The root of the workspace that a folder belongs to, or None."""
    for above in _ancestors(folder):
        if os.path.isfile(f"{above}/pnpm-workspace.yaml"):
            return above
        if _declares_workspaces(f"{above}/package.json"):
            return above
    return None


def _declares_workspaces(path: str) -> bool:
    return bool(read_manifest(path).get("workspaces"))
