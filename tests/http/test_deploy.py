"""The configurations in `gateway/deploy/`, as the programs that they are for understand them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gateway.config import ServerSettings

DEPLOY = Path(__file__).resolve().parents[2] / "gateway" / "deploy"

CHECKS = {"nginx.conf": ["nginx", "-t", "-q", "-c"], "haproxy.cfg": ["haproxy", "-c", "-q", "-f"]}


@pytest.mark.parametrize("name", CHECKS)
def test_a_configuration_is_valid(name: str) -> None:
    program, *options = CHECKS[name]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    done = subprocess.run(
        [program, *options, str(DEPLOY / name)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_nginx_closes_idle_connections_before_the_gateway_does() -> None:
    text = (DEPLOY / "nginx.conf").read_text()
    (seconds,) = re.findall(r"keepalive_timeout (\d+)s;", text)
    assert int(seconds) < ServerSettings().keep_alive
