"""From the body of `POST /v1/messages` to a checked `Call`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from gateway.front.anthropic.conversation import read_conversation
from gateway.front.anthropic.parameters import (
    LARGE,
    MessagesBody,
    check_supported,
    parameters_of,
    shows_thinking,
)
from gateway.front.anthropic.tools import read_tools
from gateway.front.bodies import check_nesting, check_utf8
from gateway.front.chats.parameters import decode_parameters
from gateway.front.chats.refusals import refuse
from gateway.front.chats.requests import Asked, make_call
from gateway.front.dialect import shown
from protocol import on_one_line

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.front.dialect import RequestHead

VERSION = b"anthropic-version"
"""The header field by which every client says which version of the API it speaks."""

KNOWN_VERSIONS = ("2023-06-01", "2026-10-21")
"""The versions whose clients are understood. What the later one has removed (`temperature`, `top_p`
and `top_k`) is for an agent to take or not, and is passed on in either."""

_VERSIONS = frozenset(version.encode() for version in KNOWN_VERSIONS)

_decode = msgspec.json.Decoder(MessagesBody).decode


class MessagesRequest(Struct, frozen=True, gc=False):
    """What the response needs of the request."""

    model: str
    tools: frozenset[str]
    """The names of the client's tools."""
    shows_thinking: bool


def read_messages(head: RequestHead, body: bytes) -> tuple[Call, MessagesRequest]:
    """Check the body. Raises InvalidRequest and RequestTooLarge."""
    _check_version(head)
    check_utf8(body)
    decoded: MessagesBody = decode_parameters(_decode, body, LARGE)
    check_nesting(body)
    check_supported(decoded)
    tools, parallel = read_tools(decoded.tools, decoded.tool_choice)
    chat = read_conversation(decoded.messages, decoded.system)
    metadata = decoded.metadata
    call = make_call(
        head,
        Asked(
            model=decoded.model,
            stream=bool(decoded.stream),
            user=None if metadata is None else metadata.user_id,
        ),
        on_one_line(msgspec.json.encode(chat.messages)),
        modes=chat.modes,
        tools=tools,
        parameters={**parameters_of(decoded), "parallel_tool_calls": parallel},
    )
    return call, MessagesRequest(decoded.model, tools.names, shows_thinking(decoded))


def _check_version(head: RequestHead) -> None:
    """As Anthropic does: a client that names no version, or another, expects something else."""
    version = head.fields.get(VERSION)
    if version not in _VERSIONS:
        found = "missing" if version is None else shown(version)
        name, known = VERSION.decode(), " or ".join(KNOWN_VERSIONS)
        raise refuse(f"the header {name} is {found}, expected {known}", name)
