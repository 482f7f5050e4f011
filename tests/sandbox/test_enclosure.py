"""What the proxy of an agent's network could reach of the machine, if somebody took it over."""

from __future__ import annotations

import json
import os
import select
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from gateway.sandbox import SandboxError, SandboxSettings, StrictLauncher, make_launcher
from gateway.sandbox.network import enclosure
from gateway.sandbox.network import proxy as proxy_module
from gateway.sandbox.trial import try_sandbox
from tests.sandbox.running import PATIENCE
from tests.sandbox.users import PROJECT, available_users, need_sandbox, run_as, uid_of

USERS = pytest.mark.parametrize("user", available_users())

# Runs in place of the proxy, with the proxy's arguments, once the proxy would begin to serve.
PROBE = """
import ctypes, json, os, socket, subprocess, sys

def works(act, *args):
    try:
        act(*args)
    except OSError:
        return False
    return True

def start(*words):
    os.waitpid(os.posix_spawn(words[0], words, {}), 0)

libc = ctypes.CDLL(None)
found = {
    "reads the home folder": works(os.listdir, HOME),
    "reads a file in it": works(open, HOME + "/letter"),
    "reads who is on the machine": works(open, "/etc/passwd"),
    "sees the gateway's environment": works(os.listdir, f"/proc/{GATEWAY}"),
    "signals the gateway": works(os.kill, GATEWAY, 0),
    "has variables": any(name not in {"PWD", "LC_CTYPE", "LD_ORIGIN_PATH"} for name in os.environ),
    "executes programs": works(start, "/bin/sh", "-c", ""),
    "opens unix sockets": works(socket.socket, socket.AF_UNIX),
    "can gain rights": not libc.prctl(39, 0, 0, 0, 0),
    "makes any system call": libc.prctl(21, 0, 0, 0, 0) != 2,
    "writes a file": any(works(open, f"{each}/x", "w") for each in FOLDERS),
    "has a file without limit": works(os.truncate, HOME + "/letter", 1),
}
found["uid"] = os.geteuid()
sys.stderr.write(json.dumps(found) + "\\n")
"""

GATEWAY = """
import json, os, select, subprocess, sys
from gateway.sandbox import SandboxSettings, make_launcher
from gateway.sandbox.network import proxy

home, probe = sys.argv[1:]
folders = ["/", "/tmp", "/etc", *sys.path]
known = f"HOME, GATEWAY, FOLDERS = {home!r}, {os.getpid()}, {folders!r}\\n"
control = subprocess.run([sys.executable, "-c", known + probe], stderr=subprocess.PIPE, text=True)
proxy._PROGRAM = proxy._PROGRAM.replace(
    ".main()",
    f"\\nfrom gateway.sandbox.network.inlets import _give_up_rights\\n"
    f"_give_up_rights(int(sys.argv[4]))\\n{known}{probe}",
)
made = make_launcher("agent", ["true"], SandboxSettings(network=("a.invalid:1",)),
                     environ=os.environ, cwd="/")
with made._proxy.announce():
    made._proxy._process.wait()
print(control.stderr + made._proxy.take_said(), end="")
made.close()
"""


@USERS
def test_a_proxy_that_was_taken_over_reaches_nothing_of_the_machine_but_its_network(
    user: str,
) -> None:
    need_sandbox(user)
    with tempfile.TemporaryDirectory(prefix="home-") as home:
        Path(home).chmod(0o777)
        Path(home, "letter").write_text("private")
        Path(home, "letter").chmod(0o666)
        done = run_as(user, sys.executable, "-c", GATEWAY, home, PROBE, HOME=home, KEY="word")
    control, found = map(json.loads, done.stdout.splitlines())
    assert control.pop("uid") == uid_of(user)
    # setpriv, with which the tests become another user, leaves that one able to gain rights.
    assert set(control.values()) == {True}, control
    uid = found.pop("uid")
    assert set(found.values()) == {False}, found
    assert (uid != 0) if user == "root" else (uid == enclosure.WORKER_UID)


def launcher() -> StrictLauncher:
    need_sandbox("root" if os.geteuid() == 0 else "user")
    made = make_launcher(
        "agent", ["true"], SandboxSettings(network=("a.invalid:1",)), environ=os.environ, cwd="/"
    )
    assert isinstance(made, StrictLauncher)
    return made


def test_a_proxy_that_cannot_be_confined_keeps_the_gateway_from_starting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(**arguments: Any) -> list[str]:
        return ["--unknown"]

    monkeypatch.setattr(enclosure, "bwrap_options", refused)
    made = launcher()
    try:
        with pytest.raises(SandboxError, match=r"the network's own process .*: .*bubblewrap"):
            try_sandbox(made)
    finally:
        made.close()


def test_a_proxy_that_hangs_is_ended_with_all_of_its_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(proxy_module, "STOP_TIMEOUT", 0.0)
    monkeypatch.setattr(
        proxy_module,
        "_PROGRAM",
        "import os, signal\nos.write(2, b'here')\nwhile True: signal.pause()",
    )
    made = launcher()
    proxy = made._proxy
    assert proxy is not None
    with proxy.announce():
        os.set_blocking(proxy.stderr, True)
        assert os.read(proxy.stderr, 10) == b"here"
        assert proxy.pid is not None
        pidfd = os.pidfd_open(last_descendant(proxy.pid))
    assert not select.select([pidfd], [], [], 0)[0]
    made.close()
    assert select.select([pidfd], [], [], PATIENCE)[0]
    os.close(pidfd)


def last_descendant(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return last_descendant(int(children[0])) if children else pid


def written(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "resolv.conf").write_text(text)
    return folder / "resolv.conf"


def test_name_servers_that_a_service_keeps_in_a_folder_of_its_own_are_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a service puts a new file in place of the old one."""
    kept = written(tmp_path / "run/resolve", "nameserver 192.0.2.1")
    etc = tmp_path / "resolv.conf"
    etc.symlink_to(kept)
    monkeypatch.setattr(enclosure, "RESOLV_CONF", str(etc))
    options = enclosure.bwrap_options(import_path=[], as_root=False)
    assert follows(options, "--ro-bind", str(kept.parent), str(kept.parent))
    assert follows(options, "--symlink", str(kept), str(etc))
    assert str(etc) not in options[: options.index(str(kept.parent))]


def test_an_interpreter_that_is_relocatable_finds_its_libraries_without_proc() -> None:
    options = enclosure.bwrap_options(import_path=[], as_root=False)
    folder = os.path.dirname(enclosure.interpreter())
    assert follows(options, "--clearenv", "--setenv", "LD_ORIGIN_PATH", folder)


def test_name_servers_in_a_file_of_etc_show_that_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enclosure, "RESOLV_CONF", "/etc/hosts")
    options = enclosure.bwrap_options(import_path=[], as_root=True)
    assert follows(options, "--ro-bind", os.path.realpath("/etc/hosts"), "/etc/hosts")
    assert "/etc" not in {options[at + 2] for at, word in enumerate(options) if word == "--ro-bind"}


def test_of_a_checkout_only_the_packages_are_shown_that_are_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = enclosure.bwrap_options(import_path=[str(PROJECT)], as_root=False)
    sources = [options[at + 1] for at, word in enumerate(options) if word == "--ro-bind"]
    assert str(PROJECT / "gateway") in sources
    assert str(PROJECT) not in sources


def follows(options: list[str], *words: str) -> bool:
    return any(options[at : at + len(words)] == list(words) for at in range(len(options)))
