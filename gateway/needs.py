"""What a request needs of its agent that not every agent has: see `gateway.call.Call.needs`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.errors import InvalidRequest

if TYPE_CHECKING:
    from protocol import Ready

_FIELDS = {"tools": "tools", "asks": "resume"}
"""The member of a request that needs something of its agent, by what it needs. Needs that are not
here are kinds of content."""


def unmet_needs(agent: str, needs: frozenset[str], ready: Ready | None) -> InvalidRequest | None:
    """Why the agent cannot be given a request with these needs; None if it can.

    `ready` is what its worker declared, None for a worker that does not speak the handshake.
    """
    for need in sorted(needs):
        field = _FIELDS.get(need)
        if field is None:
            met = ready is not None and need in ready.modes
            what, declaration = f"content of the kind {need!r}", f'"modes" with "{need}" in it'
        else:
            met = ready is not None and getattr(ready, need)
            what, declaration = repr(field), f'"{need}": true'
        if not met:
            return InvalidRequest(
                f"agent {agent!r} has not declared that it takes {what}; its `ready` would have to "
                f"hold {declaration}",
                field=field or "messages",
            )
    return None
