"""`gateway --check` says what an agent's workers can see, reach and exhaust, as it is here."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.sandbox.words import _reach, in_words
from tests.sandbox.users import PROJECT, as_user, available_users, need_sandbox

CONFIG = """
[agents.plain]
command = "sh {folder}/project/agent.sh"

[agents.allowed]
command = "sh {folder}/project/agent.sh"

[agents.allowed.sandbox]
network = ["api.example.com:443"]
mounts_rw = ["{folder}/work"]
mounts_ro = ["{folder}/project/.env"]
env = {{ KEY = "word" }}
"""
AGENT = """
echo '{"jsonrpc":"2.0","method":"ready","params":{"protocol":1,"handlers":["invoke"]}}'
cat >/dev/null
"""


@dataclass
class Checked:
    """What `gateway --check` printed for a user, by agent, and the folder of all files."""

    user: str
    folder: str
    agents: dict[str, dict[str, Any]]

    def words(self, agent: str) -> tuple[str, str, str]:
        words = self.agents[agent]["in_words"]
        assert list(words) == ["can see", "can reach", "can exhaust"]
        see, reach, exhaust = ("\n".join(sentences) for sentences in words.values())
        return see, reach, exhaust


def check(user: str, *options: str) -> dict[str, dict[str, Any]]:
    done = subprocess.run(
        as_user(user, sys.executable, "-m", "gateway", "--check", *options),
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    objects = done.stdout.replace("}\n{", "}\0{").split("\0")
    return {each["agent"]: each for each in map(json.loads, objects)}


@pytest.fixture(scope="module", params=available_users())
def checked(request: pytest.FixtureRequest) -> Iterator[Checked]:
    need_sandbox(request.param)
    with tempfile.TemporaryDirectory(prefix="words-") as folder:
        for each in ("", "project", "work", "work/.git"):
            Path(folder, each).mkdir(exist_ok=True)
            Path(folder, each).chmod(0o777)
        Path(folder, "project/.env").write_text("KEY=word")
        Path(folder, "project/agent.sh").write_text(AGENT)
        config = Path(folder, "gateway.toml")
        config.write_text(CONFIG.format(folder=folder))
        yield Checked(request.param, folder, check(request.param, "--config", str(config)))


def test_an_agent_with_the_defaults_is_described_as_it_is_held(checked: Checked) -> None:
    see, reach, exhaust = checked.words("plain")
    project = f"{checked.folder}/project"
    assert f"for this agent: {project}" in see
    assert f"they cannot open, because they look like secrets: {project}/.env." in see
    assert "CHANGE" not in see
    assert "not the gateway's configuration" in see
    assert reach.startswith("No network: ")
    own = "runs as a user of its own" in reach
    assert own or "as the gateway's own user, but shut in" in reach
    assert own or checked.user != "root"
    memory = checked.agents["plain"]["sandbox"]["limits"]["memory"]
    if memory["by"] == "watch":
        assert "Memory: 1 GiB. Not held by the kernel here" in exhaust
        assert "the gateway looks several times a second" in exhaust
    else:
        assert f"Memory: 1 GiB. Held by the kernel ({memory['by']})." in exhaust
    assert "Processors: NOT limited, since no limit is set" in exhaust
    assert "Processes and threads: 256. Held by the kernel (rlimit)." in exhaust
    assert "The disk: they can write nothing to it." in exhaust


def test_what_was_allowed_is_said(checked: Checked) -> None:
    see, reach, exhaust = checked.words("allowed")
    folder = checked.folder
    assert f"read AND CHANGE: {folder}/work. What a worker leaves there stays" in see
    assert f"read and not change {folder}/work/.git, because other programs" in see
    assert f"look like secrets and that they CAN read: {folder}/project/.env." in see
    assert " KEY, " in see
    assert " word" not in see
    assert "these hosts: api.example.com:443, through a process" in reach
    assert "Never this machine itself" in reach
    assert f"The disk: NOT limited. They can fill the one that {folder}/work is on" in exhaust


def test_without_a_sandbox_the_words_are_plain() -> None:
    words = in_words({"level": "off"}, workers=4)
    assert list(words) == ["can see", "can reach", "can exhaust"]
    assert all(each[0].startswith("There is no sandbox: ") for each in words.values())


LIMITS = {"memory": 1 << 30, "cpu": 0.5, "pids": 256, "tmp": 1 << 20, "nofile": 64, "fsize": None}
NOT_HELD = {"enforced": False, "reason": "no group"}


def described(**changed: Any) -> dict[str, Any]:
    limits = {
        name: {"value": value, "enforced": True, "by": "rlimit"} for name, value in LIMITS.items()
    }
    lists: dict[str, Any] = {key: [] for key in ("masked", "secrets_shown", "not_shown")}
    whole = {
        "level": "strict",
        "user": "an own user id",
        "network": False,
        "limits": limits,
        "mounts": {},
        "system": ["/usr"],
        "env": ["PATH"],
        "busy_cpus": "cgroup v2",
        **lists,
    }
    return whole | changed


def exhaust(**limits: Any) -> str:
    whole = described()
    whole["limits"] |= limits
    return "\n".join(in_words(whole, workers=3)["can exhaust"])


def test_a_limit_that_is_not_held_is_called_not_limited_with_the_reason() -> None:
    said = exhaust(memory={"value": 1 << 30, **NOT_HELD}, cpu={"value": 2.0, **NOT_HELD})
    assert "Memory: NOT limited. 1 GiB is set, but cannot be held here (no group)" in said
    assert "Processors: NOT limited. 2 of them at a time is set, but" in said
    assert "There can be 3 workers at once." in said


def test_what_a_control_group_shares_is_said_to_be_the_kernels() -> None:
    assert "it has, and for half of the gateway. Held by the kernel (cgroup v2)." in exhaust()
    words = in_words(described(busy_cpus="watch"), workers=1)["can exhaust"]
    assert any("gets a lower priority once the gateway has noticed" in each for each in words)


def test_what_is_shared_with_the_gateways_user_is_listed_with_the_reason() -> None:
    shared = {
        "shared_limits": ["epoll watches: all of them"],
        "why_shared": "there is no newuidmap",
    }
    *_, why, what = in_words(described(**shared), workers=1)["can exhaust"]
    assert why.endswith("that user's other programs (since there is no newuidmap):")
    assert what == "Shared: epoll watches: all of them."


def test_a_network_of_everything_is_called_that() -> None:
    words = in_words(described(network=["*:*"]), workers=1)
    assert words["can reach"][0].startswith("By network, every host on the internet, through")


def test_a_writable_disk_without_a_limit_on_files_is_said_to_be_without() -> None:
    words = in_words(described(mounts={"/work": "read-write"}), workers=1)
    said = words["can exhaust"][-1]
    assert "one file may have any size, but their number is not limited." in said


def test_what_outlives_workers_is_said_with_whose_it_is_and_how_much_it_may_be() -> None:
    state = {
        "home": "/state",
        "folder": "/var/lib/x",
        "of": "the agent",
        "ttl": None,
        "size": {"value": None, "enforced": False, "reason": "no limit was set"},
    }
    user = "an own user id for the agent, always the same"
    pids = {"pids": {"value": 256, "enforced": True, "by": "rlimit", "of_all_workers": 1024}}
    whole = described(state=state, user=user)
    whole["limits"] |= pids
    words = in_words(whole, workers=4)
    see, reach, exhausted = ("\n".join(each) for each in words.values())
    assert (
        "A folder for the agent, /state, that they can read and change, and that stays when they "
        "end. On this machine: /var/lib/x." in see
    )
    assert f"They run as {user}, who owns on this machine what they have left behind" in reach
    assert "1024 in all, which one worker can take from the others" in exhausted
    assert "The disk that /var/lib/x is on: NOT limited, since no size is set." in exhausted
    assert "they can write nothing" not in exhausted
    limited = {
        **state,
        "of": "each conversation",
        "ttl": 3600.0,
        "size": {"value": 1 << 30, "enforced": True, "by": "watch"},
    }
    see, _, exhausted = (
        "\n".join(each) for each in in_words(described(state=limited), workers=1).values()
    )
    assert "stays for 3600 s after its last use when they end; a worker sees only that of" in see
    assert "is on: 1 GiB for each folder, and workers that write more are ended" in exhausted


def test_services_are_named_with_what_they_allow() -> None:
    service = {"url": "https://api.example.com/v1", "allow": ["GET /models", "POST /chat"]}
    said = " ".join(_reach({"network": False, "services": {"llm": service}, "user": "an own"}))
    assert "The service llm at https://api.example.com/v1 (" in said
    assert "GET /models" in said
    assert "cannot read the key" in said
    assert "No other network" in said
