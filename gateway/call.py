"""What a client asks an agent for, in whichever protocol it was said."""

from __future__ import annotations

import math

from msgspec import Struct

from protocol import Method, Payload


class Call(Struct, frozen=True, kw_only=True):
    """What a client asks for, checked. Payloads are JSON texts."""

    agent: str
    method: Method
    payload: Payload
    """The input of an invoke, or the messages of a chat; empty once no worker needs it any more."""
    stream: bool
    context: bytes = b"{}"
    conversation: str | None = None
    """The context's `conversation_id`."""
    user: str | None = None
    """The context's `user_id`."""
    owner: str = ""
    """The name of the key that the request was made with; empty where there are no keys."""
    request_id: str
    total: float = math.inf
    """What the caller allows, in seconds; it can only shorten the agent's own clock."""
    events: bool = False
    """Whether the client's dialect takes events among the words of the answer, and its outcome."""
    tools: bytes | None = None
    """The client's tools, a JSON array that passes `protocol.tools.check_tools`."""
    resume: bytes | None = None
    """The client's answers to questions, a JSON array that passes `protocol.tools.check_resume`."""
    traceparent: str | None = None
    """W3C Trace Context's header."""
    needs: frozenset[str] = frozenset()
    """What the agent's `ready` must declare: "image", "audio", "file", "tools" or "asks"."""
    continues: bool = False
    """Whether the agent goes on without a client: the request is a run, see `front/runs`."""
