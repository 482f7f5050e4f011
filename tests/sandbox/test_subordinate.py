"""Subordinate ids: whose they are, that no two workers have the same, and a worker with one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.sandbox import SandboxSettings, make, make_launcher
from gateway.sandbox.files.mounts import Mount, find_private
from gateway.sandbox.limits.subordinate import (
    Claim,
    Ids,
    Mappers,
    NoSubordinateIds,
    SubordinateIds,
    find_subordinate_ids,
    own_ranges,
)
from tests.sandbox.running import running
from tests.sandbox.users import PROJECT, SUBORDINATE, WITH_IDS, as_user, need_sandbox, uid_of

NOWHERE = Mappers("", "", "", "")
# A claim holds for the whole machine. Above what the kernel has as ids, and where no other run of
# these tests looks.
OURS = (os.getpid() + 1) << 32
with_ids = pytest.mark.skipif(os.geteuid() != 0, reason="needs a user with subordinate ids")


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        ("ada:100000:65536\nbob:165536:65536\n", [range(100000, 165536)]),
        ("1000:100000:10\nada:200000:10\n", [range(100000, 100010), range(200000, 200010)]),
        ("  ada:5:1  ", [range(5, 6)]),
        ("adam:100000:65536", []),
        ("ada:0:65536\nada:5:0\nada:-5:6\nada:5\nada::\nada:x:y\nada:5:6:7\n#ada:5:6", []),
        ("ada:\u0665:6\nada:99999999999:1", []),
        ("", []),
    ],
)
def test_ids_are_those_that_the_file_gives_to_the_user(text: str, ranges: list[range]) -> None:
    assert own_ranges(text, ("ada", "1000")) == ranges


def test_ids_come_from_all_ranges_in_pairs() -> None:
    ids = SubordinateIds(
        [range(OURS, OURS + 1), range(OURS + 10, OURS + 12)],
        [range(5, 100)],
        mappers=NOWHERE,
    )
    claims = [ids.take() for _ in range(3)]
    assert {claim.ids for claim in claims} == {(OURS, 5), (OURS + 10, 6), (OURS + 11, 7)}
    with pytest.raises(OSError, match="all 3 subordinate ids are in use"):
        ids.take()
    claims[1].release()
    assert ids.take().ids == claims[1].ids


def test_two_gateways_of_one_user_never_give_the_same_id() -> None:
    few = [range(OURS, OURS + 20)]
    one, other = (SubordinateIds(few, few, mappers=NOWHERE) for _ in range(2))
    claims = [each.take() for _ in range(10) for each in (one, other)]
    assert len({claim.ids.uid for claim in claims}) == 20


def test_an_id_is_free_again_when_nobody_has_its_claim_any_more() -> None:
    one = [range(OURS, OURS + 1)]
    SubordinateIds(one, one, mappers=NOWHERE).take()
    assert SubordinateIds(one, one, mappers=NOWHERE).take().ids == Ids(OURS, OURS)


def test_a_claim_is_released_once() -> None:
    claim = Claim(Ids(OURS, OURS))
    claim.release()
    claim.release()
    assert repr(claim) == f"<Claim of {OURS}, released>"


def test_a_missing_program_is_named_with_its_package(tmp_path: Path) -> None:
    with pytest.raises(NoSubordinateIds, match=r"newuidmap is missing \(apt install uidmap\)"):
        find_subordinate_ids(search_path=str(tmp_path))


@with_ids
def test_a_user_without_ids_is_told_how_they_are_given() -> None:
    need_sandbox("user")
    code = (
        "from gateway.sandbox.limits.subordinate import *\n"
        "try: find_subordinate_ids(search_path='/usr/bin')\n"
        "except NoSubordinateIds as error: print(error)"
    )
    said = subprocess.check_output(as_user("user", sys.executable, "-c", code), text=True)
    assert said.startswith("/etc/subuid gives 54321 no ids (usermod --add-subuids")


@with_ids
def test_ids_that_cannot_be_mapped_are_none() -> None:
    """As where the gateway may gain no privileges, so that newuidmap has none."""
    need_sandbox(WITH_IDS)
    code = (
        "from gateway.sandbox.limits.subordinate import *\n"
        "try: find_subordinate_ids(search_path='/usr/bin')\n"
        "except NoSubordinateIds as error: print(error)"
    )
    command = as_user(WITH_IDS, "setpriv", "--no-new-privs", sys.executable, "-c", code)
    said = subprocess.check_output(command, text=True)
    assert said.startswith("/usr/bin/newuidmap does not work here: ")


SAY_IDS = """
import os
print(os.getuid(), os.getgid(), os.geteuid(), os.getgroups(), os.readlink("/proc/self/fd/0")[:4])
def status(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(line.split(":")[1].split() for line in lines if line.startswith(name + ":"))
print(status("CapEff"), status("CapBnd"), status("NoNewPrivs"), status("Seccomp"))
print(open("/proc/sys/user/max_user_namespaces").read().strip())
print(sorted(map(int, os.listdir("/proc/self/fd"))))
open("/tmp/file", "w").close(); open("/dev/shm/file", "w").close()
sys.stdin.read()
"""


@with_ids
def test_a_worker_has_an_id_of_its_own_outside_and_the_usual_one_inside() -> None:
    seen = []
    with running(WITH_IDS, SAY_IDS) as one, running(WITH_IDS, SAY_IDS) as other:
        for each in (one, other):
            assert "subordinate" in each.about["user"]
            assert each.about["why_shared"] is None
            assert each.line() == "1000 1000 1000 [] pipe"
            assert each.line() == "['0000000000000000'] ['0000000000000000'] ['1'] ['2']"
            assert each.line() == "0"
            assert each.line() == "[0, 1, 2, 3]"  # the last is the folder that is read
            seen.append(_host_uid(each.pid))
    assert len({*seen, uid_of(WITH_IDS)}) == 3
    assert all(uid in SUBORDINATE for uid in seen)


def _host_uid(pid: int) -> int:
    """Of the last process of the chain below a sandbox's first."""
    while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        pid = int(children[-1])
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Uid:"))


@with_ids
@pytest.mark.parametrize("broken", ["newuidmap", "newgidmap", "nsenter"])
def test_without_its_maps_a_command_is_not_run(broken: str) -> None:
    need_sandbox(WITH_IDS)
    code = f"""
import dataclasses, os, subprocess
from gateway.sandbox import SandboxSettings, make_launcher
made = make_launcher(
    "a", ["sh", "-c", "echo it ran; id"], SandboxSettings(), environ=os.environ, cwd="/"
)
ids = made._subordinate
ids.mappers = dataclasses.replace(ids.mappers, {broken}="/bin/false")
with made.launch() as launch:
    process = subprocess.Popen(
        launch.argv, env=dict(launch.env), cwd=launch.cwd, stdin=subprocess.DEVNULL,
        pass_fds=launch.pass_fds, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )
said, complaints = process.communicate(timeout=30)
print(process.returncode != 0, said, bool(complaints))
"""
    said = subprocess.check_output(as_user(WITH_IDS, sys.executable, "-c", code), text=True)
    assert said.strip() == "True b'' True"


@with_ids
def test_what_only_the_user_can_read_or_write_keeps_the_users_id() -> None:
    need_sandbox(WITH_IDS)
    code = """
import json, os, tempfile
from gateway.sandbox import SandboxSettings, make_launcher
found = {}
with tempfile.TemporaryDirectory() as folder:
    for name in ("open", "private", "written"):
        os.mkdir(f"{folder}/{name}", 0o755)
        with open(f"{folder}/{name}/agent.py", "w") as file:
            os.fchmod(file.fileno(), 0o600 if name == "private" else 0o644)
        with open(f"{folder}/{name}/.env", "w") as file:
            os.fchmod(file.fileno(), 0o600)
        rw = (f"{folder}/out",) if name == "written" else ()
        os.makedirs(f"{folder}/out", exist_ok=True)
        made = make_launcher(
            "a", ["/usr/bin/env", "python3", f"{folder}/{name}/agent.py"],
            SandboxSettings(mounts_rw=rw), environ=os.environ, cwd="/",
        )
        about = made.describe()
        found[name] = [about["why_shared"], len(about["shared_limits"])]
print(json.dumps(found))
"""
    said = subprocess.check_output(
        as_user(WITH_IDS, sys.executable, "-c", code), text=True, cwd=PROJECT
    )
    found = json.loads(said)
    assert found["open"] == [None, 2], "a secret is masked, and need not be readable"
    assert "only its owner can read" in found["private"][0]
    assert "private/agent.py" in found["private"][0]
    assert found["written"][0].startswith("mounts_rw is the user's own")
    assert found["written"][1] == 5


READ_HIDDEN = """
import json, os, tempfile, subprocess
from gateway.sandbox import SandboxSettings, make_launcher
with tempfile.TemporaryDirectory() as folder:
    os.chmod(folder, 0o755)
    for name in (".cache", "agent.sh"):
        with open(f"{folder}/{name}", "w") as file:
            file.write("cat .cache; echo $?")
            os.fchmod(file.fileno(), 0o600 if name == ".cache" else 0o644)
    made = make_launcher(
        "a", ["sh", "./agent.sh"], SandboxSettings(cwd=folder), environ=os.environ, cwd="/"
    )
    with made.launch() as launch:
        said = subprocess.run(
            launch.argv, env=dict(launch.env), cwd=launch.cwd, pass_fds=launch.pass_fds,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True,
        )
    made.close()
print(json.dumps([made.describe()["why_shared"] is None, said.stdout, said.stderr]))
"""


@with_ids
@pytest.mark.parametrize("user", ["user", WITH_IDS])
def test_a_private_file_that_is_hidden_is_closed_to_a_worker_with_an_id_of_its_own(
    user: str,
) -> None:
    """It does not count in the choice of the id, and so less is read by it, and nothing more."""
    need_sandbox(user)
    said = subprocess.check_output(
        as_user(user, sys.executable, "-c", READ_HIDDEN), text=True, cwd=PROJECT
    )
    own_id, read, complaint = json.loads(said)
    assert own_id is (user == WITH_IDS)
    if own_id:
        assert (read, complaint) == ("1\n", "cat: .cache: Permission denied\n")
    else:  # the control
        assert (read, complaint) == ("cat .cache; echo $?0\n", "")


def test_what_others_cannot_read_is_found_from_the_top(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    for folder in (deep.parent, deep):
        folder.chmod(0o755)
    (deep / "file").write_text("")
    (deep / "file").chmod(0o640)
    (tmp_path / "link").symlink_to("/root")
    (tmp_path / ".cache").mkdir(mode=0o700)
    mounts = [Mount("/x", str(tmp_path))]
    assert find_private(mounts, besides=()) == str(deep / "file")
    assert find_private(mounts, besides={str(deep / "file")}) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has its own ids")
def test_root_needs_no_subordinate_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(make, "_subordinate_ids", never)
    need_sandbox("root")
    made = make_launcher("a", ["true"], SandboxSettings(), environ=os.environ, cwd="/")
    assert made.describe()["shared_limits"] == []
