"""What an agent makes its proxy say is logged as the agent's, in lines of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.harness import running_gateway
from tests.sandbox.users import need_sandbox

AGENT = r"""
import json, os, socket, sys

for line in sys.stdin:
    request = json.loads(line)
    port = int(os.environ["https_proxy"].rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as proxy:
        proxy.sendall(f"CONNECT {request['params']['input']} HTTP/1.1\r\n\r\n".encode())
        said = proxy.recv(65536).decode("latin-1")
    print(json.dumps({"id": request["id"], "result": {"output": said}}), flush=True)
"""


async def test_what_a_proxy_says_is_logged_as_its_agents(tmp_path: Path) -> None:
    need_sandbox("root" if os.geteuid() == 0 else "user")
    toml = f"""
        [agents.net]
        command = ['{sys.executable}', '-u', '-c', '''{AGENT}''']
        [agents.net.sandbox]
        network = ["api.example.com:443"]
    """
    async with running_gateway(toml=toml, folder=tmp_path) as gateway:
        for target in ("\x1b[2Jhost\x9b2J:443", "other.example.com:443"):
            answer = await gateway.post("/agent/net/invoke", input=target)
            assert answer.status_code == 200, answer.text
            assert answer.json()["output"].startswith("HTTP/1.1 4")
        line = await gateway.logged("refused: other.example.com:443")
        assert line.endswith(" agent=net")
        assert not any(char in line for line in gateway.log for char in "\x1b\x9b")
