"""schemathesis, which reads the description and tries whether the gateway keeps to it.

Every response must have a status, headers and a body that the description has for it; what the
description forbids must be refused, and no request may lead to an error of the server's. Not asked
is that all that the description allows be accepted: an agent may refuse what its schema allows, and
what one member allows may depend on another.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from gateway.config.settings import DialectName
from tests.harness import AGENTS, gateway_in_thread

SECONDS = 240
"""For schemathesis, which computes for half a minute, on a loaded machine."""

KEY = "agw_a-key-that-is-long-enough-to-be-one"
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "count": {"type": "integer", "minimum": 0}},
    "required": ["name"],
}

CHECKS = """
[generation]
allow-extra-parameters = false  # HTTP ignores fields that it does not know
[phases.coverage]
unexpected-methods = ["DELETE"]
[checks]
positive_data_acceptance.enabled = false
# A caller may allow too little time: X-Timeout.
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "504"]
"""


@pytest.mark.timeout(SECONDS + 30)
@pytest.mark.parametrize("keys", [False, True])
def test_the_gateway_keeps_to_its_description(tmp_path: Path, keys: bool) -> None:
    command = [sys.executable, "-u", str(AGENTS / "declaring.py"), json.dumps(SCHEMA)]
    toml = f"""
        [server]
        sandbox = "off"
        max_body = "1M"
        dialects = {json.dumps(get_args(DialectName))}
        [agents.it]
        command = {json.dumps(command)}
        workers = {{ min = 1, max = 1 }}
    """
    options = ["--phases", "coverage" if keys else "examples,fuzzing"]
    if keys:
        toml += f'[keys.ada]\nhash = "sha256:{hashlib.sha256(KEY.encode()).hexdigest()}"\n'
        options += ["--header", f"Authorization: Bearer {KEY}"]
    (tmp_path / "schemathesis.toml").write_text(CHECKS)
    with gateway_in_thread(toml, tmp_path) as gateway:
        done = subprocess.run(
            [
                str(Path(sys.executable).with_name("schemathesis")),
                "run",
                f"{gateway.url}/openapi.json",
                "--generation-deterministic",
                "--max-examples=6",
                "--max-failures=5",
                "--no-color",
                "--warnings=off",
                *options,
            ],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=SECONDS,
            check=False,
        )
        log = [line for line in gateway.log() if " INFO " not in line][-60:]
    assert done.returncode == 0, "\n".join([done.stdout[-8000:], done.stderr[-2000:], *log])
    passed = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert passed is not None, done.stdout[-3000:]
    operations = re.search(r"Selected: (\d+)/(\d+)\s+Tested: (\d+)", done.stdout)
    assert operations is not None, done.stdout[-3000:]
    assert operations[1] == operations[2] == operations[3]
    assert int(passed[2]) > 100
