"""Who asks, in which conversation and with which parameters: an agent's `context`.

    {"conversation_id": …, "user_id": user, "custom": metadata, "parameters": {"temperature": …}}

Each member is there only if the request has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.front.dialect import conversation_of
from protocol import on_one_line

if TYPE_CHECKING:
    from gateway.front.dialect import RequestHead
    from gateway.front.openai.parameters import Shared


def read_context(
    head: RequestHead, body: Shared, conversation: str | None, parameters: bytes
) -> tuple[bytes, str | None, str | None]:
    """The context as a JSON text, the conversation, and the user; `conversation` is the one that
    the body names, `X-Conversation-Id` may name one as well. Raises InvalidRequest."""
    conversation = conversation_of(head, conversation)
    user = body.user if body.user is not None else body.safety_identifier
    members = []
    if conversation is not None:
        members.append(b'"conversation_id":' + msgspec.json.encode(conversation))
    if user is not None:
        members.append(b'"user_id":' + msgspec.json.encode(user))
    if body.metadata is not None:
        members.append(b'"custom":' + msgspec.json.encode(body.metadata))
    if parameters:
        members.append(b'"parameters":' + parameters)
    return on_one_line(b"{%b}" % b",".join(members)), conversation, user
