"""The SDK for writing agents in Python: `Agent`, its handlers, and their `Context`.

The SDK knows the wire (`protocol`), and nothing of HTTP or of the gateway. Importing it imports no
event loop, so that a worker says `ready` before it pays for one. The README beside this file is the
manual.
"""

from .shadowing import check_protocol

check_protocol()

from .agent import Agent  # noqa: E402  (what the check finds, these lines would stumble over)
from .context import Context, InvalidInput  # noqa: E402

__all__ = ["Agent", "Context", "InvalidInput"]
