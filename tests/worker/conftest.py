"""Agents written down in a test, served by a real process on either event loop."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from . import driver

PRELUDE = """
import anyio, os, sys, threading, time
from worker import Agent, Context, InvalidInput
"""

Serve = Callable[..., AbstractAsyncContextManager[driver.Worker]]


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def serve(tmp_path: Path, backend: str) -> Serve:
    """Serve the agent named `agent` that this Python source makes."""

    def serve(source: str, *, handshake: bool = True) -> AbstractAsyncContextManager[driver.Worker]:
        path = tmp_path / "the_agent.py"
        path.write_text(PRELUDE + textwrap.dedent(source))
        return driver.start(
            driver.sdk(f"{path}:agent", backend=backend), cwd=tmp_path, handshake=handshake
        )

    return serve
