"""What the requests of both APIs become once their bodies are read: a `Call` for the agent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.call import Call
from gateway.front.bodies import check_size
from gateway.front.dialect import caller_timeout
from gateway.front.openai.context import read_context
from gateway.front.openai.parameters import encode_parameters
from gateway.observe.tracecontext import read_trace_context

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

    from gateway.front.dialect import RequestHead
    from gateway.front.openai.parameters import Shared
    from gateway.front.openai.tools import Tools
    from protocol import Payload


def make_call(
    head: RequestHead,
    body: Shared,
    payload: Payload,
    *,
    modes: AbstractSet[str],
    tools: Tools,
    parameters: Mapping[str, Any],
    conversation: str | None = None,
    continues: bool = False,
) -> Call:
    """A chat with the agent that the body names.

    `payload` are the messages as the agent gets them, and `modes` what it must take to be given
    them. `parameters` is `context.parameters`, and `conversation` what the body names. Raises
    InvalidRequest and RequestTooLarge.
    """
    context, conversation, user = read_context(
        head, body, conversation, encode_parameters({**parameters, "tool_choice": tools.choice})
    )
    check_size(payload, context, more=len(tools.wire or b""))
    needs = frozenset(modes)
    return Call(
        agent=body.model,
        method="chat",
        payload=payload,
        stream=bool(body.stream),
        context=context,
        conversation=conversation,
        user=user,
        owner=head.owner,
        request_id=head.request_id,
        total=caller_timeout(head),
        events=True,
        tools=tools.wire,
        trace=read_trace_context(head.fields),
        needs=needs if tools.wire is None else needs | {"tools"},
        continues=continues,
    )
