"""`gateway --check`: what it finds is printed, and its exit code says whether all is well."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import trio

SECONDS = 60
"""For a check on a loaded machine."""


async def check(*arguments: str) -> tuple[int, list[dict[str, Any]], str]:
    """The exit code, the objects that were printed, and stderr."""
    with trio.fail_after(SECONDS):
        done = await trio.run_process(
            [sys.executable, "-m", "gateway", "--check", *arguments],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    found, decoder = [], json.JSONDecoder()
    text = done.stdout.decode().strip()
    while text:
        value, end = decoder.raw_decode(text)
        found.append(value)
        text = text[end:].strip()
    return done.returncode, found, done.stderr.decode()


async def test_an_agent_that_speaks_the_handshake_is_found_with_its_handlers() -> None:
    code, [found], _ = await check("--agent", "echo=python -m worker.examples.echo")
    assert code == 0
    assert found["agent"] == "echo"
    assert found["ok"] is True
    assert found["handshake"] == "ready"
    assert found["handlers"] == ["invoke", "chat"]
    assert found["sandbox"]["level"] == "strict"
    assert found["sandbox"]["limits"]["tmp"]["enforced"] is True


async def test_one_bad_agent_fails_the_check_and_hides_none_of_the_others(tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text('[agents.silent]\ncommand = "cat"\nclocks = { start = 1 }\n')
    code, found, _ = await check(
        *("--agent", "echo=python -m worker.examples.echo"),
        *("--agent", "bad=false"),
        *("--agent", "chatty=sh -c 'echo hello; cat'"),
        *("--config", str(config)),
        *("--sandbox", "off"),
    )
    by_name = {each["agent"]: each for each in found}
    assert code == 1
    assert {name: each["ok"] for name, each in by_name.items()} == {
        "silent": True,
        "echo": True,
        "bad": False,
        "chatty": False,
    }
    assert by_name["bad"]["error"] == "the worker exited with status 1"
    assert by_name["silent"]["handshake"].startswith("none (silent for 1 s)")
    assert by_name["silent"]["not_found_out"].startswith("whether it has started")
    assert by_name["echo"]["not_found_out"].startswith("whether its handlers work")
    assert [each["sandbox"]["level"] for each in found] == ["off"] * 4


async def test_an_agent_that_fails_after_a_long_silence_is_not_taken_for_one_that_serves() -> None:
    """A silence of 5 s once counted as an agent without the handshake."""
    program = "import time; time.sleep(6); import no_such_module"
    code, [found], stderr = await check("--agent", f"slow=python -c '{program}'")
    assert code == 1
    assert found["ok"] is False
    assert found["error"].startswith(
        "the worker exited with status 1: a module that it needs is not"
    )
    assert found["stderr"][-1] == "ModuleNotFoundError: No module named 'no_such_module'"
    assert "agent 'slow' says nothing: waiting for 55 s more" in stderr


async def test_what_is_printed_is_json_that_other_programs_read() -> None:
    done = await trio.run_process(
        [sys.executable, "-m", "gateway", "--check", "--agent", "bad=false"],
        capture_stdout=True,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    assert msgspec.json.decode(done.stdout)["agent"] == "bad"
