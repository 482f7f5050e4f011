"""The members of a body beside its messages: decoding them within bounds, and passing them on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
from msgspec import Raw

from gateway.errors import InvalidRequest
from gateway.front.bodies import decode_body, readable
from gateway.front.chats.refusals import refuse
from protocol.wording import Problem, read_mismatch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Number: TypeAlias = float | None
Whole: TypeAlias = int | None
Text: TypeAlias = str | None
NOTHING = Raw(b"null")
"""What is not given: the same as null, in every parameter."""

MOST_PARAMETER_BYTES = 128 * 1024
"""Of a body beside what may be large (messages, tools, instructions): a schema of the answer fits.
What is decoded takes up to thirty times as much memory as its text."""


def given(value: Raw) -> bool:
    """Whether a parameter that is not decoded was given."""
    view = memoryview(value)
    return len(view) != len(b"null") or bytes(view) != b"null"


def is_string(value: Raw) -> bool:
    """Whether a parameter that is not decoded is a string."""
    return memoryview(value)[0] == _QUOTE


_QUOTE = ord('"')


def mismatch(error: Exception) -> InvalidRequest:
    """A 400 for a body whose types are wrong, which names the parameter where one is known."""
    found = read_mismatch(error)
    if found.problem is Problem.UNKNOWN_KEY:
        name = found.subject.strip("`")
        where = ".".join([*found.keys, name])
        return refuse(f"{where[:80]!r} is not supported", where[:80], "unknown_parameter")
    if found.problem is Problem.MISSING_KEY and not found.keys:
        name = found.subject.strip("`")
        return refuse(f"{name!r} is missing", name, "missing_required_parameter")
    keys = found.keys
    sentence = readable(error)
    return refuse(sentence, keys[0], "invalid_type") if keys else InvalidRequest(sentence)


def decode_parameters(
    decode: Callable[[bytes], Any], body: bytes, large: msgspec.json.Decoder[Any]
) -> Any:
    """Decode a body, by a decoder whose type leaves what is large as it is. `large` decodes nothing
    but the members that may be. Raises InvalidRequest."""
    if len(body) > MOST_PARAMETER_BYTES:
        found = decode_body(large.decode, body, mismatch)
        names = found.__struct_fields__
        size = len(body) - sum(len(memoryview(getattr(found, name))) for name in names)
        if size > MOST_PARAMETER_BYTES:
            *most, last = names
            raise InvalidRequest(
                f"the body has {size} bytes beside {', '.join(most)} and {last}, "
                f"expected at most {MOST_PARAMETER_BYTES}"
            )
    return decode_body(decode, body, mismatch)


def encode_parameters(members: Mapping[str, Any]) -> bytes:
    """`context.parameters`: an object of those that were given; nothing if there are none."""
    present = {name: value for name, value in members.items() if value is not None}
    return msgspec.json.encode(present) if present else b""
