"""The Model Context Protocol: each agent's handlers as tools, at `/mcp`. See the README beside.

Theory of operation
-------------------

The protocol's own machinery (sessions, negotiation of versions, JSON-RPC, streams) is that of the
`mcp` SDK, an extra that is imported only where this dialect is on. All that is the gateway's (keys,
limits, what an agent is told and what it answers) stays the gateway's, and no more of a request
passes through the SDK than it needs:

    POST ─ CallRoutes ─ Endpoint ─ envelope ───────────────> SDK ─> handlers ─ Calling ─> agent
                                      └─ arguments, kept aside ───────┘                     │
    response <─ splice <──────────────────────────────────── SDK <─ placeholder             │
                   └────── the answer, kept aside ─────────────────────┴────────────────────┘

**In.** A message is read by msgspec, and the arguments of a tool call stay the bytes that they are:
the SDK is given the message without them (`envelope`). A body of a few megabytes can be a million
Python objects; so it is none. What remains of a message is bounded to a few KiB.

**Out.** What an agent answers does not pass through the SDK's models either, for the same reason,
and since a lone surrogate in it would fail there: a handler gives a placeholder, and `splice` puts
the JSON text in its place while the response is sent.

**Sessions** of the older handshake are the SDK's. Each caller's key has a session manager of its
own, so that a session's id means nothing with another key. There are at most `MOST_SESSIONS` of a
key; one more ends the one that was used longest ago.

`routes` is the part that is at work: `calls` takes a call from its arguments to its answer, and
knows nothing of the SDK; `handlers` and `sessions` do. All other modules are pure.
"""
