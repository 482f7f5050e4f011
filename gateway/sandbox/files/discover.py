"""What an agent's command needs to see of the file system: its program, interpreter and folder.

This module owns the guess from the words of a command. It reads the file system and changes
nothing. It knows neither what must not be shown (`mounts` does), nor how a path is mounted.

The words of the command are the operator's, and what they name may be shown. Everything else that
is read here was written by the agent's author: links in the project, the first line of a script,
the configuration of a virtual environment. Those are followed to the project's own files, to the
system's, and to an installation of an interpreter, and to nothing else (`places` has the rules).
"""

from __future__ import annotations

import glob
import os
import sys
from dataclasses import dataclass, field
from itertools import filterfalse, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import protocol
from gateway.sandbox.files import node
from gateway.sandbox.files.authored import read_text
from gateway.sandbox.files.commands import shell_script, simple_commands, wrapped
from gateway.sandbox.files.editable import editable_sources, is_project, remark_on_bytecode
from gateway.sandbox.files.places import contains, follow, is_shared, is_system, is_wide
from gateway.sandbox.files.programs import (
    find_program,
    interpreter_of,
    refuse_runner,
    why_not_found,
)
from gateway.sandbox.refusals import SandboxError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_SHEBANG_DEPTH = 4
"""A script's interpreter may be a script. The kernel gives up after this many."""
_COMMAND_DEPTH = 8
"""A command may start another one, which may start another one."""
_MAX_SCRIPT = 64 * 1024
"""Bytes of a script that are looked through for the names of programs and files."""
_MAX_CONFIG = 64 * 1024
"""Bytes of a virtual environment's configuration, which has a few lines."""
_SHELLS = frozenset(("ash", "bash", "dash", "ksh", "sh", "zsh"))
_SYMLINK_HOPS = 40
"""The number of symbolic links that the kernel follows for one path."""

_OWN_PACKAGES = ("worker", "protocol")
"""The packages of this project that agents import. The gateway only asks where they are."""


@dataclass(slots=True)
class Needs:
    """What a command needs, as far as its words tell."""

    project: str
    """The folder that the command starts in."""
    program: str = ""
    """The absolute path of the program."""
    paths: list[str] = field(default_factory=list)
    """Files and folders to show read-only, in the order in which they were found."""
    projects: list[str] = field(default_factory=list)
    """Those of `paths` that hold the agent's own files, rather than an interpreter."""
    files: list[str] = field(default_factory=list)
    """The files that the command itself names, its program among them."""
    bin_dirs: list[str] = field(default_factory=list)
    """Folders of the programs found, for PATH."""
    not_shown: list[str] = field(default_factory=list)
    """Paths that the command names or leads to, and that only `mounts_ro` can show: a link leads
    out of the project, or unrelated things are kept there."""

    def add(self, path: str, *, runtime: bool = False) -> bool:
        """Show a path under its own name and under that of what it leads to, as programs ask for
        either. Returns whether it is shown. `runtime` allows any link to an installation of an
        interpreter.
        """
        real = follow(path, project=self.project)
        if real is None and runtime and _is_runtime(path):
            real = os.path.realpath(path)
        if real is None or is_wide(path) or is_wide(real):
            self.not_shown.append(path)
            return False
        for each in (path, real):
            if each not in self.paths and not is_system(each):
                self.paths.append(each)
        return True

    def add_project(self, path: str) -> None:
        """Show a path that the agent's author writes in."""
        before = len(self.paths)
        self.add(path)
        self.projects += self.paths[before:]

    def shows(self, path: str) -> bool:
        """Whether the path is shown already, or by every sandbox."""
        return is_system(path) or any(contains(shown, path) for shown in self.paths)


def discover(words: Sequence[str], *, cwd: str, search_path: str) -> Needs:
    """The needs of the command `words`, started in `cwd` with `search_path` as its PATH.

    Raises SandboxError, which says what to write instead, when there is no such program, when it
    only stands in for another, or when it cannot do in a sandbox what it does first.
    """
    program = _find(words, cwd=cwd, search_path=search_path)
    needs = Needs(project=cwd, program=program, files=[program])
    _add_command(needs, words, cwd=cwd, search_path=search_path, depth=_COMMAND_DEPTH)
    # As PATH has them: what a script finds must be what it finds without a sandbox.
    order = {each: index for index, each in enumerate(search_path.split(os.pathsep))}
    needs.bin_dirs.sort(key=lambda each: order.get(each, -1))
    # The SDK and the wire, if they are installed as a link to a checkout.
    beside = Path(protocol.__file__).parents[1]
    for package in _OWN_PACKAGES:
        if (beside / package).is_dir():
            needs.add(str(beside / package))
    return needs


