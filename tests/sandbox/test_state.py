"""Folders that outlive workers: what one worker writes, the next one reads, and nobody else."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway.composition.launchers import LauncherMaker, States
from gateway.config import load
from gateway.sandbox import SandboxError
from tests.harness import RunningGateway, running_gateway
from tests.sandbox.users import as_user, available_users, need_sandbox, uid_of

AGENT = Path(__file__).with_name("keeping.py")


@pytest.fixture(params=available_users())
def user(request: pytest.FixtureRequest) -> str:
    need_sandbox(request.param)
    return str(request.param)


@pytest.fixture
def folder(user: str) -> Iterator[Path]:
    """A folder of the user's, which the user can reach."""
    with tempfile.TemporaryDirectory(prefix="state-") as path:
        os.chmod(path, 0o755)
        os.chown(path, uid_of(user), uid_of(user))
        yield Path(path)


def settings(folder: Path, *, agent: str = "", sandbox: str = "", more: str = "") -> str:
    return f"""
[server]
state_dir = "{folder}/state"
[agents.keeper]
command = ["{sys.executable}", "{AGENT}"]
concurrency = 1
{agent}
[agents.keeper.sandbox]
{sandbox}
{more}
"""


@asynccontextmanager
async def serving(
    user: str, folder: Path, toml: str, *arguments: str
) -> AsyncIterator[RunningGateway]:
    async with running_gateway(
        None, *arguments, toml=toml, folder=folder, prefix=as_user(user)
    ) as gateway:
        yield gateway


async def ask(
    gateway: RunningGateway, what: str, argument: str = "", *, conversation: str | None = None
) -> Any:
    context = {} if conversation is None else {"context": {"conversation_id": conversation}}
    answer = await gateway.post("/agent/keeper/invoke", input=[what, argument], **context)
    body = answer.json()
    return body["output"] if "output" in body else body["error"]


def kept(*words: str) -> list[Any]:
    return [list(words), list(words), list(words), 0o600]


@pytest.mark.parametrize("arguments", [(), ("--sandbox", "off")], ids=["strict", "off"])
async def test_what_a_worker_keeps_is_there_for_the_next_and_after_a_restart(
    user: str, folder: Path, arguments: tuple[str, ...]
) -> None:
    # Each request has a worker of its own.
    toml = settings(folder, agent="state = true\nmax_requests = 1")
    async with serving(user, folder, toml, *arguments) as gateway:
        assert await ask(gateway, "keep", "one") == kept("one")
        assert await ask(gateway, "keep", "two") == kept("one", "two")
        about = await ask(gateway, "where")
    async with serving(user, folder, toml, *arguments) as gateway:
        assert await ask(gateway, "keep", "three") == kept("one", "two", "three")
        again = await ask(gateway, "where")
    assert about["home"] == ("/state" if not arguments else f"{folder}/state/agents/keeper/home")
    assert about["uid"] == again["uid"]
    if user == "root":
        assert (about["uid"] == 0) == bool(arguments)


async def test_a_frameworks_checkpoints_survive_workers_and_restarts(
    user: str, folder: Path
) -> None:
    # Each request has a worker of its own, and the next one waits already: a second worker.
    agent = 'state = true\nmax_requests = 1\nsession = "none"\nworkers = { min = 2, max = 2 }'
    toml = settings(folder, agent=agent).replace(
        f'"{AGENT}"', f'"-m", "worker", "{AGENT.with_name("checkpointing.py")}:agent"'
    )
    turns = [["one", "two"], ["three"]]
    said: list[str] = []
    for words in turns:
        async with serving(user, folder, toml) as gateway:
            for word in words:
                said.append(word)
                answer = await gateway.post(
                    "/agent/keeper/chat",
                    messages=[{"role": "user", "content": word}],
                    context={"conversation_id": "c"},
                )
                assert answer.json()["message"]["content"] == " ".join(said)


@pytest.mark.parametrize("arguments", [(), ("--sandbox", "off")], ids=["strict", "off"])
async def test_two_workers_of_an_agent_use_its_folder_at_the_same_time(
    user: str, folder: Path, arguments: tuple[str, ...]
) -> None:
    toml = settings(folder, agent="state = true\nworkers = { min = 2, max = 2 }")
    async with serving(user, folder, toml, *arguments) as gateway:
        told: list[Any] = []

        async def meet(name: str) -> None:
            told.append(await ask(gateway, "meet", name))

        # Each request has its worker to itself, and waits there for the other one.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(meet, "ada")
            nursery.start_soon(meet, "bob")
        assert told == [[["ada", "bob"], ["ada", "bob"]]] * 2


async def test_what_is_in_a_writable_mount_can_be_written_by_the_next_worker_too(
    user: str, folder: Path
) -> None:
    shared = folder / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    os.chown(shared, uid_of(user), uid_of(user))
    toml = settings(folder, agent="max_requests = 1", sandbox=f'mounts_rw = ["{shared}"]')
    for before in (0, 2):
        async with serving(user, folder, toml) as gateway:
            assert await ask(gateway, "write", str(shared)) == before
            assert await ask(gateway, "write", str(shared)) == before + 1
            about = await ask(gateway, "where")
            assert about["home"] == "/tmp"
    assert (shared / "shared").stat().st_uid == (about["uid"] if user == "root" else uid_of(user))


