"""The configurations in `gateway/deploy/`, as the programs that they are for understand them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from gateway.config import ServerSettings
from tests.conftest import need
from tests.http.proxies import DEPLOY, FILES, command, configuration
from tests.programs import find_program


@pytest.mark.parametrize("name", FILES)
def test_a_configuration_is_valid(name: str, tmp_path: Path) -> None:
    need(find_program(name), f"{name} is not installed")
    path = configuration(name, tmp_path, 8080, (8081, 8082))
    done = subprocess.run(
        command(name, path, check=True), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_nginx_closes_idle_connections_before_the_gateway_does() -> None:
    text = (DEPLOY / "nginx.conf").read_text()
    (seconds,) = re.findall(r"keepalive_timeout (\d+)s;", text)
    assert int(seconds) < ServerSettings().keep_alive
