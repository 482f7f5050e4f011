"""The protocol's path in the OpenAPI document. What it says is JSON-RPC, described elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.front.described import Part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.front.described import AgentView


def describe(agents: Sequence[AgentView]) -> Part:
    """Nothing of the agents: a client asks for their tools."""
    del agents
    return Part(paths={})
