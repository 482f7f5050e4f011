"""The parts of A2A's messages: checked, and as an agent gets them.

Text and data are for every agent. Files are for agents whose `ready` names their kind; images may
be given by their URL, which the agent gets, and other files by their bytes, since the gateway
fetches nothing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from gateway.front.a2a.errors import CONTENT_TYPE_NOT_SUPPORTED, invalid, refuse
from gateway.front.a2a.rpc import check_parts
from gateway.front.bodies import readable
from protocol import on_one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

_MEDIA_TYPE = re.compile(r"[!-.0-~]+/[!-.0-~]+(?:[ \t]*;.*)?\Z", re.DOTALL)

_AUDIO = {
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/wave": "wav",
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
}
"""The formats that chat completions know, by media type."""


class _Part(Struct, gc=False, rename="camel"):
    text: str | UnsetType = UNSET
    raw: str | UnsetType = UNSET
    url: str | UnsetType = UNSET
    data: Raw | UnsetType = UNSET
    filename: str = ""
    media_type: str = ""


_decode_parts = msgspec.json.Decoder(list[_Part]).decode
_encode = msgspec.json.encode
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]*={0,2}\Z")


class Content(NamedTuple):
    """What a message says."""

    texts: list[str]
    data: list[bytes]
    """Of its data parts: JSON texts, each on one line."""
    parts: list[dict[str, Any]]
    """All its parts, in the form of chat completions."""
    modes: frozenset[str]
    """What an agent must take to be given them."""

    @property
    def for_chat(self) -> bytes:
        """The content of a chat message: a string where it is one text."""
        if len(self.parts) == 1 and self.parts[0]["type"] == "text":
            return _encode(self.parts[0]["text"])
        return _encode(self.parts)

    @property
    def is_data(self) -> bool:
        """Whether it is one data part and nothing else."""
        return len(self.parts) == len(self.data) == 1


def read_parts(parts: Raw, place: str) -> Content:
    """Check the parts of a message, which `place` names. Raises InvalidRequest."""
    check_parts(parts, place)
    try:
        decoded = _decode_parts(parts)
    except (msgspec.MsgspecError, RecursionError) as error:
        problem = readable(error, place)
        raise invalid(problem, problem.partition(":")[0]) from None
    if not decoded:
        raise invalid(f"{place} is empty; expected at least one part", place)
    return _read_all(decoded, place)


def _read_all(decoded: Sequence[_Part], place: str) -> Content:
    content = Content([], [], [], frozenset())
    modes = set()
    for index, part in enumerate(decoded):
        where = f"{place}[{index}]"
        given = [each for each in (part.text, part.raw, part.url, part.data) if each is not UNSET]
        if len(given) != 1:
            raise invalid(
                f"{where} has {len(given)} of text, raw, url and data; expected one", where
            )
        if isinstance(part.text, str):
            content.texts.append(part.text)
            content.parts.append({"type": "text", "text": part.text})
        elif isinstance(part.data, Raw):
            data = on_one_line(bytes(part.data))
            content.data.append(data)
            content.parts.append({"type": "text", "text": data.decode()})
        else:
            mode, as_chat = _file(part, where)
            modes.add(mode)
            content.parts.append(as_chat)
    return content._replace(modes=frozenset(modes))


def _file(part: _Part, where: str) -> tuple[str, dict[str, Any]]:
    """The mode that a file needs, and the part of chat completions that it becomes."""
    kind = part.media_type.partition(";")[0].strip().lower()
    if part.media_type and _MEDIA_TYPE.match(part.media_type) is None:
        raise invalid(
            f"{where}.mediaType is {part.media_type[:80]!r}, expected a media type",
            f"{where}.mediaType",
        )
    if isinstance(part.url, str):
        if not kind.startswith("image/"):
            raise refuse(
                CONTENT_TYPE_NOT_SUPPORTED,
                f"{where}.url is of the media type {kind[:80]!r}, and only images are passed on by "
                "their URL: nothing is fetched here; send the file as 'raw'",
                f"{where}.url",
            )
        return "image", {"type": "image_url", "image_url": {"url": part.url}}
    data = _standard_base64(str(part.raw), f"{where}.raw")
    if kind.startswith("image/"):
        return "image", {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}}
    if kind in _AUDIO:
        return "audio", {
            "type": "input_audio",
            "input_audio": {"data": data, "format": _AUDIO[kind]},
        }
    named = f"data:{kind or 'application/octet-stream'};base64,{data}"
    file = {"filename": part.filename or "file", "file_data": named}
    return "file", {"type": "file", "file": file}


def _standard_base64(text: str, where: str) -> str:
    """ProtoJSON takes both alphabets, with padding or without; data URLs take one."""
    if _BASE64.match(text) is None or len(text.rstrip("=")) % 4 == 1:
        raise invalid(f"{where} is not base64", where)
    plain = text.rstrip("=").replace("-", "+").replace("_", "/")
    return plain + "=" * (-len(plain) % 4)
