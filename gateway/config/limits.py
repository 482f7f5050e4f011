"""What callers may ask for: the tables `[agents.NAME.limits]` and `[keys.NAME.limits]`.

This module owns names, defaults and checks. It does not know how a limit is counted, or by whom.
"""

from __future__ import annotations

import math
from typing import Annotated

from msgspec import Meta, Struct

from gateway.config.sandbox import parse_size

_Count = Annotated[int, Meta(ge=0)]


class LimitSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The limits on the requests to one agent, or with one key; 0 is no limit.

    An agent's count the requests of all callers together, a key's count those to all agents. A
    request must be within both: the stricter one holds.
    """

    requests_per_second: _Count = 0
    """Requests that begin within any second."""
    requests_per_minute: _Count = 0
    """Requests that begin within any minute."""
    concurrent: _Count = 0
    """Requests at a time, waiting ones and runs without a client among them."""
    max_body: str | int = 0
    """The largest body of one request, in bytes or as "64K". `[server] max_body` holds as well."""

    def __post_init__(self) -> None:
        parse_size("max_body", self.max_body)

    @property
    def are_set(self) -> bool:
        """Whether anything is limited."""
        return self != LimitSettings()

    @property
    def max_body_bytes(self) -> float:
        """The limit in bytes; infinity when there is none."""
        return parse_size("max_body", self.max_body) or math.inf
