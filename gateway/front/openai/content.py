"""The parts that a message's content may consist of, in chat completions.

The bytes of messages pass through: here it is only looked up which kinds of parts they hold, since
an agent must have declared all but text.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw, Struct

from gateway.front.bodies import readable
from gateway.front.chats.refusals import refuse

if TYPE_CHECKING:
    from protocol import Payload

MODES = {
    "text": None,
    "refusal": None,
    "image_url": "image",
    "input_audio": "audio",
    "file": "file",
}
"""What the agent's `ready` must declare to be given a part, by the part's type."""


class ChatMessage(Struct, gc=False):
    role: str
    content: Raw = Raw(b"null")


class _Role(Struct, gc=False):
    role: str | None = None


class _Part(Struct, gc=False):
    type: str


_decode_messages = msgspec.json.Decoder(list[ChatMessage]).decode
_decode_parts = msgspec.json.Decoder(list[_Part]).decode
_decode_list = msgspec.json.Decoder(list[Raw]).decode
_decode_role = msgspec.json.Decoder(_Role).decode

DEVELOPER = b'"developer"'
"""What a body must contain for `with_system` to find anything. No text of a message can."""

MOST_DEVELOPERS = 1000
"""Messages whose role is `developer`: each is looked at by itself."""

_MOST_LOOKS = 4
"""Members that are tried: in what clients send, it is the first."""

_DEVELOPER_ROLE = re.compile(rb'("role"\s*:\s*)"developer"')


def with_system(messages: Payload) -> Payload:
    """The messages with `system` where a role is `developer`: the name that OpenAI's newer models
    have for it. Every other byte of them stays as it is.

    What is no list of messages is returned as it is, for others to refuse. Raises InvalidRequest.
    """
    try:
        each = [bytes(message) for message in _decode_list(messages)]
    except (msgspec.MsgspecError, RecursionError):
        return messages
    spoken = [index for index, message in enumerate(each) if DEVELOPER in message]
    if len(spoken) > MOST_DEVELOPERS:
        raise refuse(
            f"{len(spoken)} messages of a developer, expected at most {MOST_DEVELOPERS}", "messages"
        )
    for index in spoken:
        each[index] = _by_system(each[index])
    return b"[%b]" % b",".join(each)


def _by_system(message: bytes) -> bytes:
    """One message. A member that looks like its role may be a part's, or one that is given again
    later: then it is not the one that counts. Raises InvalidRequest."""
    if _role_of(message) != "developer":
        return message
    for found in islice(_DEVELOPER_ROLE.finditer(message), _MOST_LOOKS):
        before, after = message[: found.start()], message[found.end() :]
        changed = b'%b%b"system"%b' % (before, found[1], after)
        if _role_of(changed) == "system":
            return changed
    raise refuse("a message's role 'developer' cannot be told from other members", "messages")


def _role_of(message: bytes) -> str | None:
    try:
        return _decode_role(message).role
    except msgspec.MsgspecError:
        return None


def modes_of(messages: Payload) -> frozenset[str]:
    """What an agent must take to be given these messages, whose roles were checked.

    Raises InvalidRequest for a part of a type that is not in `MODES`.
    """
    found = set()
    for index, message in enumerate(_decode_messages(messages)):
        if memoryview(message.content)[0] != _LIST:
            continue
        place = f"messages[{index}].content"
        try:
            parts = _decode_parts(message.content)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise refuse(readable(error, place), place) from None
        for number, part in enumerate(parts):
            if part.type not in MODES:
                types = ", ".join(MODES)
                raise refuse(
                    f"{place}[{number}].type is {part.type[:80]!r}, expected one of {types}",
                    f"{place}[{number}].type",
                )
            found.add(MODES[part.type])
    return frozenset(mode for mode in found if mode is not None)


_LIST = ord("[")
