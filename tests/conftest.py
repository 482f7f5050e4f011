"""What all tests share."""

from __future__ import annotations

import os

import pytest


def need(condition: object, reason: str) -> None:
    """Skip a test that needs what this machine lacks; in CI nothing may be lacking."""
    if not condition:
        if os.environ.get("CI"):
            pytest.fail(f"CI must have it: {reason}")
        pytest.skip(reason)
