"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


def need(condition: object, reason: str) -> None:
    """Skip a test that needs what this machine lacks; in CI nothing may be lacking."""
    if not condition:
        if os.environ.get("CI"):
            pytest.fail(f"CI must have it: {reason}")
        pytest.skip(reason)


@pytest.fixture(scope="session", autouse=True)
def state_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Gateways of tests keep their agents' state in a folder of the run's, not in the machine's."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("state")
        folder.chmod(0o700)
        patch.setenv("STATE_DIRECTORY", str(folder))
        yield
