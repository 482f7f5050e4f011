"""Where other machines can connect, a gateway needs keys or is told that it needs none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import (
    reload,
    running_gateway,
)
from tests.http.keys import (
    ALICE,
    ECHO,
    hash_of,
)


@pytest.mark.parametrize(("host", "check"), [("0.0.0.0", []), ("::", ["--check"])])
def test_other_machines_need_keys_unless_it_is_said_that_they_do_not(
    host: str, check: list[str]
) -> None:
    command = [sys.executable, "-m", "gateway", *ECHO, "--host", host, "--port", "0", *check]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"gateway: server.host is '{host}', where other machines can connect")
    for words in ("no keys", "gateway key new", "[keys.NAME]", "[server] allow_anonymous = true"):
        assert words in last


@pytest.mark.parametrize(
    ("server", "keys", "status"),
    [("allow_anonymous = true", "", 200), ("", f'[keys.a]\nhash = "{hash_of(ALICE)}"', 401)],
)
async def test_other_machines_can_connect_where_it_is_said_or_there_are_keys(
    tmp_path: Path, server: str, keys: str, status: int
) -> None:
    text = f"""
    [server]
    host = "0.0.0.0"
    sandbox = "off"
    {server}
    [agents.echo]
    command = "agent-worker worker.examples.echo:agent"
    {keys}
    """
    async with running_gateway(toml=text, folder=tmp_path) as gateway:
        url = f"http://127.0.0.1:{gateway.port}"
        answer = await gateway.client.get(f"{url}/agents")
        assert answer.status_code == status
        if status == 401:
            # Without the key everybody could call, from everywhere.
            line = await reload(gateway, tmp_path, text.replace(keys, ""), "refused as a whole")
            assert "allow_anonymous" in line
            assert (await gateway.client.get(f"{url}/agents")).status_code == 401
