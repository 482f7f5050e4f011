"""Whatever an author leaves in the place of a file that the gateway reads, the gateway goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from gateway.config import SandboxSettings
from gateway.sandbox import SandboxError, make_launcher
from gateway.sandbox.files.authored import read_bytes, read_json, read_text
from gateway.sandbox.files.discover import discover
from gateway.sandbox.files.keyfiles import find_secrets
from tests.sandbox.users import need_sandbox


def gigabytes(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(8 << 30)


FOUND: dict[str, Callable[[Path], object]] = {
    # What is there in the place of a file.
    "a FIFO": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a folder": Path.mkdir,
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "not UTF-8": lambda path: path.write_bytes(b"#!\xff\xfe\nhome = /\xff/bin\n"),
    "gigabytes": gigabytes,
    "no URL": lambda path: path.write_text('{"url": "file://[x", "dir_info": {"editable": true}}'),
    "a NUL in a URL": lambda path: path.write_text(
        '{"url": "file:///%00\\u0000\\ud800", "dir_info": {"editable": true}}'
    ),
    "a NUL in a path": lambda path: path.write_bytes(b"#!/bin/\0sh\nhome = /\0/bin\n/\0/bin/x\n"),
    "too deep": lambda path: path.write_text("[" * 200_000),
    "another type": lambda path: path.write_text('[{"scripts": 1}]'),
    "a quotation without an end": lambda path: path.write_text('#!/bin/sh\nenv -S "x \'y"\n'),
}
READ = {
    # What the gateway reads, and for which command it does.
    ".venv/pyvenv.cfg": [".venv/bin/python", "agent.py"],
    ".venv/lib/python3.11/site-packages/x.dist-info/direct_url.json": [".venv/bin/python"],
    "package.json": ["node", "src/bot.js"],
    "run.sh": ["sh", "run.sh"],
    "run": ["./run"],
    "key.pem": ["sh", "ready.sh"],
    ".npmrc": ["sh", "ready.sh"],
}
SCRIPT = ["npm", "start"]


@pytest.fixture(autouse=True)
def _fails_instead_of_waiting() -> Iterator[None]:
    def fail(*_: object) -> None:
        pytest.fail("it waits for ever")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    for name in ("tools/node", "tools/npm", ".venv/bin/python"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("\x7fELF")
        (tmp_path / name).chmod(0o755)
    (tmp_path / ".venv/lib/python3.11/site-packages/x.dist-info").mkdir(parents=True)
    (tmp_path / "src").mkdir()
    for name in ("agent.py", "ready.sh", "src/bot.js"):
        (tmp_path / name).write_text("")
    return tmp_path


@pytest.mark.parametrize("there", FOUND)
@pytest.mark.parametrize("name", READ)
def test_what_a_command_needs_is_found_whatever_is_there(
    project: Path, name: str, there: str
) -> None:
    path = project / name
    FOUND[there](path)
    for mode in (0o644, 0o755):
        if path.is_file():
            path.chmod(mode)
        is_no_program = name == "run" and not (path.is_file() and mode == 0o755)
        with pytest.raises(SandboxError, match="run") if is_no_program else nullcontext():
            discover(READ[name], cwd=str(project), search_path=f"{project}/tools:/usr/bin:/bin")
    assert set(find_secrets(str(project))) <= {str(project / name)}


@pytest.mark.parametrize("there", FOUND)
def test_a_script_is_refused_whatever_is_there(project: Path, there: str) -> None:
    FOUND[there](project / "package.json")
    with pytest.raises(SandboxError, match=r"or write the command that it runs$"):
        discover(SCRIPT, cwd=str(project), search_path=f"{project}/tools:/usr/bin:/bin")


@pytest.mark.parametrize("name", READ)
def test_the_agent_gets_its_launcher_and_so_do_those_behind_it(project: Path, name: str) -> None:
    need_sandbox("root" if os.geteuid() == 0 else "user")
    if name != "run":
        os.mkfifo(project / name)
    for words in (["sh", "ready.sh"], READ[name] if name != "run" else ["sh"]):
        environ = {"PATH": f"{project}/tools:/usr/bin:/bin"}
        made = make_launcher("it", words, SandboxSettings(), environ=environ, cwd=str(project))
        made.close()
        assert made.describe()["level"] == "strict"


def test_a_file_is_read_up_to_a_bound_and_what_is_wrong_with_it_is_no_error(tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    assert read_bytes(path, 4) is None
    assert read_text(path, 4) is None
    assert read_json(path, 4) is None
    Path(path).write_bytes(b"a\0\xffdef")
    assert read_bytes(path, 4) == b"a\0\xffd"
    assert read_text(path, 4) == "a\ufffd\ufffdd"
    assert read_json(path, 4) is None
    Path(path).write_text("[1, 2]")
    assert read_json(path, 6) == [1, 2]
    assert read_json(path, 5) is None
    assert read_bytes("no\0name", 5) is None
