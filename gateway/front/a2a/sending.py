"""From the parameters of SendMessage and SendStreamingMessage to a checked `Call`.

An agent's handler is chosen by what is sent, as the skills of its card have it: a message that is
one part of data is the input of an invoke, any other a message of a chat. Of an agent that is known
to have one handler only, that one gets either.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct, structs

from gateway.front.a2a.errors import (
    CONTENT_TYPE_NOT_SUPPORTED,
    PUSH_NOT_SUPPORTED,
    invalid,
    refuse,
)
from gateway.front.a2a.lists import length_check
from gateway.front.a2a.parts import Content, read_parts
from gateway.front.a2a.rpc import decode_params
from gateway.front.a2a.task import MAX_HISTORY, PREFIX, Pending
from gateway.front.chats.requests import Asked, make_call
from gateway.front.chats.tools import Tools
from gateway.front.dialect import MOST_CONVERSATION_ID, conversation_of
from protocol import on_one_line
from protocol.tools import MAX_BYTES, check_tools, tool_names

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from gateway.call import Call
    from gateway.front.dialect import RequestHead

TOOLS = "urn:agent-gateway:a2a:tools:1"
"""The extension by which a client offers tools of its own: a member of the metadata, whose value is
the list of tools as the wire has it."""

MOST_METADATA = MAX_BYTES + 64 * 1024
"""Bytes of the metadata of a message, or of a request: tools, and some more."""

MOST_REFERENCES = 64
"""Tasks that a message refers to."""

MOST_MODES = 64
"""Media types of output that a client names."""

_OMITTED = Raw(b"null")
_encode = msgspec.json.encode


class Message(Struct, gc=False, rename="camel"):
    message_id: str | None = None
    context_id: str | None = None
    task_id: str | None = None
    role: str | None = None
    parts: Raw = _OMITTED
    metadata: Raw = _OMITTED
    reference_task_ids: Raw = _OMITTED


class Configuration(Struct, gc=False, rename="camel"):
    accepted_output_modes: Raw = _OMITTED
    task_push_notification_config: Raw = _OMITTED
    history_length: Annotated[int, Meta(ge=0)] | None = None
    return_immediately: bool | None = None


class SendParams(Struct, gc=False, rename="camel"):
    tenant: str | None = None
    message: Message | None = None
    configuration: Configuration | None = None
    metadata: Raw = _OMITTED


_decode_send = msgspec.json.Decoder(SendParams).decode
_check_modes = length_check(MOST_MODES)
_check_references = length_check(MOST_REFERENCES)
_decode_strings = msgspec.json.Decoder(list[str] | None).decode
_decode_metadata = msgspec.json.Decoder(dict[str, Raw] | None).decode


class Sent(Struct, frozen=True, gc=False):
    """A message that was checked."""

    message: Message
    content: Content
    configuration: Configuration
    custom: dict[str, Raw]
    """All metadata but for the tools."""
    tools: Tools
    modes: list[str] | None
    """The media types of output that the client accepts."""
    references: list[str] | None
    """The tasks that the message refers to."""

    @property
    def task(self) -> str:
        """The id of the task that it goes on with; empty if it begins one."""
        return self.message.task_id or ""

    def as_history(self, task: str, context: str) -> bytes:
        """The message as a task's history has it; nothing if it is too long to be kept."""
        said = self.message
        told: dict[str, Any] = {
            "messageId": said.message_id,
            "contextId": context,
            "taskId": task,
            "role": "ROLE_USER",
            "parts": said.parts,
        }
        if bytes(said.metadata) != b"null":
            told["metadata"] = said.metadata
        if self.references:
            told["referenceTaskIds"] = self.references
        if len(memoryview(said.parts)) + len(memoryview(said.metadata)) > MAX_HISTORY:
            return b""
        return on_one_line(_encode(told))


