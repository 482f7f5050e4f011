"""The command: what it says when it serves, and the one line that it says when it cannot."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from tests.conftest import need
from tests.harness import running_gateway

ECHO = "echo=python -m worker.examples.echo"
SECONDS = 60
"""For a command that fails before it starts anything."""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def invoke(*arguments: str) -> Result:
    """The command in this process, which is faster, for what ends before anything is started."""
    return CliRunner().invoke(main, arguments, prog_name="gateway")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["no agent to serve", "--agent NAME=COMMAND"]),
        (["--agent", "echo"], ["--agent 'echo'", "expected NAME=COMMAND"]),
        (["--agent", "=cmd"], ["agent name ''", "letters, digits, '_' and '-'"]),
        (["--agent", "a b=cmd"], ["'a b'", "letters, digits, '_' and '-'"]),
        (["--agent", "a/b=cmd"], ["'a/b'", "letters, digits, '_' and '-'"]),
        (["--agent", "a="], ["agents.a", "command is empty"]),
        (["--agent", "a='x"], ["agents.a", "quotation"]),
        (["--agent", ECHO, "--agent", ECHO], ["--agent echo", "twice"]),
        (["--agent", ECHO, "--port", "70000"], ["server.port", "65535"]),
        (["--config", "/no/such.toml"], ["/no/such.toml", "No such file"]),
    ],
)
def test_settings_that_cannot_be_used_are_one_clear_line(
    arguments: list[str], words: list[str]
) -> None:
    ended = invoke(*arguments)
    assert ended.exit_code == 2
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith("gateway: ")
    assert [word for word in words if word not in line] == [], line


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("[agents.a\n", ["not valid TOML", "line 1"]),
        ("[agents.a]\ncommand = 'x'\nqueues = 1\n", ["agents.a", "unknown key", "queues"]),
        ("[servers]\n", ["servers", "unknown table"]),
        ("[agents.a]\nqueue = 1\n", ["agents.a", "no command"]),
    ],
)
def test_a_file_that_cannot_be_used_is_one_clear_line(
    tmp_path: Path, toml: str, words: list[str]
) -> None:
    path = tmp_path / "broken.toml"
    path.write_text(toml)
    ended = invoke("--config", str(path))
    assert ended.exit_code == 2
    (line,) = ended.stderr.splitlines()
    assert [word for word in words if word not in line] == [], line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--agent", "a=no-such-program -x"], ["agents.a", "not found", "'no-such-program'"]),
        (["--agent", "a=/no/such/program"], ["agents.a", "not found", "'/no/such/program'"]),
        (["--agent", ECHO, "--host", "no.such.host.invalid"], ["no.such.host.invalid"]),
        (["--agent", ECHO, "--host", "203.0.113.7"], ["cannot listen on 203.0.113.7"]),
    ],
)
def test_what_cannot_be_started_is_one_clear_line(arguments: list[str], words: list[str]) -> None:
    ended = run(*arguments, "--port", "0")
    assert ended.returncode in {1, 2}
    assert ended.stdout == ""
    *log, last = ended.stderr.splitlines()
    assert last.startswith("gateway: ")
    assert [word for word in words if word not in last] == [], last
    assert not any(line.startswith(("Traceback", " ")) for line in log), ended.stderr


def test_a_port_in_use_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run("--agent", ECHO, "--port", str(port))
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == (
        f"gateway: cannot listen on 127.0.0.1:{port}: the port is in use;"
        " --host and --port, or [server] host and port, say where"
    )
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("option", ["--no-such", "--port=x", "--log-level=loud", "--sandbox=some"])
def test_a_wrong_option_is_named(option: str) -> None:
    ended = invoke(option)
    assert ended.exit_code == 2
    assert option.partition("=")[0] in ended.stderr


def test_watching_a_configuration_needs_one() -> None:
    ended = invoke("--agent", ECHO, "--watch")
    assert (ended.exit_code, "expected --config" in ended.stderr) == (2, True)


def test_help_and_version_are_there() -> None:
    shown = invoke("--help")
    assert shown.exit_code == 0
    assert "--agent NAME=COMMAND" in shown.stdout
    assert invoke("--version").stdout.startswith("gateway, version ")


async def test_stdout_is_the_one_line_that_says_where_it_listens() -> None:
    async with running_gateway({"echo": ECHO.partition("=")[2]}) as gateway:
        assert gateway.port > 0  # the line was read by the harness
        await gateway.post("/agent/echo/invoke", input=1)
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.stdout is not None
        assert await gateway.process.stdout.receive_some() == b""
        await gateway.process.wait()


def test_the_command_finds_its_own_environment_without_its_being_activated() -> None:
    script = Path(sys.executable).parent / "gateway"
    need(script.exists(), "the project is not installed: there is no console script")
    # `python` is to be the one beside the script, whatever PATH says.
    process = subprocess.Popen(
        [script, "--agent", ECHO, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PATH": "/usr/bin:/bin", "HOME": os.environ.get("HOME", "/")},
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().decode().split()[-1]
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as client:
            body = b'{"input": "hello"}'
            client.sendall(
                b"POST /agent/echo/invoke HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            answer = b"".join(iter(lambda: client.recv(65536), b""))
        assert answer.endswith(b'{"output":"hello"}')
    finally:
        process.terminate()
        assert process.wait(SECONDS) == 0
        process.stdout.close()


async def test_ipv6_is_listened_on_and_named_as_a_url_needs_it() -> None:
    need(socket.has_ipv6 and _has_loopback_6(), "this machine has no IPv6 loopback")
    async with running_gateway({"echo": ECHO.partition("=")[2]}, "--host", "::1") as gateway:
        assert gateway.url.startswith("http://[::1]:")
        assert (await gateway.client.get("/live")).status_code == 200


def _has_loopback_6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


async def test_at_the_start_it_says_what_is_served_and_names_requests_in_the_log() -> None:
    async with running_gateway({"echo": ECHO.partition("=")[2]}) as gateway:
        await gateway.logged("agent=echo")
        headers = {"X-Request-Id": "find-me"}
        await gateway.client.post("/agent/echo/invoke", json={}, headers=headers)
        assert "400 invalid_request" in await gateway.logged("request=find-me")
