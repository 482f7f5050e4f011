"""The parts of a message's content: from AG-UI's to those of chat completions, which agents get.

| part | source `data` | source `url` |
| --- | --- | --- |
| `text` | `text` | |
| `image` | `image_url`, with a `data:` URL | `image_url` |
| `audio` | `input_audio` | refused |
| `video`, `document` | `file`, with a `data:` URL | refused |

A source `file` names a file that another service keeps: it is refused, as nothing here can fetch
it. So is a URL, where the form of chat completions has none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
from msgspec import Raw, Struct

from gateway.front.ag_ui.errors import refuse
from gateway.front.bodies import readable

if TYPE_CHECKING:
    from gateway.errors import InvalidRequest

_NULL = Raw(b"null")

_AUDIO_FORMATS = {"mpeg": "mp3", "x-wav": "wav", "wave": "wav", "vnd.wave": "wav"}
"""Names that chat completions have for formats of audio, by the subtype of a media type. Any other
format is called by its subtype."""


class DataSource(Struct, gc=False, rename="camel", tag_field="type", tag="data"):
    value: str
    mime_type: str


class UrlSource(Struct, gc=False, rename="camel", tag_field="type", tag="url"):
    value: str


class FileSource(Struct, gc=False, rename="camel", tag_field="type", tag="file"):
    value: str


_Source: TypeAlias = DataSource | UrlSource | FileSource


class TextPart(Struct, gc=False, tag_field="type", tag="text"):
    text: str


class ImagePart(Struct, gc=False, tag_field="type", tag="image"):
    source: _Source


class AudioPart(Struct, gc=False, tag_field="type", tag="audio"):
    source: _Source


class VideoPart(Struct, gc=False, tag_field="type", tag="video"):
    source: _Source
    metadata: Raw = _NULL


class DocumentPart(Struct, gc=False, tag_field="type", tag="document"):
    source: _Source
    metadata: Raw = _NULL


Part: TypeAlias = TextPart | ImagePart | AudioPart | VideoPart | DocumentPart


class _Named(Struct, gc=False):
    filename: str


decode_parts = msgspec.json.Decoder(list[Part]).decode
_decode_named = msgspec.json.Decoder(_Named).decode


def read_parts(content: Raw, place: str) -> list[Part]:
    """Decode the parts at `place` in the body. Raises InvalidRequest."""
    try:
        return decode_parts(content)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise refuse(readable(error), place) from None


def convert(part: Part, place: str) -> tuple[dict[str, Any], str | None]:
    """The part as the agent gets it, and the mode that the agent must have declared to be given it;
    None: none. Raises InvalidRequest."""
    match part:
        case TextPart(text=text):
            return {"type": "text", "text": text}, None
        case ImagePart(source=DataSource() as source):
            return {"type": "image_url", "image_url": {"url": _data_url(source)}}, "image"
        case ImagePart(source=UrlSource(value=url)):
            return {"type": "image_url", "image_url": {"url": url}}, "image"
        case AudioPart(source=DataSource(value=data, mime_type=mime)):
            audio = {"data": data, "format": _format_of(mime)}
            return {"type": "input_audio", "input_audio": audio}, "audio"
        case VideoPart(source=DataSource() as source) | DocumentPart(source=DataSource() as source):
            file = {"filename": _name_of(part.metadata), "file_data": _data_url(source)}
            return {"type": "file", "file": file}, "file"
    raise _cannot_fetch(part, place)


def _cannot_fetch(part: Part, place: str) -> InvalidRequest:
    assert not isinstance(part, TextPart)
    kind = type(part).__struct_config__.tag
    if isinstance(part.source, FileSource):
        why = "a file that another service keeps cannot be fetched here; send its data, or its URL"
    else:
        why = f"nothing here fetches the URL of a part {kind!r}; send its data"
    return refuse(why, f"{place}.source")


def _data_url(source: DataSource) -> str:
    return f"data:{source.mime_type};base64,{source.value}"


def _format_of(mime: str) -> str:
    subtype = mime.partition(";")[0].rpartition("/")[2].strip().lower()
    return _AUDIO_FORMATS.get(subtype, subtype)


def _name_of(metadata: Raw) -> str:
    """`metadata.filename`, where AG-UI's client keeps the name of a file; "file" without one."""
    try:
        return _decode_named(metadata).filename
    except (msgspec.MsgspecError, RecursionError):
        return "file"
