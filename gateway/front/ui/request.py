"""From the body that `DefaultChatTransport` sends to a checked `Call`.

{"id": chat, "messages": […], "trigger": …, "messageId": …,        from useChat
 "tools": {…}, "resume": […], "resumable": true, "userId": …,       of the page's `body`
 …: …}                                                              for the agent: `custom`
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from gateway.front.bodies import check_nesting, check_utf8, readable
from gateway.front.chats.parameters import NOTHING, decode_parameters, given
from gateway.front.chats.refusals import refuse
from gateway.front.chats.requests import Asked, make_call
from gateway.front.chats.tools import ToolName, Tools, offer
from gateway.front.ui.messages import read_messages
from protocol import on_one_line
from protocol.tools import MAX_TOOLS, check_resume

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.call import Call
    from gateway.front.dialect import RequestHead
    from gateway.front.ui.messages import Conversation


class Tool(Struct, gc=False, rename="camel"):
    """A tool that the page runs."""

    description: str | None = None
    input_schema: dict[str, Raw] | None = None


class ChatBody(Struct, kw_only=True, gc=False, rename="camel"):
    messages: Raw
    id: str | None = None
    trigger: str | None = None
    message_id: str | None = None
    tools: Raw = NOTHING
    resume: Raw = NOTHING
    resumable: bool | None = None
    user_id: str | None = None


class _Large(Struct, gc=False):
    messages: Raw = NOTHING
    tools: Raw = NOTHING
    resume: Raw = NOTHING


_KNOWN = frozenset(field.encode_name for field in msgspec.structs.fields(ChatBody))
_LARGE = msgspec.json.Decoder(_Large)
_decode = msgspec.json.Decoder(ChatBody).decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_tools = msgspec.json.Decoder(
    Annotated[dict[ToolName, Tool], Meta(max_length=MAX_TOOLS)]
).decode
_decode_list = msgspec.json.Decoder(list[dict[str, Raw]]).decode
_encode = msgspec.json.encode


class ChatRequest(Struct, frozen=True, gc=False):
    """What the response needs of the request."""

    tools: Tools = Tools()
    chat: str = ""
    """The chat's id; empty if it has none."""
    message_id: str = ""
    """As `Conversation` has them."""
    calls: frozenset[str] = frozenset()
    approved: Mapping[str, bool] = {}


def read_chat(agent: str, head: RequestHead, body: bytes) -> tuple[Call, ChatRequest]:
    """Check the body. Raises InvalidRequest and RequestTooLarge."""
    check_utf8(body)
    decoded: ChatBody = decode_parameters(_decode, body, _LARGE)
    check_nesting(body)
    conversation = read_messages(decoded.messages)
    tools = _read_tools(decoded.tools)
    chat = decoded.id or ""
    if decoded.resumable and (not chat or "/" in chat):
        raise refuse("a stream is found again by an 'id', and by one without a slash", "id")
    call = make_call(
        head,
        Asked(
            model=agent,
            stream=True,
            user=decoded.user_id,
            custom=_custom_of(body),
            # A header is what somebody has set for this; the id of a chat is there in any case.
            conversation=None if head.conversation else chat or None,
            continues=bool(decoded.resumable),
        ),
        on_one_line(_encode(conversation.chat.messages)),
        modes=conversation.chat.modes,
        tools=tools,
        parameters={},
        resume=_read_resume(decoded.resume, conversation),
    )
    return call, ChatRequest(
        tools=tools,
        chat=chat,
        message_id=conversation.message_id,
        calls=frozenset(conversation.calls),
        approved=conversation.approved,
    )


def _read_tools(tools: Raw) -> Tools:
    if not given(tools):
        return Tools()
    try:
        decoded = _decode_tools(tools)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise refuse(readable(error, "tools"), "tools") from None
    functions = [
        {
            "name": name,
            "description": tool.description or "",
            "parameters": tool.input_schema or {},
        }
        for name, tool in decoded.items()
    ]
    return offer(functions, None)


def _read_resume(resume: Raw, conversation: Conversation) -> bytes | None:
    """Answers to questions: those in the body, and those in the last message."""
    answers: list[dict[str, Any]] = list(conversation.answers)
    if given(resume):
        try:
            answers = [*_decode_list(resume), *answers]
        except (msgspec.MsgspecError, RecursionError) as error:
            raise refuse(readable(error, "resume"), "resume") from None
    if not answers:
        return None
    text = on_one_line(_encode(answers))
    if (problem := check_resume(text)) is not None:
        raise refuse(problem, "resume" if given(resume) else "messages")
    return text


def _custom_of(body: bytes) -> dict[str, Raw] | None:
    """What the page has for its agent: the members that are nobody else's."""
    members = _decode_members(body)
    return {name: value for name, value in members.items() if name not in _KNOWN} or None
