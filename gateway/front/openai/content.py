"""The parts that a message's content may consist of, in chat completions.

The bytes of messages pass through: here it is only looked up which kinds of parts they hold, since
an agent must have declared all but text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw, Struct

from gateway.front.bodies import readable
from gateway.front.openai.errors import refuse

if TYPE_CHECKING:
    from protocol import Payload

MODES = {
    "text": None,
    "refusal": None,
    "image_url": "image",
    "input_audio": "audio",
    "file": "file",
}
"""By the type of a part: what the agent's `ready` must declare to be given it."""


class _Message(Struct, gc=False):
    role: str
    content: Raw = Raw(b"null")


class _Part(Struct, gc=False):
    type: str


_decode_messages = msgspec.json.Decoder(list[_Message]).decode
_decode_parts = msgspec.json.Decoder(list[_Part]).decode
_decode_whole = msgspec.json.Decoder(list[dict[str, Raw]]).decode

DEVELOPER = b'"developer"'
"""What the messages of a body must contain for `with_system` to find anything."""


def with_system(messages: Payload) -> Payload:
    """The messages with `system` where a role is `developer`: the name that OpenAI's newer models
    have for it. Every other byte stays as it is.

    What is no list of messages is returned as it is, for others to refuse.
    """
    try:
        decoded = _decode_whole(messages)
    except (msgspec.MsgspecError, RecursionError):
        return messages
    for message in decoded:
        if "role" in message and bytes(message["role"]) == DEVELOPER:
            message["role"] = _SYSTEM
    return msgspec.json.encode(decoded)


_SYSTEM = Raw(b'"system"')


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
