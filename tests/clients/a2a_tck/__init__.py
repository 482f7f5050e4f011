"""A2A's conformance kit (github.com/a2aproject/a2a-tck, branch `1.0-dev`) against a gateway.

The kit is no package of any index, so that CI does not have it. Where it is checked out, with a
virtual environment `.venv` of its own in which it is installed,

    A2A_TCK=/path/to/a2a-tck pytest tests/clients/test_a2a.py -k kit

runs what it asks of the JSON-RPC binding and of the card.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.harness import gateway_in_thread

KIT_SECONDS = 110


def run(kit: Path, folder: Path) -> set[str]:
    """The requirements that the gateway does not meet, by the kit's own report."""
    command = json.dumps([sys.executable, str(Path(__file__).parent / "agent.py")])
    toml = (
        "[server]\nsandbox = 'strict'\ndialects = ['native', 'a2a']\n"
        f"[agents.tck]\ncommand = {command}\nworkers = {{ max = 8 }}\n"
    )
    with gateway_in_thread(toml, folder) as gateway:
        subprocess.run(
            [
                *(str(kit / ".venv/bin/python"), "run_tck.py", "--transport", "jsonrpc"),
                *("--sut-host", f"{gateway.url}/a2a/tck", "--", "-p", "with_key", "-q"),
            ],
            cwd=kit,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent), "A2A_KEY": "any"},
            capture_output=True,
            timeout=KIT_SECONDS,
            check=False,
        )
    report = json.loads((kit / "reports" / "compatibility.json").read_text())
    return {
        name
        for name, requirement in report["per_requirement"].items()
        if requirement["errors"] and requirement["status"] == "FAIL"
    }
