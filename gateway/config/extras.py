"""Which settings need packages that are not installed by default, and whether these are there."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.config.settings import Settings

TRACES_NEED = "opentelemetry.exporter.otlp.proto.http"
"""What the extra `traces` installs."""

MCP_NEEDS = ("mcp", "mcp_types")
"""What the extra `mcp` installs; an older version of the SDK has not the second."""

NATS_NEEDS = ("nats.aio.client", "nkeys")
"""What the extra `nats` installs."""


def missing_extra(settings: Settings) -> str | None:
    """A message that names a setting and the package that it lacks; None: nothing is missing."""
    if settings.server.traced is not None and not _is_installed(TRACES_NEED):
        return (
            "server.traces: OpenTelemetry is not installed; expected: "
            "pip install 'agent-gateway[traces]'"
        )
    if "mcp" in settings.server.dialects and not all(map(_is_installed, MCP_NEEDS)):
        return (
            "server.dialects has 'mcp', whose SDK is not installed (mcp 2.3 or newer); expected: "
            "pip install 'agent-gateway[mcp]'"
        )
    if settings.fleet.role is not None and not all(map(_is_installed, NATS_NEEDS)):
        return "fleet: nats-py is not installed; expected: pip install 'agent-gateway[nats]'"
    return None


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ImportError:  # not even the package that it would be in
        return False
