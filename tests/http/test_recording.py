"""What a gateway records is asked again of a worker: the whole way, through real HTTP."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import trio

from tests.harness import one_process, running_gateway

AGENT = """
from worker import Agent

agent = Agent("words")


@agent.invoke
def shout(text):
    return text.upper()


@agent.chat
async def talk(messages):
    for word in messages[-1]["content"].split():
        yield word + " "
"""


def recorded(folder: Path) -> dict[str, Path]:
    """The recordings, by request."""
    found = {}
    for path in folder.iterdir():
        head, *_ = path.read_text().splitlines()
        found[json.loads(head)["request_id"]] = path
    return found


def entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def replay(*files: Path, agent: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-c", "from worker.command import script; script()", "replay"),
            *(*map(str, files), "--", sys.executable, "-m", "worker", f"{agent}:agent"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@one_process("a run is left to hosts, and the only one ends")
async def test_requests_streams_and_runs_are_recorded_and_replayed(tmp_path: Path) -> None:
    agent, folder = tmp_path / "words.py", tmp_path / "recordings"
    agent.write_text(AGENT)
    command = {"words": [sys.executable, "-m", "worker", f"{agent}:agent"]}
    said = [{"role": "user", "content": "one two three"}]
    async with running_gateway(command, "--record", str(folder)) as gateway:
        await gateway.logged("RECORDING every request")

        async def ask(path: str, request_id: str, **body: Any) -> int:
            more = {"Prefer": "respond-async"} if request_id == "run" else {}
            headers = {"X-Request-Id": request_id, **more}
            answer = await gateway.client.post(path, json=body, headers=headers)
            return answer.status_code

        assert await ask("/agent/words/invoke", "invoke", input="hello") == 200
        assert await ask("/agent/words/chat", "stream", messages=said, stream=True) == 200
        assert await ask("/agent/words/invoke", "failed", input=5) >= 400
        assert await ask("/agent/words/invoke", "run", input="later") == 202
    found = recorded(folder)
    assert found.keys() == {"invoke", "stream", "failed", "run"}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in found.values())
    assert [entry.get("end") for entry in entries(found["run"])][-1] == "answered"
    header = entries(found["invoke"])[0]
    assert (header["agent"], header["command"]) == ("words", command["words"])

    files = sorted(found.values())
    same = await trio.to_thread.run_sync(lambda: replay(*files, agent=agent))
    assert same.returncode == 0, same.stdout + same.stderr
    assert same.stdout.endswith("4 same, 0 differ\n")

    agent.write_text(AGENT.replace("upper", "lower").replace('word + " "', 'word + "-"'))
    other = await trio.to_thread.run_sync(lambda: replay(*files, agent=agent))
    assert other.returncode == 1
    assert '-output: "HELLO"\n    +output: "hello"' in other.stdout
    assert '-text: "one two three "\n    +text: "one-two-three-"' in other.stdout
    assert other.stdout.endswith("0 same, 4 differ\n")  # its error names what it called


@one_process("front and host reload, each in its time")
async def test_agents_that_a_reload_brings_are_recorded_too(tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    command = f"{sys.executable} -m worker worker.examples.echo:agent"
    toml = f'[server]\nrecord = "{folder}"\n[agents.first]\ncommand = "{command}"\n'
    async with running_gateway(None, toml=toml, folder=tmp_path) as gateway:
        await gateway.post("/agent/first/invoke", input=1)
        # What the command refers to may be a secret, and is in no recording.
        second = toml + f'queue = 7\n[agents.second]\ncommand = "env WAY=${{PATH}} {command}"\n'
        await trio.Path(tmp_path / "gateway.toml").write_text(second)
        gateway.process.send_signal(signal.SIGHUP)
        await gateway.logged("reload: done")
        await gateway.post("/agent/first/invoke", input=2)
        await gateway.post("/agent/second/invoke", input=3)
    found = [entries(path) for path in sorted(folder.iterdir())]
    said = [(lines[0]["agent"], lines[1]["to"]["params"]["input"]) for lines in found]
    assert said == [("first", 1), ("first", 2), ("second", 3)]
    assert all(lines[-1]["end"] == "answered" for lines in found)
    assert found[2][0]["command"][:2] == ["env", "WAY=${PATH}"]


async def test_an_agent_never_sees_the_recordings(tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    folder.mkdir(mode=0o700)
    (folder / "20260131T120000.000000Z-1-a-r.jsonl").write_text("what was said")
    agent = tmp_path / "looks.py"
    agent.write_text(
        "import os\nfrom worker import Agent\nagent = Agent('looks')\n"
        "@agent.invoke\ndef look(path):\n"
        "    return [os.path.exists(path), os.path.exists(__file__)]\n"
    )
    command = {"looks": [sys.executable, "-m", "worker", f"{agent}:agent"]}
    async with running_gateway(command, "--record", str(folder)) as gateway:
        path = str(folder / "20260131T120000.000000Z-1-a-r.jsonl")
        answer = await gateway.post("/agent/looks/invoke", input=path)
    assert answer.json() == {"output": [False, True]}


async def test_a_folder_that_others_can_read_stops_the_start(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o755)
    done = await trio.run_process(
        [sys.executable, "-m", "gateway", "--agent", "a=cat", "--record", str(tmp_path)],
        capture_stderr=True,
        check=False,
    )
    assert done.returncode == 2
    assert b"server.record: " in done.stderr.splitlines()[-1]


async def test_a_request_whose_worker_dies_ends_its_recording(tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    dies = [sys.executable, "-c", "import sys; sys.stdin.readline()"]
    arguments = ("--sandbox", "off", "--record", str(folder))
    async with running_gateway({"dies": dies}, *arguments) as gateway:
        answer = await gateway.post("/agent/dies/invoke", input=1)
        assert answer.status_code == 501
    [path] = folder.iterdir()
    assert entries(path)[-1]["end"] == "worker ended"


async def test_what_a_command_refers_to_is_in_no_recording(tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    program = "import sys; [print(line) for line in sys.stdin]"
    toml = f"""
        [server]
        record = "{folder}"
        sandbox = "off"
        [agents.a]
        command = ["{sys.executable}", "-c", "{program}", "--key=${{SECRET}}"]
    """
    async with running_gateway(
        None, toml=toml, folder=tmp_path, env={**os.environ, "SECRET": "sk-4711"}
    ) as gateway:
        await gateway.post("/agent/a/invoke", input=1)
    [path] = recorded(folder).values()
    assert entries(path)[0]["command"][-1] == "--key=${SECRET}"
    assert "4711" not in path.read_text()
