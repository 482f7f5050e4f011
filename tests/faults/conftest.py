"""What the fault suite shares."""

from __future__ import annotations

import pytest

from tests.conftest import need
from tests.faults.scene import HAS_STRICT


@pytest.fixture(params=["off", "strict"])
def level(request: pytest.FixtureRequest) -> str:
    """Runs a test twice: without a sandbox, and in the strict one."""
    if request.param == "strict":
        need(HAS_STRICT, "the strict sandbox needs bubblewrap")
    return str(request.param)
