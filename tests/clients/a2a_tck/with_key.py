"""A plugin for the kit's pytest: every request has the key in the environment's `A2A_KEY`.

The kit has no setting for it, and tasks are listed only for whoever has one.
"""

from __future__ import annotations

import os
from typing import Any

import httpx


def _with_key(request: Any) -> None:
    request.headers.setdefault("Authorization", f"Bearer {os.environ['A2A_KEY']}")


class Client(httpx.Client):
    """A client of httpx that sends the key."""

    def build_request(self, *args: Any, **options: Any) -> httpx.Request:
        request = super().build_request(*args, **options)
        _with_key(request)
        return request


httpx.Client = Client  # type: ignore[misc]
httpx._api.Client = Client  # type: ignore[attr-defined]  # what `httpx.post` uses