def _find(words: Sequence[str], *, cwd: str, search_path: str) -> str:
    """The program of a command. Raises SandboxError."""
    if (refusal := refuse_runner(words, cwd=cwd)) is not None:
        raise SandboxError(refusal)
    program = find_program(words[0], cwd=cwd, search_path=search_path)
    if program is None:
        raise SandboxError(why_not_found(words[0], cwd=cwd, search_path=search_path))
    if (refusal := node.refuse(program, words)) is not None:
        raise SandboxError(refusal)
    if os.path.basename(os.path.dirname(program)) == "shims":
        raise SandboxError(
            f"{program} is a version manager's stand-in, which needs that manager's own files: "
            f"name the program that it starts (pyenv which {os.path.basename(program)}, or alike)"
        )
    return program


def _add_command(
    needs: Needs, words: Sequence[str], *, cwd: str, search_path: str, depth: int
) -> None:
    """The operator's words: a program, what they name, and the commands that it starts by them."""
    program = _find(words, cwd=cwd, search_path=search_path)
    in_path = os.sep not in words[0]
    _add_program(needs, program, search_path=search_path, in_path=in_path, depth=_SHEBANG_DEPTH)
    inner = wrapped(words) if depth else None
    if inner is not None:
        _add_command(needs, inner, cwd=cwd, search_path=search_path, depth=depth - 1)
        return
    script = shell_script(words) if depth else None
    if script is not None:
        for folder, simple in simple_commands(script, folder=cwd):
            if find_program(simple[0], cwd=folder, search_path=search_path) or refuse_runner(
                simple, cwd=folder
            ):
                _add_command(needs, simple, cwd=folder, search_path=search_path, depth=depth - 1)
        return
    for word in words[1:]:
        _add_argument(needs, word, cwd=cwd)
    if "-m" in words[1:-1]:
        _add_module(needs, words[list(words).index("-m", 1) + 1], cwd=cwd)
    _add_javascript(needs, words, program, cwd=cwd, search_path=search_path)
    for path in list(needs.files):
        if path not in needs.not_shown:
            _add_script(needs, path, cwd=cwd, search_path=search_path)


def _is_projects(needs: Needs, program: str) -> bool:
    """Whether a program is a script among an agent's own files, rather than a tool by itself."""
    if interpreter_of(program) is None:
        return False
    return _is_in_project(needs, program) or "." in os.path.basename(program)


def _add_script(needs: Needs, path: str, *, cwd: str, search_path: str) -> None:
    """The programs that a script of the shell starts, and those files of the project's that it
    names. It is the author's: what it names by a path is shown as what its links lead to would be.
    """
    if os.path.basename(interpreter_of(path) or "") not in _SHELLS and not path.endswith(".sh"):
        return
    text = read_text(path, _MAX_SCRIPT)
    if text is None:
        return
    own_folder = os.path.dirname(path)
    for folder, words in simple_commands(text, folder=cwd, own_folder=own_folder):
        word = words[0]
        if word in {".", "source"} and words[1:] and words[1].endswith("/bin/activate"):
            environment = os.path.dirname(os.path.join(folder, words[1]))
            search_path = f"{environment}{os.pathsep}{search_path}"
            word = f"{environment}/python"
        inner = wrapped(words)
        for each in (word, *(inner or [])[:1]):
            _add_named_by_script(needs, each, cwd=folder, search_path=search_path)
        for argument in words[1:]:
            place = os.path.abspath(os.path.join(folder, argument))
            if _is_in_project(needs, os.path.realpath(place)):
                _add_argument(needs, argument, cwd=folder)


def _add_named_by_script(needs: Needs, word: str, *, cwd: str, search_path: str) -> None:
    """A program by the word of an author: what is found in PATH was chosen by the operator."""
    found = find_program(word, cwd=cwd, search_path=search_path)
    if found is None or found in needs.files:
        return
    prefix = _prefix(found)
    in_path = os.sep not in word
    if in_path or _is_in_project(needs, found) or (prefix and _is_runtime(prefix)):
        if in_path and _is_in_project(needs, found):
            in_path = False  # of an environment that the script itself has put into PATH
        _add_program(needs, found, search_path=search_path, in_path=in_path, depth=_SHEBANG_DEPTH)
    elif not needs.shows(found):
        needs.not_shown.append(found)


