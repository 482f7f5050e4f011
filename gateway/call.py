"""What a client asks an agent for, in whichever protocol it was said."""

from __future__ import annotations

import math
from hashlib import sha256
from typing import Literal, TypeAlias

from msgspec import Struct

from gateway.observe.tracecontext import TraceContext
from protocol import Method, Payload

SessionBy: TypeAlias = Literal["conversation", "user", "key"]
"""What a session keeps together: which requests may meet in one process."""


MOST_NAMED = 512
"""Characters of a name in a session's: thousands of sessions are remembered, and a user's id may be
as long as a body. Conversations have shorter names, also with their owner's."""


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
    trace: TraceContext | None = None
    """Of which trace it is, for the agent."""
    needs: frozenset[str] = frozenset()
    """What the agent's `ready` must declare: "image", "audio", "file", "tools" or "asks"."""
    continues: bool = False
    """Whether the agent goes on without a client: the request is a run, see `front/runs`."""


def session_key(call: Call, by: SessionBy) -> str | None:
    """What a request shares with all others of its session, and with no others; None: it is of no
    session. It begins with the call's owner and a null character, if it has one."""
    named = {"conversation": call.conversation, "user": call.user, "key": call.owner or None}[by]
    # A conversation by itself is its own name; no other kind is the name of a conversation.
    if named is None or (by == "conversation" and not call.owner):
        return named
    if len(named) > MOST_NAMED:
        return f"{call.owner}\0{by}, hashed\0{sha256(named.encode()).hexdigest()}"
    return f"{call.owner}\0{by}\0{named}"
