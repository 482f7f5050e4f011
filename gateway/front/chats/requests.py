"""What the request for a chat becomes once its body is read: a `Call` for the agent.

The agent's `context` is

    {"conversation_id": …, "user_id": …, "custom": …, "parameters": {"temperature": …}}

Each member is there only if the request has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from gateway.call import Call
from gateway.front.bodies import check_size
from gateway.front.chats.parameters import encode_parameters
from gateway.front.dialect import caller_timeout, conversation_of
from gateway.observe.tracecontext import read_trace_context
from protocol import on_one_line

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

    from gateway.front.chats.tools import Tools
    from gateway.front.dialect import RequestHead
    from protocol import Payload


class Asked(Struct, frozen=True, kw_only=True, gc=False):
    """What a body says beside its messages and its tools."""

    model: str
    """The agent's name."""
    stream: bool
    user: str | None = None
    custom: Any = None
    """What the client has to say to the agent beside all that the protocol knows."""
    conversation: str | None = None
    """What the body names; `X-Conversation-Id` may name one as well."""
    continues: bool = False
    """As in `Call`."""


def make_call(
    head: RequestHead,
    asked: Asked,
    payload: Payload,
    *,
    modes: AbstractSet[str],
    tools: Tools,
    parameters: Mapping[str, Any],
    resume: bytes | None = None,
) -> Call:
    """A chat with the agent that the body names.

    `payload` are the messages as the agent gets them, and `modes` what it must take to be given
    them. `parameters` is `context.parameters`, but for the choice among the tools; `resume`
    is as in `Call`. Raises
    InvalidRequest and RequestTooLarge.
    """
    conversation = conversation_of(head, asked.conversation)
    context = _context(
        conversation, asked, encode_parameters({**parameters, "tool_choice": tools.choice})
    )
    check_size(payload, context, more=len(tools.wire or b"") + len(resume or b""))
    needs = {*modes}
    if tools.wire is not None:
        needs.add("tools")
    if resume is not None:
        needs.add("asks")
    return Call(
        agent=asked.model,
        method="chat",
        payload=payload,
        stream=asked.stream,
        context=context,
        conversation=conversation,
        user=asked.user,
        owner=head.owner,
        request_id=head.request_id,
        total=caller_timeout(head),
        events=True,
        tools=tools.wire,
        resume=resume,
        trace=read_trace_context(head.fields),
        needs=frozenset(needs),
        continues=asked.continues,
    )


def _context(conversation: str | None, asked: Asked, parameters: bytes) -> bytes:
    """The context as a JSON text."""
    encode = msgspec.json.encode
    members = []
    if conversation is not None:
        members.append(b'"conversation_id":' + encode(conversation))
    if asked.user is not None:
        members.append(b'"user_id":' + encode(asked.user))
    if asked.custom is not None:
        members.append(b'"custom":' + encode(asked.custom))
    if parameters:
        members.append(b'"parameters":' + parameters)
    return on_one_line(b"{%b}" % b",".join(members))
