"""The MCP inspector's command line, through a real gateway in the strict sandbox."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.clients.clients import NODE, WRONG_KEY
from tests.clients.runners import KEY
from tests.clients.scenarios import HELLO, JQ
from tests.harness import GatewayInThread
from tests.javascript import need_package, need_runtime

SECONDS = 60


def inspect(
    gateway: GatewayInThread, folder: Path, *words: str, key: str = KEY
) -> subprocess.CompletedProcess[str]:
    """Run the inspector as its users do, with a home of its own."""
    package = need_package("@modelcontextprotocol/inspector")
    program = json.loads((package / "package.json").read_text())["bin"]["mcp-inspector"]
    header = f"Authorization: Bearer {key}"
    address = ["--cli", f"{gateway.url}/mcp", "--transport", "http", "--header", header]
    return subprocess.run(
        [need_runtime(NODE), str(package / program), *address, *words],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        cwd=folder,
        env={**os.environ, "HOME": str(folder)},
        check=False,
    )


def told(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_the_inspector_lists_the_tools_and_calls_them(
    gateway: GatewayInThread, tmp_path: Path
) -> None:
    tools = told(inspect(gateway, tmp_path, "--method", "tools/list"))["tools"]
    names = {tool["name"] for tool in tools}
    assert {"told_chat", f"{JQ}_chat", f"{JQ}_invoke"} <= names
    assert "told_invoke" not in names  # it has declared that it only chats
    for agent in ("told", JQ):
        words = ("--method", "tools/call", "--tool-name", f"{agent}_chat")
        result = told(inspect(gateway, tmp_path, *words, "--tool-arg", "message=hello"))
        assert [block["text"] for block in result["content"]] == [HELLO]


def test_the_inspector_tells_of_a_key_that_is_not_good(
    gateway: GatewayInThread, tmp_path: Path
) -> None:
    done = inspect(gateway, tmp_path, "--method", "tools/list", key=WRONG_KEY)
    assert done.returncode != 0
    assert "auth_required" in done.stderr  # it would go on with OAuth, which is not to be had here
