"""SIGHUP reads the configuration again: all of it is taken, or none; workers go on."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from gateway.composition.reload import differences
from gateway.config import AgentSettings, SandboxSettings, Settings
from tests.faults.scene import (
    PATIENCE,
    agent,
    back_to,
    footprint,
    scene,
    send_signal,
    served_by,
)
from tests.faults.test_helpers import proxies
from tests.harness import (
    START_SECONDS,
    RunningGateway,
    gone,
    is_alive,
    python_agent,
    reload,
    running_gateway,
)
from tests.http.raw import connected
from tests.sandbox.users import need_sandbox

AGENT = r"""
import json, os, socket, sys

def ask(target):
    port = int(os.environ["https_proxy"].rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as proxy:
        proxy.sendall(f"CONNECT {target} HTTP/1.1\r\n\r\n".encode())
        return proxy.recv(65536).decode().partition("\r\n")[0]

for line in sys.stdin:
    request = json.loads(line)
    said = ask(request["params"]["input"])
    print(json.dumps({"id": request["id"], "result": {"output": said}}), flush=True)
"""

# No request leaves this machine: of this address (RFC 1112, 4) nobody has a host.
TARGET = "240.0.0.1:443"
NOT_LISTED = f"HTTP/1.1 403 {TARGET} is not in the agent's network setting"
LISTED = "HTTP/1.1 403 240.0.0.1 is 240.0.0.1: it is no single host"


def settings_of(network: str, more: str = "") -> str:
    return f"""
        [agents.net]
        command = ['{sys.executable}', '-u', '-c', '''{AGENT}''']
        workers = {{ min = 1, max = 1 }}
        {more}
        [agents.net.sandbox]
        network = {network}
    """


async def asked(gateway: RunningGateway) -> str:
    answer = await gateway.post("/agent/net/invoke", input=TARGET)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["output"])


async def test_a_reload_changes_what_a_running_worker_may_reach(tmp_path: Path) -> None:
    need_sandbox("root" if os.geteuid() == 0 else "user")
    async with running_gateway(toml=settings_of('["a.invalid:443"]'), folder=tmp_path) as gateway:
        assert await asked(gateway) == NOT_LISTED
        before = await gateway.state("net")
        processes = proxies(gateway.pid)
        listed = settings_of(f'["a.invalid:443", "{TARGET}"]')
        await reload(gateway, tmp_path, listed, "reload: network changed agent=net")
        assert await asked(gateway) == LISTED
        now = await gateway.state("net")
        assert now["sandbox"]["network"] == ["a.invalid:443", TARGET]
        assert [each["pid"] for each in now["workers"]] == [
            each["pid"] for each in before["workers"]
        ]
        assert now["started"] == before["started"]
        assert proxies(gateway.pid) == processes
        assert now["network"]["refused"] == 2

        await reload(gateway, tmp_path, settings_of("false"), "reload: network changed")
        assert await asked(gateway) == NOT_LISTED


async def test_a_wrong_configuration_is_refused_as_a_whole(tmp_path: Path) -> None:
    need_sandbox("root" if os.geteuid() == 0 else "user")
    async with running_gateway(toml=settings_of('["a.invalid:443"]'), folder=tmp_path) as gateway:
        wrong = settings_of(f'["{TARGET}"]', "queue = -1")
        line = await reload(gateway, tmp_path, wrong, "reload: refused as a whole")
        assert "agents.net.queue" in line
        assert await asked(gateway) == NOT_LISTED
        (tmp_path / "gateway.toml").unlink()
        gateway.log.clear()
        send_signal(gateway, signal.SIGHUP)
        await gateway.logged("reload: refused as a whole.* No such file")
        assert await asked(gateway) == NOT_LISTED


async def test_no_reload_makes_a_secret_of_what_workers_are_shown(tmp_path: Path) -> None:
    need_sandbox("root" if os.geteuid() == 0 else "user")
    (settings := tmp_path / "settings").mkdir()
    (shown := tmp_path / "shown").mkdir()
    (shown / "token").write_text("sk-4711")
    toml = settings_of(f'false\nmounts_ro = ["{shown}"]')
    async with running_gateway(toml=toml, folder=settings) as gateway:
        other = f"""
            [agents.other]
            command = "cat"
            sandbox = {{ env = {{ X = "file:{shown}/token" }} }}
        """
        line = await reload(gateway, settings, toml + other, "reload: refused as a whole")
        assert f"agent 'net': {shown}/token is secret, and the agent is shown {shown}" in line

        (shown / "gateway.toml").write_text(toml)
        (settings / "gateway.toml").unlink()
        (settings / "gateway.toml").symlink_to(shown / "gateway.toml")
        line = await reload(gateway, settings, toml, "reload: refused as a whole")
        assert f"gateway.toml is secret, and the agent is shown {shown}" in line


async def test_what_a_reload_cannot_change_is_named_until_the_gateway_is_restarted(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as gateway:
        settings = tmp_path / "settings"
        toml = (settings / "gateway.toml").read_text()
        toml = toml.replace("[server]", '[server]\ndialects = ["native"]\nstate_dir = "/x"')
        for _ in range(2):
            line = await reload(gateway, settings, toml, "reload: needs a restart")
            assert "server.dialects, server.state_dir" in line
            await gateway.logged("reload: nothing has changed")
        await served_by(gateway, "good")


async def test_an_agent_that_cannot_be_started_has_all_of_a_reload_refused(tmp_path: Path) -> None:
    async with scene(tmp_path, level="off", other=agent("echo.py", "1")) as gateway:
        settings = tmp_path / "settings"
        toml = (settings / "gateway.toml").read_text()
        pid = (await gateway.state("other"))["workers"][0]["pid"]
        before = footprint(gateway)
        changed = toml.replace('"1"]', '"2"]') + "[agents.broken]\ncommand = 'false'\n"
        assert changed.count('"2"]') == 1
        line = await reload(gateway, settings, changed, "reload: refused as a whole")
        assert "agent 'broken' cannot be started: the worker exited with status 1" in line
        assert (await gateway.state("other"))["workers"][0]["pid"] == pid
        assert (await gateway.client.get("/agent/broken")).status_code == 404
        await back_to(gateway, before)
        line = await reload(gateway, settings, changed.replace("'false'", "'nowhere'"), "refused")
        assert "agents.broken.command: there is no command 'nowhere'" in line


async def test_a_stream_that_runs_ends_where_it_is_when_its_agent_is_replaced(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path, level="off", talker=agent("puppet.py")) as gateway:
        settings = tmp_path / "settings"
        toml = (settings / "gateway.toml").read_text()
        body = {"input": "speak", "stream": True, "context": {"conversation_id": "c"}}
        path = "/agent/talker/invoke"
        async with connected(gateway.port) as stream:
            await stream.request(path, body)
            await stream.until(rb'data: {"chunk":"word"}')
            [worker] = (await gateway.state("talker"))["workers"]
            changed = toml.replace("puppet.py", "../agents/puppet.py")
            assert changed != toml
            await reload(gateway, settings, changed, "reload: replaced agent=talker")
            [other] = (await gateway.state("talker"))["workers"]
            assert other["pid"] != worker["pid"]
            assert is_alive(worker["pid"])
            # The same conversation is still where it was; another one is not.
            answer = await gateway.client.post(path, json={**body, "input": "x", "stream": False})
            assert answer.headers["x-agent-session"] == "kept"
        assert await gone(worker["pid"])
        answer = await gateway.client.post(path, json={**body, "input": "x", "stream": False})
        assert answer.headers["x-agent-session"] == "lost"


async def test_settings_of_the_server_hold_from_a_reload_on(tmp_path: Path) -> None:
    async with scene(tmp_path, level="off") as gateway:
        settings = tmp_path / "settings"
        toml = (settings / "gateway.toml").read_text()
        named = {"host": "gateway.example"}
        assert (await gateway.client.get("/live", headers=named)).status_code == 421
        more = 'hosts = ["gateway.example"]\nmax_body = "100"\nlog_level = "debug"'
        toml = toml.replace("[server]", f"[server]\n{more}")
        await reload(gateway, settings, toml, "reload: done")
        assert (await gateway.client.get("/live", headers=named)).status_code == 200
        answer = await gateway.post("/agent/good/invoke", input="x" * 200)
        assert answer.status_code == 413


@pytest.mark.parametrize("count", [1, 20])
async def test_a_reload_without_a_configuration_file_changes_nothing(count: int) -> None:
    agents = {"echo": python_agent("echo.py")}
    async with running_gateway(agents, "--sandbox", "off") as gateway:
        for _ in range(count):
            send_signal(gateway, signal.SIGHUP)
        await gateway.logged("reload: nothing has changed")
        assert (await gateway.post("/agent/echo/invoke", input="x")).status_code == 200


async def test_a_gateway_ends_with_its_terminal() -> None:
    """The kernel sends SIGHUP to whatever had it."""
    command = [sys.executable, "-m", "gateway", "--port", "0", "--sandbox", "off"]
    ours, theirs = pty.openpty()
    gateway = await trio.lowlevel.open_process(
        # setsid(1) makes the terminal on its stdin the one that controls the session.
        ["setsid", "--ctty", *command, "--agent", "x=cat"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    os.close(theirs)
    assert gateway.stdout is not None
    assert gateway.stderr is not None
    try:
        with trio.fail_after(START_SECONDS):
            await until_said(gateway.stdout, b"listening on ")
        with trio.fail_after(PATIENCE):
            gateway.send_signal(signal.SIGHUP)  # a person's: the terminal is still there
            await until_said(gateway.stderr, b"reload: nothing has changed")
            os.close(ours)
            await until_said(gateway.stderr, b"SIGHUP: draining")
            assert await gateway.wait() == 0
    finally:
        gateway.kill()
        await gateway.wait()
        await gateway.stdout.aclose()
        await gateway.stderr.aclose()


async def until_said(stream: trio.abc.ReceiveStream, words: bytes) -> None:
    said = b""
    async for more in stream:
        said += more
        if words in said:
            return
    pytest.fail(f"it ended, and had said {said!r}")


def test_differences_are_named_by_their_path_and_without_their_values() -> None:
    def settings(**changes: object) -> Settings:
        sandbox = SandboxSettings(env={"KEY": str(changes.get("key", "x"))})
        agents = {"a": AgentSettings(command="true", sandbox=sandbox), **changes.get("more", {})}  # type: ignore[dict-item]
        return Settings(agents=agents)

    assert list(differences(settings(), settings())) == []
    assert list(differences(settings(), settings(key="secret"))) == ["agents.a.sandbox.env.KEY"]
    more = {"b": AgentSettings(command="true")}
    assert list(differences(settings(), settings(more=more))) == ["agents.b (added)"]
    assert list(differences(settings(more=more), settings())) == ["agents.b (removed)"]
