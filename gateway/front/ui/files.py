"""File parts of a page's messages, as the parts of chat completions.

| part | for the agent | its mode |
| --- | --- | --- |
| `image/*` | `image_url`, with the URL as it is | `image` |
| `audio/*`, as a data URL | `input_audio` | `audio` |
| any other, as a data URL | `file` | `file` |
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from gateway.front.chats.refusals import refuse, unsupported

if TYPE_CHECKING:
    from gateway.front.chats.chat import Chat
    from gateway.front.ui.parts import Part

_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(?:;[\w.+-]+=[^;,]*)*;base64,", re.ASCII)
"""RFC 2397, with the only encoding that `FileReader` makes."""

_FORMATS = {"mpeg": "mp3", "mp3": "mp3", "wav": "wav", "x-wav": "wav", "wave": "wav"}
"""OpenAI's names of two formats; any other has the name of its media type."""


def convert(part: Part, place: str, chat: Chat) -> dict[str, Any]:
    """The part as the agent gets it; the chat then has its mode. Raises InvalidRequest."""
    if part.url is None or not part.media_type:
        raise refuse(f"{place}: a file has a mediaType and a url", place)
    if part.provider_reference is not None:
        raise unsupported(
            f"{place}.providerReference", "a file that another service keeps is not fetched here"
        )
    kind, _, subtype = part.media_type.lower().partition("/")
    if kind == "image":
        if not part.url.startswith(("https://", "http://")):
            _data_of(part.url, place)
        chat.modes.add("image")
        return {"type": "image_url", "image_url": {"url": part.url}}
    data = _data_of(part.url, place)
    if kind == "audio":
        chat.modes.add("audio")
        audio = {"data": data, "format": _FORMATS.get(subtype, subtype)}
        return {"type": "input_audio", "input_audio": audio}
    chat.modes.add("file")
    return {"type": "file", "file": {"filename": part.filename or "file", "file_data": part.url}}


def _data_of(url: str, place: str) -> str:
    found = _DATA_URL.match(url)
    if found is None:
        raise unsupported(f"{place}.url", "nothing here fetches a file; send it as a data URL")
    return url[found.end() :]
