"""What the unit tests share."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""For every property: how long the machine takes is not what is tested."""
