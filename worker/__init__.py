"""The SDK for writing agents in Python: `Agent`, its handlers, and their `Context`.

The SDK knows the wire (`protocol`), and nothing of HTTP or of the gateway. Importing it imports no
event loop, so that a worker says `ready` before it pays for one. The README beside this file is the
manual.
"""

from .shadowing import check_protocol

check_protocol()

# ruff: noqa: E402  (what the check finds, these lines would stumble over)
from .agent import Agent
from .context import Context, InvalidInput, Resume, Tool
from .events import (
    Ask,
    Event,
    File,
    Finish,
    Reasoning,
    Status,
    ToolCall,
    ToolResult,
    Usage,
)

__all__ = [
    "Agent",
    "Ask",
    "Context",
    "Event",
    "File",
    "Finish",
    "InvalidInput",
    "Reasoning",
    "Resume",
    "Status",
    "Tool",
    "ToolCall",
    "ToolResult",
    "Usage",
]