async def test_conversations_do_not_see_each_others_folders(user: str, folder: Path) -> None:
    toml = settings(
        folder, agent='state = true\nsession = "exclusive"\nworkers = { min = 1, max = 4 }'
    )
    names = ["ada", "bob", "../../ada", "a/b", "x" * 10_000, "nul\0nul", "\u2028"]
    async with serving(user, folder, toml) as gateway:
        for name in names[:3]:
            assert await ask(gateway, "keep", name, conversation=name) == kept(name)
        found = [await ask(gateway, "where", conversation=name) for name in names[:2]]
        assert [each["here"] for each in found] == [[".claude.json", "a", "memory.db"]] * 2
        assert {each["home"] for each in found} == {"/state"}
        if user == "root":
            assert found[0]["uid"] != found[1]["uid"]
        # One without a conversation has no folder.
        assert (await ask(gateway, "where"))["home"] == "/tmp"
    async with serving(user, folder, toml) as gateway:
        assert await ask(gateway, "keep", "again", conversation="ada") == kept("ada", "again")
        for name in names[3:7]:
            said = await ask(gateway, "keep", "x", conversation=name)
            assert said == kept("x") or said["type"] == "invalid_request"
    made = os.listdir(folder / "state/agents/keeper/conversations")
    assert all(len(each) == 64 and each.isalnum() for each in made)
    assert os.listdir(folder / "state/agents") == ["keeper"]
    assert sorted(os.listdir(folder / "state")) == ["agents", "allocation", "lock", "removed"]


async def test_an_agent_does_not_see_anothers_folder(user: str, folder: Path) -> None:
    other = f"""
[agents.other]
command = ["{sys.executable}", "{AGENT}"]
state = true
"""
    toml = settings(folder, agent="state = true", more=other)
    async with serving(user, folder, toml) as gateway:
        await ask(gateway, "keep", "mine")
        answer = await gateway.post("/agent/other/invoke", input=["where", ""])
        about = answer.json()["output"]
        assert about["here"] == []
        assert about["home"] == about["passwd"] == "/state"
        if user == "root":
            assert about["uid"] != (await ask(gateway, "where"))["uid"]


def check(user: str, folder: Path, toml: str) -> subprocess.CompletedProcess[str]:
    (folder / "check.toml").write_text(toml)
    return subprocess.run(
        as_user(
            user,
            *(sys.executable, "-m", "gateway", "--check", "--config", str(folder / "check.toml")),
        ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_the_place_of_state_is_one_gateways_and_shown_to_nobody(
    user: str, folder: Path
) -> None:
    toml = settings(folder, agent="state = true")
    async with serving(user, folder, toml) as gateway:
        await ask(gateway, "keep", "one")
        # A check may be made meanwhile.
        done = await trio.to_thread.run_sync(check, user, folder, toml)
        assert done.returncode == 0, done.stderr
        assert f'"folder": "{folder}/state/agents/keeper/home"' in done.stdout
        second = await trio.run_process(
            as_user(
                user,
                *(sys.executable, "-m", "gateway", "--port", "0"),
                *("--config", str(folder / "gateway.toml")),
            ),
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
        assert second.returncode == 1
        assert b"another gateway serves with" in second.stderr


def test_no_agent_is_shown_the_place_of_state_or_what_lies_in_it(tmp_path: Path) -> None:
    need_sandbox("root" if os.geteuid() == 0 else "user")
    folder = tmp_path / "deep"
    folder.mkdir()
    place = folder / "state"
    home = place / "agents/keeper/home"
    for name, path in (
        ("mounts_ro", folder),
        ("mounts_ro", place),
        ("mounts_rw", place),
        ("mounts_ro", home),
        ("cwd", home),
    ):
        value = f'"{path}"' if name == "cwd" else f'["{path}"]'
        config = tmp_path / "gateway.toml"
        toml = settings(folder, agent="state = true", sandbox=f"{name} = {value}")
        config.write_text(toml)
        loaded = load(config)
        with ExitStack() as stack:
            states = States(loaded.server, stack, serving=True)
            with pytest.raises(SandboxError, match=f"would show the agent {place}, which is"):
                LauncherMaker(states).make(loaded)


def test_with_root_an_agent_whose_mounts_can_be_written_does_without_a_place_of_state(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state").write_text("not a folder")
    config = tmp_path / "gateway.toml"
    config.write_text(settings(tmp_path, sandbox='mounts_rw = ["/srv"]'))
    with ExitStack() as stack:
        loaded = load(config)
        states = States(loaded.server, stack, serving=True)
        assert states.open(loaded.agents) == {}
        assert ("belongs to each worker alone" in caplog.text) == (os.geteuid() == 0)
        config.write_text(settings(tmp_path, agent="state = true"))
        with pytest.raises(SandboxError, match="state_dir: "):
            states.open(load(config).agents)
