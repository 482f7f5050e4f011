"""Everything that a worker sees of the machine's files and environment, listed from inside it.

The other suites ask for what must not be there by name. This one looks at all there is, so that
what nobody thought of is found.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest

from tests.sandbox.running import running
from tests.sandbox.users import available_users

LOOK = """
import json, os
# The folders on the way to what is shown are made for it, and hold nothing else.
def entries(folder, depth):
    found = []
    try:
        there = list(os.scandir(folder))
    except PermissionError:
        return found
    for entry in there:
        found.append(entry.path)
        if depth and entry.is_dir(follow_symlinks=False):
            found += entries(entry.path, depth - 1)
    return found
print(json.dumps({
    "top": sorted(os.listdir("/")), "etc": sorted(os.listdir("/etc")),
    "made": [path for each in ("/run", "/var", "/home", "/root", "/opt", "/mnt", "/srv", "/media")
             if os.path.isdir(each) for path in entries(each, 2)],
    "env": sorted(os.environ), "tmp": os.listdir("/tmp"), "shm": os.listdir("/dev/shm"),
}))
"""

OWN = {"dev", "etc", "proc", "run", "tmp", "var"}
SYSTEM = {"bin", "lib", "lib32", "lib64", "libx32", "sbin", "usr"}
ETC = {"alternatives", "group", "hosts", "ld.so.cache", "localtime", "passwd"}
KEY = "A_KEY_OF_THE_GATEWAYS"


@pytest.mark.parametrize("user", available_users())
def test_a_worker_sees_its_own_and_the_systems_files_and_nothing_else(
    user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY, "word")
    with running(user, LOOK) as worker:
        seen = json.loads(worker.line())
    shown = set(worker.about["mounts"])
    assert set(seen["top"]) <= OWN | SYSTEM | {Path(path).parts[1] for path in shown}
    assert set(seen["etc"]) <= ETC
    assert set(seen["env"]) <= {*worker.about["env"], "PWD", "LC_CTYPE"} - {KEY}
    for path in seen["made"]:
        leads = any(each == path or each.startswith(f"{path}/") for each in shown)
        within = any(path.startswith(f"{each}/") for each in shown)
        assert leads or within or path == "/var/tmp", path
    # Folders of /tmp that lead to something that is shown there.
    leading = {Path(path).parts[2] for path in shown if path.startswith("/tmp/")}
    assert set(seen["tmp"]) <= leading
    assert seen["shm"] == []


def test_outside_there_is_more_to_see(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: the same program without a sandbox."""
    monkeypatch.setenv(KEY, "word")
    user = available_users()[0]
    with tempfile.NamedTemporaryFile(dir="/tmp"), running(user, LOOK, level="off") as worker:
        seen = json.loads(worker.line())
    assert set(seen["etc"]) - ETC
    assert KEY in seen["env"]
    assert seen["tmp"]
    assert seen["made"]
