"""The part that is at work: it serves `/mcp`, and knows the SDK, the dispatcher and time."""
