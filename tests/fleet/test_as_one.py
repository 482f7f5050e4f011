"""A fleet is not told from a gateway: tests through HTTP, run against front, host and nats-server.

    GATEWAY_TESTS_FLEET=1 pytest tests/http

runs all of them so. Here are those that say most about requests, for the time that they take.

All of `tests/http` ran so on 26 November 2026, beside a load of 15: 1,016 passed. 22 are about one
process by nature: they carry `@one_process`, with their reason, and are skipped since;
`tests/README.md` has the kinds. One showed a fault of the fleet, which was mended. Three passed
when they were run again that day: `test_rolling[nginx]` and `test_schemathesis[True]`, which had
run out of their time, and one of `test_keep_alive`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import need
from tests.programs import find_program

ROOT = Path(__file__).parents[2]

MODULES = ("contract", "openai", "streams")


@pytest.mark.timeout(300)
@pytest.mark.skipif(os.environ.get("GATEWAY_TESTS_FLEET") == "1", reason="the others run so now")
def test_tests_through_http_pass_with_a_fleet_in_place_of_the_gateway() -> None:
    need(find_program("nats-server"), "nats-server")
    environ = {name: text for name, text in os.environ.items() if "PYTEST" not in name}
    run = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-n2", "-p", "no:cacheprovider"),
            *(f"tests/http/test_{module}.py" for module in MODULES),
        ],
        cwd=ROOT,
        env={**environ, "GATEWAY_TESTS_FLEET": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    passed = re.search(r"(\d+) passed", run.stdout)
    assert passed is not None
    assert int(passed[1]) > 150
