"""One gateway in the strict sandbox, which all clients share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.clients import clients
from tests.clients.runners import KEY
from tests.harness import GatewayInThread, gateway_in_thread
from tests.sandbox.users import need_sandbox


@pytest.fixture(scope="package")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayInThread]:
    need_sandbox("root" if os.geteuid() == 0 else "user")
    folder = tmp_path_factory.mktemp("gateway")
    with gateway_in_thread(clients.toml(), folder, key=KEY) as gateway:
        yield gateway
