"""One gateway in the strict sandbox, which all clients share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.clients import clients
from tests.harness import GatewayInThread, gateway_in_thread
from tests.sandbox.users import need_sandbox


@pytest.fixture(scope="package")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayInThread]:
    need_sandbox("root" if os.geteuid() == 0 else "user")
    with gateway_in_thread(clients.toml(), tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway
