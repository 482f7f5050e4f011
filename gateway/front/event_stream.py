"""What the streams of all dialects have in common: WHATWG HTML, "Server-sent events"."""

from __future__ import annotations

HEADERS = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would collect the stream otherwise
)

KEEP_ALIVE = b": keep-alive\n\n"
"""A comment, which clients skip."""

DONE = b"data: [DONE]\n\n"
"""The last event of a stream that ended well: OpenAI's sign, and that of the reference API."""
