"""What the unit tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from .pipes import Pipe

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""For every property: how long the machine takes is not what is tested."""


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()
