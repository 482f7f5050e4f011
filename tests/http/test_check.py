"""`gateway --check`: what it finds is printed, and its exit code says whether all is well."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import msgspec
import trio

SECONDS = 60
"""For a check on a loaded machine; the silence of an agent without the handshake is 5 s of it."""


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


async def test_one_bad_agent_fails_the_check_and_hides_none_of_the_others() -> None:
    code, found, _ = await check(
        *("--agent", "echo=python -m worker.examples.echo"),
        *("--agent", "bad=false"),
        *("--agent", "silent=cat"),
        *("--sandbox", "off"),
    )
    assert code == 1
    assert [each["ok"] for each in found] == [True, False, True]
    assert found[1]["error"] == "the worker exited with status 1"
    assert found[2]["handshake"].startswith("none")
    assert [each["sandbox"]["level"] for each in found] == ["off"] * 3


async def test_what_is_printed_is_json_that_other_programs_read() -> None:
    done = await trio.run_process(
        [sys.executable, "-m", "gateway", "--check", "--agent", "bad=false"],
        capture_stdout=True,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    assert msgspec.json.decode(done.stdout)["agent"] == "bad"
