"""One gateway that many tests share, because starting one takes longer than most of them.

It runs on a trio of its own, in a thread. Tests that end it, or that read its log, start their own.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from tests.harness import EXAMPLES, GatewayInThread, gateway_in_thread

AGENTS = Path(__file__).parent / "agents"
SCRIPTED = [sys.executable, str(AGENTS / "scripted.py")]

Shared = GatewayInThread
"""Where the shared gateway is."""


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """A gateway with the agents that its TOML names."""
    with gateway_in_thread(shared_toml(), tmp_path_factory.mktemp("shared")) as gateway:
        yield gateway


ONE_LINER = (
    "jq -c --unbuffered '. as $r"
    " | try {id, result: {output: (.params.input | ascii_upcase)}}"
    " catch {id: $r.id, error: {code: -32602, message: .}}'"
)
"""The design's smallest agent."""


def shared_toml() -> str:
    """`scripted` does what its input says; the others are examples, or each lack something."""
    others = {"plain": f"{sys.executable} {EXAMPLES / 'plain.py'}"}
    if shutil.which("jq"):
        others |= {"shell": f"sh {EXAMPLES / 'echo.sh'}", "upper": ONE_LINER}
    if shutil.which("node"):
        others["node"] = f"node {EXAMPLES / 'echo.mjs'}"
    words = ", ".join(f"'{word}'" for word in SCRIPTED)
    return (
        "".join(
            f"[agents.{name}]\ncommand = {json.dumps(command)}\n"
            for name, command in others.items()
        )
        + f"""
        [server]
        max_body = "1M"

        [defaults]
        workers = {{ min = 1, max = 1 }}
        restart = {{ failures = 1000, backoff = 0 }}

        [agents.scripted]
        command = [{words}]

        [agents.echo]
        command = "python -m worker.examples.echo"

        [agents.talker]
        command = "python -m worker.examples.streaming_chat"

        [agents.invoke-only]
        command = [{words}, "invoke"]

        [agents.able]
        command = [{words}, "+tools", "+asks"]

        [agents.hasty]
        command = [{words}]
        clocks = {{ first = 0.2, idle = 0.2, cancel = 1 }}

        [agents.silenced]
        command = [{words}]
        workers = {{ min = 0, max = 1 }}
        clocks = {{ idle = 0.2, cancel = 1 }}

        [agents.cold]
        command = [{words}]
        workers = {{ min = 0, max = 1 }}

        [agents.cold-able]
        command = [{words}, "+tools", "+asks"]
        workers = {{ min = 0, max = 1 }}

        [agents.narrow]
        command = [{words}]
        concurrency = 1
        queue = 0

        [agents.broken]
        command = "python -c 'import sys; sys.exit(7)'"
        workers = {{ min = 0, max = 1 }}
        restart = {{ failures = 1, cooldown = 3600 }}
    """
    )


@pytest.fixture
async def client(shared: Shared) -> AsyncIterator[httpx.AsyncClient]:
    """An ordinary client of the shared gateway."""
    async with httpx.AsyncClient(base_url=shared.url, timeout=30, verify=False) as client:
        yield client
