"""One gateway that many tests share, because starting one takes longer than most of them.

It runs on a trio of its own, in a thread. Tests that end it, or that read its log, start their own.
"""

from __future__ import annotations

import json
import queue
import shutil
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.harness import EXAMPLES, running_gateway

AGENTS = Path(__file__).parent / "agents"
SCRIPTED = [sys.executable, str(AGENTS / "scripted.py")]

START_SECONDS = 60
"""For the shared gateway to be there, on a loaded machine."""


class Shared:
    """Where the shared gateway is."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.port = int(url.rpartition(":")[2])


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """A gateway with the agents that its TOML names."""
    folder = tmp_path_factory.mktemp("shared")
    found: queue.Queue[Any] = queue.Queue()

    async def serve() -> None:
        stop = trio.Event()
        token = trio.lowlevel.current_trio_token()
        async with running_gateway(toml=shared_toml(), folder=folder) as gateway:
            found.put((gateway.url, token, stop))
            await stop.wait()

    failure: list[BaseException] = []

    def run() -> None:
        try:
            trio.run(serve)
        except BaseException as error:
            failure.append(error)
            found.put(error)

    thread = threading.Thread(target=run)
    thread.start()
    started = found.get(timeout=START_SECONDS)
    if isinstance(started, BaseException):
        raise started
    url, token, stop = started
    yield Shared(url)
    token.run_sync_soon(stop.set)
    thread.join(timeout=START_SECONDS)
    if failure:
        raise failure[0]


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

        [agents.hasty]
        command = [{words}]
        clocks = {{ first = 0.2, idle = 0.2, cancel = 1 }}

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