def own_interpreter() -> list[str]:
    """The needs of the interpreter that runs this, for the sandbox's own programs."""
    return discover([sys.executable], cwd=os.sep, search_path=os.defpath).paths


def _add_program(
    needs: Needs, program: str, *, search_path: str, in_path: bool, depth: int
) -> None:
    """A program that the operator named, what it is a link to, and what interprets it.

    `in_path` tells whether it was found in the operator's PATH.
    """
    needs.bin_dirs.append(os.path.dirname(program))
    chain = list(_symlink_chain(program))
    # Each name in the chain shows the same file, so that the last one is judged.
    own_prefix, real_prefix = _prefix(program), _prefix(chain[-1])
    named = follow(os.path.dirname(program), project=needs.project) is not None
    by_operator = named and (
        (in_path and not _is_in_project(needs, program))
        or node.leads_to_a_module(program)
        or all(_is_operators(link, target) for link, target in pairwise(chain))
    )
    if not (
        by_operator
        or is_system(chain[-1])
        or _is_in_project(needs, chain[-1])
        or (named and own_prefix and contains(os.path.realpath(own_prefix), chain[-1]))
        or (real_prefix and _is_runtime(real_prefix))
    ):
        needs.not_shown.append(program)
        return
    if not in_path and own_prefix is None and _is_projects(needs, program):
        _add_file(needs, program)
    for hop in chain:
        prefix = _prefix(hop)
        if prefix is not None and (hop == program or by_operator or _is_runtime(prefix)):
            if needs.add(prefix, runtime=True):
                _add_environment(needs, prefix)
        elif is_wide(hop) or follow(os.path.dirname(hop), project=needs.project) is None:
            needs.not_shown.append(hop)
        elif not needs.shows(hop):
            needs.paths.append(hop)
    _add_interpreter(needs, program, search_path=search_path, depth=depth)


def _add_environment(needs: Needs, prefix: str) -> None:
    """What an environment refers to: the installation that it was made from, and the sources of
    what was installed into it as a link to them.
    """
    if (base := _venv_base(prefix)) is not None:
        needs.add(base)
        remark_on_bytecode(prefix)
    for source in editable_sources(prefix):
        beside = os.path.dirname(prefix)
        owned = _is_in_project(needs, os.path.realpath(source)) or (
            is_project(beside) and not is_wide(beside) and contains(beside, source)
        )
        if owned:
            needs.add_project(source)
        elif not needs.shows(source):
            needs.not_shown.append(source)


def _is_operators(link: str, target: str) -> bool:
    """Whether a link was made by the operator, or leads nowhere else."""
    folder = os.path.realpath(os.path.dirname(link))
    return is_system(folder) or is_shared(folder) or contains(folder, os.path.realpath(target))


def _is_in_project(needs: Needs, path: str) -> bool:
    root = os.path.realpath(needs.project)
    return not is_wide(root) and contains(root, path)


def _add_interpreter(needs: Needs, program: str, *, search_path: str, depth: int) -> None:
    """What the first line of a script names: a path, or a name that `env` looks up."""
    word = interpreter_of(program)
    if word is None or not depth:
        return
    found = find_program(word, cwd="/", search_path=search_path)
    if found is None:
        return
    prefix = _prefix(found)
    # What is found in PATH was chosen by the operator, a path by the script's author.
    if os.sep in word and not needs.shows(found) and not (prefix and _is_runtime(prefix)):
        needs.not_shown.append(found)
        return
    in_path = os.sep not in word
    _add_program(needs, found, search_path=search_path, in_path=in_path, depth=depth - 1)


def _prefix(program: str) -> str | None:
    """The installation that `PREFIX/bin/program` belongs to, or None for a program on its own."""
    folder = os.path.dirname(program)
    prefix = os.path.dirname(folder)
    if os.path.basename(folder) != "bin" or is_wide(prefix):
        return None
    whole = os.path.exists(f"{prefix}/pyvenv.cfg") or os.path.isdir(f"{prefix}/lib")
    return prefix if whole else None