def read_send(params: bytes, agent: str) -> Sent:
    """Check the parameters. Raises InvalidRequest."""
    decoded: SendParams = decode_params(_decode_send, params)
    if decoded.tenant not in {None, "", agent}:
        raise invalid("tenant: the card names none; expected none", "tenant")
    said = decoded.message
    if said is None:
        raise invalid("message is missing", "message")
    if not said.message_id:
        raise invalid("message.messageId is missing", "message.messageId")
    if said.role != "ROLE_USER":
        raise invalid(
            f"message.role is {(said.role or '')[:80]!r}, expected 'ROLE_USER'", "message.role"
        )
    if bytes(said.parts) == b"null":
        raise invalid("message.parts is missing", "message.parts")
    configuration = decoded.configuration or Configuration()
    if bytes(configuration.task_push_notification_config) != b"null":
        raise refuse(
            PUSH_NOT_SUPPORTED,
            "configuration.taskPushNotificationConfig: the gateway calls nobody; ask for the task, "
            "or subscribe to it",
        )
    content = read_parts(said.parts, "message.parts")
    custom = {
        **_metadata(decoded.metadata, "metadata"),
        **_metadata(said.metadata, "message.metadata"),
    }
    tools = _tools(custom.pop(TOOLS, None))
    return Sent(
        said,
        content,
        configuration,
        custom,
        tools,
        _strings(
            configuration.accepted_output_modes, _check_modes, "configuration.acceptedOutputModes"
        ),
        _strings(said.reference_task_ids, _check_references, "message.referenceTaskIds"),
    )


def _strings(text: Raw, check: Callable[[Raw, str], None], field: str) -> list[str] | None:
    check(text, field)
    found: list[str] | None = decode_params(_decode_strings, bytes(text), field)
    return found


def _metadata(text: Raw, field: str) -> dict[str, Raw]:
    if len(memoryview(text)) > MOST_METADATA:
        raise invalid(f"{field} is longer than {MOST_METADATA} bytes", field)
    return decode_params(_decode_metadata, bytes(text), field) or {}


def _tools(offered: Raw | None) -> Tools:
    if offered is None or bytes(offered) == b"null":
        return Tools()
    wire = on_one_line(bytes(offered))
    if (problem := check_tools(wire)) is not None:
        raise invalid(f"metadata[{TOOLS!r}]: {problem}", "metadata")
    return Tools(wire, tool_names(wire)) if tool_names(wire) else Tools()


def begin(head: RequestHead, agent: str, sent: Sent, handlers: Collection[str] | None) -> Call:
    """The call that begins a task. `handlers` are those that the agent is known to have. Raises
    InvalidRequest and RequestTooLarge."""
    content = sent.content
    is_invoke = chooses_invoke(content, handlers)
    payload = b'[{"role":"user","content":%b}]' % on_one_line(content.for_chat)
    call = make_call(
        head,
        Asked(
            model=agent,
            stream=True,
            custom=sent.custom or None,
            conversation=context_of(head, sent),
            continues=True,
        ),
        _input(content) if is_invoke else payload,
        modes=frozenset() if is_invoke else content.modes,
        tools=sent.tools,
        parameters={
            "message_id": sent.message.message_id,
            "accepted_output_modes": sent.modes,
            "reference_task_ids": sent.references,
        },
    )
    return structs.replace(call, method="invoke") if is_invoke else call


def chooses_invoke(content: Content, handlers: Collection[str] | None) -> bool:
    """Whether a message is the input of an invoke; if not, it is one of a chat."""
    if handlers is not None and set(handlers) <= {"chat"}:
        return False
    return content.is_data or (handlers is not None and "chat" not in handlers)


def _input(content: Content) -> bytes:
    if content.is_data:
        return content.data[0]
    if len(content.texts) == len(content.parts) == 1:
        return on_one_line(_encode(content.texts[0]))
    raise refuse(
        CONTENT_TYPE_NOT_SUPPORTED,
        "message.parts: this agent takes an input, not messages: one part of data, or of text",
        "message.parts",
    )


def context_of(head: RequestHead, sent: Sent) -> str:
    """The context of a new task: the client's, or else a new one. Raises InvalidRequest."""
    asked = sent.message.context_id or None
    if asked is not None and len(asked) > MOST_CONVERSATION_ID:
        raise invalid(
            f"message.contextId has {len(asked)} characters, expected at most "
            f"{MOST_CONVERSATION_ID}",
            "message.contextId",
        )
    return conversation_of(head, asked) or f"context_{secrets.token_hex(16)}"


def pending_of(call: Call) -> Pending | None:
    """What is needed to go on from a call, if it is little enough to be kept."""
    tools = call.tools or b"null"
    if len(call.payload) + len(call.context) + len(tools) > MAX_HISTORY:
        return None
    return Pending(call.method, Raw(call.payload), Raw(call.context), tools=Raw(tools))


def token_of(task: str) -> str:
    """The token of the run that a task is; empty for what is no task's id."""
    return task.removeprefix(PREFIX) if task.startswith(PREFIX) else ""
