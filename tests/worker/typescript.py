"""Agents in JavaScript written down in a test, served by a real process on a real runtime."""

from __future__ import annotations

import textwrap
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import trio

from tests.javascript import need_runtime

from . import driver

FOLDER = Path(__file__).parents[2] / "worker" / "typescript"
MAIN = str(FOLDER / "main.js")

PRELUDE = """
import fs from "node:fs";
import { spawnSync } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import { Agent, Context, InvalidInput } from "agent-gateway-worker";
/** Resolves when there is a file. */
async function file(name) { while (!fs.existsSync(name)) await sleep(1); }
"""


def command(runtime: str, file: Path | str) -> list[str]:
    """The command that serves a file on a runtime, without `agent-worker`."""
    return [need_runtime(runtime), MAIN, str(file)]


def serve(
    runtime: str, folder: Path, source: str, *, handshake: bool = True
) -> AbstractAsyncContextManager[driver.Worker]:
    """Serve the agent that this source exports."""
    path = folder / "the_agent.mjs"
    path.write_text(PRELUDE + textwrap.dedent(source))
    return driver.start(command(runtime, path), cwd=folder, handshake=handshake)


async def let_go(worker: driver.Worker) -> None:
    """Make the file that handlers wait for with `await file("go")`."""
    assert worker.cwd is not None
    await trio.Path(worker.cwd, "go").touch()