def _is_runtime(prefix: str) -> bool:
    """Whether a folder is an installation of Python or Node, or a virtual environment of Python."""
    if is_wide(prefix) or is_wide(os.path.realpath(prefix)):
        return False
    library = f"{glob.escape(prefix)}/lib/python3*"
    if glob.glob(f"{library}/os.py"):
        return True
    if os.path.exists(f"{prefix}/pyvenv.cfg"):
        return bool(glob.glob(f"{library}/site-packages"))
    return os.path.exists(f"{prefix}/bin/node") and os.path.isdir(f"{prefix}/lib/node_modules")


def _venv_base(prefix: str) -> str | None:
    """The installation that a virtual environment was made from (`sys.base_prefix`), if it is one.

    The file that names it is the project's.
    """
    for line in (read_text(f"{prefix}/pyvenv.cfg", _MAX_CONFIG) or "").splitlines():
        key, _, value = line.partition("=")
        home = os.path.normpath(value.strip())
        if key.strip() == "home" and os.path.isabs(home) and os.path.basename(home) == "bin":
            base = os.path.dirname(home)
            return base if is_system(base) or _is_runtime(base) else None
    return None


def _symlink_chain(path: str) -> Iterator[str]:
    """The path and everything that it leads to, link by link."""
    for _ in range(_SYMLINK_HOPS):
        yield path
        try:
            target = os.readlink(path)
        except OSError:
            break
        path = os.path.normpath(os.path.join(os.path.dirname(path), target))
    yield os.path.realpath(path)


def _add_argument(needs: Needs, word: str, *, cwd: str) -> None:
    """A word that is a path: the folder of a file, or the folder itself.

    `path/to/file.py:attribute` and `--option=path` are paths too, `module:attribute` is a module.
    """
    candidates = (
        [word.partition("=")[2]] if word.startswith("-") else [word, word.rpartition(":")[0]]
    )
    for candidate in filter(None, candidates):
        path = os.path.abspath(os.path.join(cwd, candidate))
        # A bare word is not a folder, even where a folder of that name happens to be.
        if os.path.isdir(path) and (os.sep in candidate or "." in candidate):
            needs.add_project(path)
            return
        if os.path.isfile(path):
            _add_file(needs, path)
            return
    if ":" in word:
        _add_module(needs, word.partition(":")[0], cwd=cwd)


def _add_file(needs: Needs, path: str) -> None:
    """The folder of a file, for what the file loads from there; in a wide folder the file alone."""
    if path not in needs.files:
        needs.files.append(path)
    if is_system(path):
        return
    folder = os.path.dirname(path)
    real_folder = follow(folder, project=needs.project)
    if is_wide(folder) or real_folder is None or is_wide(real_folder):
        needs.add_project(path)
        return
    needs.add_project(folder)
    if os.path.dirname(os.path.realpath(path)) != real_folder:
        real = follow(path, project=needs.project)
        if real is None:
            needs.not_shown.append(path)
        else:
            needs.add_project(real)


def _add_module(needs: Needs, module: str, *, cwd: str) -> None:
    """A module in the folder that Python starts in: that folder, where its siblings are."""
    top = module.partition(".")[0]
    if not top.isidentifier() or top in _OWN_PACKAGES:
        return
    for candidate in (os.path.join(cwd, top), os.path.join(cwd, f"{top}.py")):
        if os.path.exists(candidate):
            needs.add_project(candidate if is_wide(cwd) else cwd)


def _add_javascript(
    needs: Needs, words: Sequence[str], program: str, *, cwd: str, search_path: str
) -> None:
    """What the JavaScript that the words name imports, and a runtime, where another program starts
    it (`agent-worker bot.ts`)."""
    named = node.entries(words, program=program, cwd=cwd)
    paths = [
        path
        for path in named
        if follow(path, project=needs.project) is not None or node.leads_to_a_module(path)
    ]
    shown, elsewhere = node.find_modules(paths)
    for folder in shown:
        needs.add_project(folder)
    needs.not_shown = [*filterfalse(node.leads_to_a_module, needs.not_shown), *elsewhere]
    if named and not node.is_runtime(program):
        wanted = [word for word in words if word in node.RUNTIMES] or node.RUNTIMES
        found = (find_program(word, cwd=cwd, search_path=search_path) for word in wanted)
        if (runtime := next(filter(None, found), None)) is not None:
            _add_program(needs, runtime, search_path=search_path, in_path=True, depth=0)
