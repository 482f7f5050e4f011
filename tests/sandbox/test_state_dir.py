"""The folder of all state: what it must be, whose its parts are, and what is removed when."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from gateway.config import StateSettings
from gateway.sandbox import SandboxError
from gateway.sandbox.files import keeper, state, trees
from gateway.sandbox.files.state import Home, StateDir, default_place
from gateway.sandbox.files.trees import bytes_in
from gateway.sandbox.symptoms import LimitError
from tests.sandbox.users import as_user

IDS = range(1_900_000_000, 1_900_100_000)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders to other users")


@pytest.fixture
def whole(tmp_path: Path) -> Iterator[StateDir]:
    opened = StateDir(str(tmp_path / "deep/state"), ids=None, serving=True)
    yield opened
    opened.close()


def mode(path: str | Path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def test_all_of_it_is_private_from_the_start(whole: StateDir, tmp_path: Path) -> None:
    agent = whole.agent("a", StateSettings())
    home = agent.take(None)
    assert home is not None
    assert home.path == f"{tmp_path}/deep/state/agents/a/home"
    for path in (home.path, whole.path, f"{whole.path}/agents/a"):
        assert mode(path) == 0o700


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.chmod(0o750), "others may look into .*: chmod 0700"),
        (lambda path: (path.rmdir(), path.write_text("")), "File exists|Not a directory"),
        (lambda path: (path / "agents").write_text(""), "File exists"),
    ],
)
def test_a_place_that_cannot_be_it_is_refused(tmp_path: Path, spoil: object, said: str) -> None:
    path = tmp_path / "state"
    path.mkdir(0o700)
    spoil(path)  # type: ignore[operator]
    with pytest.raises(SandboxError, match=f"state_dir: .*({said})"):
        StateDir(str(path), ids=None, serving=False)


@as_root
def test_a_place_or_a_folder_of_another_users_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.mkdir(0o700)
    os.chown(path, 1234, 1234)
    with pytest.raises(SandboxError, match="not a folder of the gateway's own user"):
        StateDir(str(path), ids=None, serving=False)
    os.chown(path, 0, 0)
    for ids in (None, IDS):
        whole = StateDir(str(path), ids=ids, serving=False)
        whole.agent("a", StateSettings())
        os.chown(f"{path}/agents/a/home", 1000, 1000)  # a real user's
        with pytest.raises(SandboxError, match="home belongs to user id 1000, and no worker"):
            whole.agent("a", StateSettings())
        os.chown(f"{path}/agents/a/home", 0, 0)
        whole.close()
    # Nor is root's own, if there is something in it.
    os.chown(f"{path}/agents/a/home", 0, 0)
    Path(path, "agents/a/home/x").write_text("")
    whole = StateDir(str(path), ids=IDS, serving=False)
    with pytest.raises(SandboxError, match="belongs to user id 0"):
        whole.agent("a", StateSettings())
    whole.close()


def test_a_link_in_place_of_a_folder_is_not_followed(whole: StateDir, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    os.makedirs(f"{whole.path}/agents/a")
    os.symlink(tmp_path / "elsewhere", f"{whole.path}/agents/a/home")
    with pytest.raises(SandboxError, match="home is not a folder"):
        whole.agent("a", StateSettings())


@as_root
def test_every_folder_has_an_id_of_its_own_that_it_keeps(tmp_path: Path) -> None:
    path = str(tmp_path / "state")
    seen: list[int | None] = []
    for _ in range(2):
        whole = StateDir(path, ids=range(IDS[0], IDS[0] + 20), serving=True)
        conversations = whole.agent("many", StateSettings(), per_conversation=True)
        homes = [whole.agent("one", StateSettings()).home, whole.agent("two", None).home]
        homes += [home for each in "abc" if (home := conversations.take(each)) is not None]
        seen += [home.uid for home in homes]
        for home in homes:
            assert os.stat(home.path).st_uid == os.stat(home.path).st_gid == home.uid
        assert [home.shown for home in homes] == [True, False, True, True, True]
        whole.close()
    assert seen[:5] == seen[5:]
    assert len(set(seen)) == 5
    assert all(uid in range(IDS[0], IDS[0] + 20) for uid in seen)
    # Where most are taken, no more are looked for.
    whole = StateDir(path, ids=range(IDS[0], IDS[0] + 8), serving=True)
    with pytest.raises(SandboxError, match="more than there are ids"):
        whole.agent("three", StateSettings())
    whole.close()


def test_one_gateway_serves_with_it_at_a_time(tmp_path: Path) -> None:
    path = str(tmp_path / "state")
    first = StateDir(path, ids=None, serving=True)
    StateDir(path, ids=None, serving=False).close()
    with pytest.raises(SandboxError, match="another gateway serves with"):
        StateDir(path, ids=None, serving=True)
    first.close()
    StateDir(path, ids=None, serving=True).close()


def conversations_in(whole: StateDir) -> int:
    return len(os.listdir(f"{whole.path}/agents/a/conversations"))


@pytest.mark.parametrize(
    "name", ["../../x", "/etc/passwd", "x" * 10_240, "nul\0", "\udc80", "", "."]
)
def test_what_a_caller_calls_a_conversation_is_never_a_path(whole: StateDir, name: str) -> None:
    agent = whole.agent("a", StateSettings(), per_conversation=True)
    home = agent.take(name)
    assert home is not None
    above, digest, last = home.path.rsplit("/", 2)
    assert (above, last) == (f"{whole.path}/agents/a/conversations", "home")
    assert len(digest) == 64
    assert digest.isalnum()
    assert agent.take(name) == home
    assert agent.take(name + "x") != home
    assert agent.take(None) is None


def test_the_number_of_folders_is_bounded_and_the_longest_silent_goes(
    whole: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "MAX_CONVERSATIONS", 3)
    agent = whole.agent("a", StateSettings(), per_conversation=True)
    in_use = agent.take("in use")
    assert in_use is not None
    for name in ("b", "c", "b", "d", "e"):
        home = agent.take(name)
        assert home is not None
        Path(home.path, name).touch()
        agent.give_back(home)
    assert conversations_in(whole) == 3
    assert os.path.isdir(in_use.path)
    found = {name: agent.take(name) for name in "de"}
    assert {name: os.listdir(home.path) for name, home in found.items() if home} == {
        "d": ["d"],
        "e": ["e"],
    }
    # All of them are in use: then there may be one more, for the time being.
    more = agent.take("f")
    assert more is not None
    assert conversations_in(whole) == 4
    agent.give_back(more)
    agent.remove_expired()
    assert conversations_in(whole) == 3
    # After a restart, the same are known.
    again = whole.agent("a", StateSettings(), per_conversation=True)
    assert again.take("g") is not None
    assert conversations_in(whole) == 3


def test_whoever_has_many_conversations_displaces_their_own(
    whole: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "MAX_CONVERSATIONS", 5)
    agent = whole.agent("a", StateSettings(), per_conversation=True)

    def work(owner: str, conversation: str) -> list[str]:
        home = agent.take(f"{owner}\0conversation\0{owner}/{conversation}")
        assert home is not None
        found = os.listdir(home.path)
        Path(home.path, conversation).touch()
        agent.give_back(home)
        return found

    for name in ("x", "y"):
        assert work("few", name) == []
    for number in range(20):
        assert work("many", str(number)) == []
    assert conversations_in(whole) == 5
    agent = whole.agent("a", StateSettings(), per_conversation=True)  # as after a restart
    assert work("many", "20") == []
    assert [work("few", name) for name in ("x", "y")] == [["x"], ["y"]]
    assert work("many", "19") == ["19"]
    assert work("many", "0") == []


def test_what_has_been_silent_for_too_long_is_removed(
    whole: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000_000.0
    monkeypatch.setattr(state.time, "time", lambda: now)
    agent = whole.agent("a", StateSettings(ttl="1h"), per_conversation=True)
    homes = {name: agent.take(name) for name in "ab"}
    assert homes["a"] is not None
    assert homes["b"] is not None
    agent.give_back(homes["a"])
    now += 3599
    agent.remove_expired()
    assert conversations_in(whole) == 2
    now += 1
    agent.remove_expired()
    assert conversations_in(whole) == 1  # the other one is in use
    assert os.path.isdir(homes["b"].path)


def test_an_agent_that_was_not_served_for_too_long_begins_anew(
    whole: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = StateSettings(ttl="1h")
    home = whole.agent("a", settings).home
    Path(home.path, "x").touch()
    assert os.listdir(whole.agent("a", settings).home.path) == ["x"]
    later = state.time.time() + 3601
    monkeypatch.setattr(state.time, "time", lambda: later)
    assert os.listdir(whole.agent("a", StateSettings()).home.path) == ["x"]
    assert os.listdir(whole.agent("a", settings).home.path) == []


@pytest.mark.parametrize("per_conversation", [False, True])
def test_a_gateway_that_does_not_serve_removes_nothing(
    whole: StateDir, monkeypatch: pytest.MonkeyPatch, *, per_conversation: bool
) -> None:
    settings = StateSettings(ttl="1h")
    home = whole.agent("a", settings, per_conversation=per_conversation).take("c")
    assert home is not None
    later = state.time.time() + 3601
    monkeypatch.setattr(state.time, "time", lambda: later)
    monkeypatch.setattr(state, "MAX_CONVERSATIONS", 0)
    check = StateDir(whole.path, ids=None, serving=False)
    check.agent("a", settings, per_conversation=per_conversation).remove_expired()
    check.close()
    assert os.path.isdir(home.path)
    assert os.listdir(f"{whole.path}/removed") == []


@pytest.mark.parametrize("per_conversation", [False, True])
async def test_a_folder_that_a_worker_is_in_is_young_to_the_next_gateway(
    whole: StateDir, *, per_conversation: bool
) -> None:
    settings = StateSettings(ttl="1h")
    agent = whole.agent("a", settings, per_conversation=per_conversation)
    home = agent.take("c")
    assert home is not None
    await trio.Path(home.path, "x").touch()
    os.utime(os.path.dirname(home.path), (1, 1))  # the worker started that long ago
    await keeper.look_at("a", agent)
    # This gateway is killed; the next one starts.
    again = whole.agent("a", settings, per_conversation=per_conversation).take("c")
    assert again == home
    assert os.listdir(home.path) == ["x"]


def test_removal_follows_no_link_and_minds_neither_depth_nor_modes(
    whole: StateDir, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("here")
    (outside / "precious").chmod(0o400)
    agent = whole.agent("a", StateSettings(), per_conversation=True)
    home = agent.take("c")
    assert home is not None
    os.symlink(outside, f"{home.path}/link")
    os.symlink(outside / "precious", f"{home.path}/file")
    os.link(outside / "precious", f"{home.path}/same")
    os.mkfifo(f"{home.path}/pipe")
    descriptor = os.open(home.path, os.O_RDONLY)
    for _ in range(3000):  # longer than any path, deeper than any stack
        os.mkdir("deep", dir_fd=descriptor)
        inner = os.open("deep", os.O_RDONLY, dir_fd=descriptor)
        os.close(os.open("file", os.O_CREAT, 0o000, dir_fd=inner))
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)
    closed = Path(home.path, "closed")
    (closed / "inner").mkdir(parents=True)
    (closed / "inner").chmod(0)
    closed.chmod(0)
    agent.give_back(home)
    whole.set_aside(os.path.dirname(home.path))
    whole.remove()
    assert os.listdir(f"{whole.path}/removed") == []
    assert (outside / "precious").read_text() == "here"
    assert mode(outside / "precious") == 0o400


def test_no_worker_starts_in_a_folder_that_is_too_large(whole: StateDir) -> None:
    agent = whole.agent("a", StateSettings(size="1M"), per_conversation=True)
    assert whole.agent("b", StateSettings()).too_large(Home("x")) is None
    homes = {name: agent.take(name) for name in "ab"}
    for home in homes.values():
        assert home is not None
        agent.give_back(home)
    large = homes["a"]
    assert large is not None
    file = Path(large.path, "large")
    file.write_bytes(b"x" * (2 << 20))
    os.symlink("/usr", f"{large.path}/link")
    assert 2 << 20 <= bytes_in(large.path) < 3 << 20
    for path in agent.used_since():
        agent.judge_size(path, bytes_in(path))
    assert agent.used_since() == []
    too_large = agent.too_large(large)
    assert too_large is not None
    assert too_large()
    with pytest.raises(LimitError, match=r"^the state folder holds more than state\.size allows$"):
        agent.take("a")
    assert agent.take("b") is not None
    # Whoever asked for it in vain has it looked at again: somebody may have made room.
    assert large.path in agent.used_since()
    file.unlink()
    assert not agent.judge_size(large.path, bytes_in(large.path))
    assert agent.take("a") is not None


async def test_the_keeper_measures_and_removes(
    whole: StateDir, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = whole.agent("a", StateSettings(size="1K", ttl="1h"), per_conversation=True)
    home = agent.take("c")
    assert home is not None
    await trio.Path(home.path, "large").write_bytes(b"x" * 10_000)
    os.mkdir(f"{whole.path}/removed/left")
    await keeper.look_at("a", agent)
    with pytest.raises(OSError, match=r"state\.size"):
        agent.take("c")
    assert os.listdir(f"{whole.path}/removed") == []
    assert "state.size allows 1024: its workers end, and no more are started in it" in caplog.text
    monkeypatch.setattr(trees, "_MAX_MEASURED", 0)
    await keeper.look_at("a", agent)
    assert "holds more than can be measured, and state.size allows 1024" in caplog.text


async def test_the_keeper_goes_on_where_nothing_can_be_measured(
    whole: StateDir, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    agent = whole.agent("a", StateSettings(size="1K"))
    home = agent.take(None)

    def refuse(_: str) -> float:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(keeper, "bytes_in", refuse)
    await keeper.look_at("a", agent)
    assert "cannot be measured: [Errno 24]" in caplog.text
    assert agent.take(None) == home


def test_the_default_place_is_systemds_or_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/ada")
    assert default_place({"STATE_DIRECTORY": "/var/lib/x:/var/lib/y"}) == "/var/lib/x"
    assert default_place({"XDG_STATE_HOME": "/s"}) == "/s/agent-gateway"
    assert default_place({}) == "/home/ada/.local/state/agent-gateway"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_place({"XDG_STATE_HOME": "/s"}) == "/var/lib/agent-gateway"


NOWHERE = """
import os
from gateway.sandbox.files.state import StateDir, default_place
os.environ["HOME"] = "/proc"  # as "/", which is that of a unit's DynamicUser=
try:
    StateDir(default_place({}), ids=None, serving=True)
except Exception as error:
    print(error)
"""


def test_who_may_not_make_the_place_is_told_what_to_set() -> None:
    command = as_user("user", sys.executable, "-c", NOWHERE)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("state_dir: /proc/.local: ")
    assert "[server] state_dir" in done.stdout
    assert "StateDirectory=" in done.stdout


@as_root
def test_a_conversations_folder_of_another_users_is_an_error_of_its_start_alone(
    tmp_path: Path,
) -> None:
    whole = StateDir(str(tmp_path / "state"), ids=IDS, serving=True)
    agent = whole.agent("a", StateSettings(), per_conversation=True)
    home = agent.take("c")
    assert home is not None
    agent.give_back(home)
    os.chown(home.path, 1000, 1000)
    with pytest.raises(OSError, match="belongs to user id 1000"):
        agent.take("c")
    assert agent.take("d") is not None
    assert agent.used_since()
    whole.close()
