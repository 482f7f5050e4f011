"""What a user has answered to the question whether a call may be made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..context import Resume


def approves(answer: Resume) -> bool:
    """Whether an answer approves: its payload is true, or an object whose `approved` is.

    A cancelled answer never does, whatever its payload.
    """
    payload = answer.payload
    said = payload.get("approved") if isinstance(payload, Mapping) else payload
    return answer.status == "resolved" and said is True
