"""The ids of requests on one connection: increasing, and impossible for a caller to guess.

A caller who knew the id of another caller's request could try to make an agent answer it. What the
gateway writes leaves no way to do that (see `framing.on_one_line`), but an agent may be written
carelessly, so the ids do not help either.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_FIRST_BITS = 44
"""The first id has 45 bits and 14 digits: a number of that size is exact where numbers are doubles
(JavaScript, jq: 2**53), and also where they are printed with 14 digits (Lua)."""

_STEPS_AT_ONCE = 256
"""Random steps that are asked of the system together: each by itself would cost a microsecond. A
step is 1 to 2**16. At 1,000 requests a second, one connection comes to the end of 14 digits after
23 days, and to 2**53 after 8 years."""


def unguessable_ids() -> Iterator[int]:
    """Endless increasing ids: a random first one, and random steps."""
    last = 1 << _FIRST_BITS | secrets.randbits(_FIRST_BITS)
    while True:
        for step in memoryview(secrets.token_bytes(2 * _STEPS_AT_ONCE)).cast("H"):
            yield last
            last += 1 + step
