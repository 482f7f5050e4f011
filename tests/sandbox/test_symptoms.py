"""Each limit names itself: met by a process that dies of it and by a handler that fails."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from gateway.sandbox import symptoms
from gateway.sandbox.symptoms import diagnose
from tests.conftest import need
from tests.harness import running_gateway
from tests.sandbox.users import need_sandbox

AGENT = Path(__file__).with_name("limits_agent.py")

TOML = f"""
[agents.limits]
command = ["{sys.executable}", "{AGENT}"]
[agents.limits.sandbox]
pids = 20
nofile = 64
tmp = "4M"
fsize = "1M"
"""

LIMITS = {
    "tmp": "tmp",
    "nofile": "nofile",
    "pids": "pids",
    "fsize": "fsize",
    "network": "network",
    "read_only": "mounts",
}


async def test_a_limit_that_an_agent_meets_is_named_with_its_setting(tmp_path: Path) -> None:
    need_sandbox("root" if os.geteuid() == 0 else "user")

    async with running_gateway(toml=TOML, folder=tmp_path) as gateway:
        for wish, limit in LIMITS.items():
            for dies in (False, True):
                answer = await gateway.post(
                    "/agent/limits/invoke", input={"limit": wish, "dies": dies}
                )
                error = answer.json()["error"]
                assert error["type"] == ("worker_crashed" if dies else "agent_error")
                assert error.get("limit") == limit, error
                assert error["setting"] in error["message"]
                met = (await gateway.state("limits"))["last_limit"]
                assert (met["limit"], met["setting"]) == (limit, error["setting"])
            last = (await gateway.state("limits"))["last_failure"]["message"]
            assert error["setting"] in last
            await gateway.logged(re.escape(error["setting"]))


FORGER = r"""
[ "$1" = served ] && read -r line
[ "$1" = served ] && id=${line#*'"id":'} && id=${id%%,*} &&
    echo '{"jsonrpc":"2.0","id":'$id',"result":{"output":1}}'
[ "$1" = unread ] || read -r line
echo 'bwrap: No permissions to create new namespace' >&2
exit 1
"""


async def test_a_worker_that_has_run_cannot_have_its_end_taken_for_the_sandboxs(
    tmp_path: Path,
) -> None:
    """Else its author could have the operator told to weaken the machine."""
    need_sandbox("root" if os.geteuid() == 0 else "user")
    os.chmod(tmp_path, 0o755)
    (tmp_path / "forger.sh").write_text(FORGER)
    (tmp_path / "settings").mkdir()
    toml = "".join(
        f"[agents.{name}]\ncommand = ['sh', '{tmp_path}/forger.sh', '{name}']\n"
        for name in ("served", "silent", "unread")
    )
    async with running_gateway(toml=toml, folder=tmp_path / "settings") as gateway:
        assert (await gateway.post("/agent/served/invoke", input=1)).json()["output"] == 1
        for agent in ("served", "silent"):
            answer = await gateway.post(f"/agent/{agent}/invoke", input=1)
            assert answer.json()["error"]["message"] == "the worker exited with status 1"
        # The control: of one that may not have run, it is an explanation that may be true.
        answer = await gateway.post("/agent/unread/invoke", input=1)
        assert "seccomp=unconfined" in answer.json()["error"]["message"]


async def test_node_keeps_its_heap_below_the_memory_limit(tmp_path: Path) -> None:
    need_sandbox("root" if os.geteuid() == 0 else "user")
    need(shutil.which("node"), "node")
    script = tmp_path / "heap.mjs"
    script.write_text(
        "import v8 from 'node:v8'; import readline from 'node:readline';\n"
        "const most = v8.getHeapStatistics().heap_size_limit;\n"
        "readline.createInterface({input: process.stdin}).on('line', (line) => console.log(\n"
        "  JSON.stringify({id: JSON.parse(line).id, result: {output: most}})));\n"
    )
    os.chmod(tmp_path, 0o755)
    settings = tmp_path / "settings"
    settings.mkdir()
    toml = f"""
[defaults]
command = ["node", "{script}"]
[defaults.sandbox]
memory = "256M"
[agents.told]
[agents.own.sandbox.env]
NODE_OPTIONS = "--max-old-space-size=64"
"""
    async with running_gateway(toml=toml, folder=settings) as gateway:
        told = (await gateway.post("/agent/told/invoke", input=0)).json()["output"]
        own = (await gateway.post("/agent/own/invoke", input=0)).json()["output"]
    assert 100 << 20 < told < 256 << 20
    assert own < 128 << 20


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("OSError: [Errno 28] No space left on device", symptoms.TMP),
        ("Error: EMFILE: too many open files, open 'x'", symptoms.NOFILE),
        ("RuntimeError: can't start new thread", symptoms.PIDS),
        ("sh: 1: Cannot fork", symptoms.PIDS),
        ("OSError: [Errno 27] File too large", symptoms.FSIZE),
        ("FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory",
         symptoms.OUT_OF_MEMORY),
        ("httpx.ConnectError: [Errno -3] Temporary failure in name resolution",
         symptoms.NO_NETWORK),
        ("Error: getaddrinfo EAI_AGAIN api.example.com", symptoms.NO_NETWORK),
        ("curl: (6) Could not resolve host: api.example.com", symptoms.NO_NETWORK),
        ("OSError: [Errno 30] Read-only file system: '/usr/new'", symptoms.READ_ONLY),
        ("ModuleNotFoundError: No module named 'x'", None),
        ("ValueError: no", None),
    ],
)  # fmt: skip
def test_the_words_of_common_programs_are_known(
    said: str, expected: symptoms.Diagnosis | None
) -> None:
    assert diagnose(["Traceback", said], network=False) == expected


def test_an_agent_that_has_a_network_is_told_of_the_list() -> None:
    said = "getaddrinfo ENOTFOUND api.example.com"
    assert diagnose([said], network=True) == symptoms.NOT_ALLOWED


def test_a_file_that_is_missing_is_the_sandboxs_business_only_at_the_start() -> None:
    said = "sh: 1: exec: python3.9: not found"
    assert diagnose([said], network=False, started=False) == symptoms.NOT_VISIBLE
    assert diagnose([said], network=False) is None


def test_a_module_that_is_not_installed_is_told_with_what_to_name() -> None:
    said = "worker: importing agent.py failed: ModuleNotFoundError: No module named 'pydantic_ai'"
    assert diagnose(["Traceback", said], network=False, started=False) == symptoms.NOT_INSTALLED
    assert diagnose([said], network=False) is None
