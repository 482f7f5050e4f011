"""What an agent says, as the content of a tool's result and as progress on the way there.

text, and files between it     blocks of content, in the order in which they were said
status                         progress, with the agent's own numbers
reasoning, its tools' calls    progress, in words
usage, finish                  `_meta`
state, x-…                     dropped: there is nothing to show them in
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import msgspec
from msgspec import Raw, Struct

from gateway.errors import InvalidAgentResponse
from gateway.exchange import CHUNK_COST, MAX_COLLECTED_BYTES, MAX_LOOSE_CHUNKS
from gateway.front.chats.message import read_message
from gateway.front.mcp.schemas import plain_text
from gateway.words import join_chunks, text_runs
from protocol import on_one_line
from protocol.events import MAX_COUNT, File, Reasoning, Status, ToolCall, ToolResult, read_event

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from protocol import Method, Outcome, Payload

PREFIX = "agent-gateway/"
"""Of the names in `_meta`."""

MOST_PROGRESS_TEXT = 4096
"""Characters of one progress message; of reasoning, the end is shown."""

MOST_NEWS = 8
"""Notifications at a time. Where an agent tells more at once, the last ones count."""

SMALL_STEP = 1e-6
"""By which progress goes on that has no number: the protocol wants each greater than the last."""

_encode = msgspec.json.encode


class Progress(NamedTuple):
    """One notification."""

    progress: float
    total: float | None
    message: str


class Answer(Struct, frozen=True, gc=False):
    """A whole answer. The texts are JSON on one line."""

    content: bytes
    """The blocks, without the brackets around them."""
    value: bytes | None
    """An invoke's output."""
    meta: bytes
    """An object."""


class Answering:
    """One answer while it is said."""

    def __init__(self, agent: str, method: Method, version: str) -> None:
        """`version` is the protocol's: older ones lack some kinds of content."""
        self._agent = agent
        self._method = method
        self._version = version
        self._blocks: list[bytes] = []
        """Whole blocks, each a JSON object."""
        self._chunks: list[bytes] = []
        """Of the text after them; JSON strings."""
        self._only_text = True
        self._size = 0
        self._progress = 0.0
        self._news: list[Progress] = []
        self._thoughts = ""

    def add(self, words: list[bytes]) -> None:
        """Words that came together. Raises InvalidAgentResponse if there are too many."""
        for texts, event in text_runs(words):
            if event is None:
                self._add_text(texts)
            else:
                self._add_event(event)

    @property
    def has_news(self) -> bool:
        """Whether there is progress to be told."""
        return bool(self._news or self._thoughts)

    def take_progress(self) -> list[Progress]:
        """What has been told since the last time."""
        self._tell_thoughts()
        news, self._news = self._news, []
        return news

    def end(self, result: Payload | None, outcome: Outcome | None) -> Answer:
        """The whole answer, after its one result if it was one. Raises InvalidAgentResponse."""
        value = None
        if result is not None:
            value = self._add_result(on_one_line(bytes(result)))
        elif self._method == "invoke" and self._only_text:
            value = join_chunks(self._chunks) if self._chunks else b'""'
        self._close_text()
        content = b",".join(self._blocks) or (
            b'{"type":"text","text":""}' if result is None else b""
        )
        self._blocks = []
        return Answer(content, value, _meta(outcome))

    def cut(self) -> bytes:
        """The blocks of content of an answer that has no end."""
        self._close_text()
        return b",".join(self._blocks)

    def _add_text(self, texts: Sequence[bytes]) -> None:
        self._chunks += texts
        self._grow(sum(map(len, texts)) + CHUNK_COST * len(texts))
        if len(self._chunks) > MAX_LOOSE_CHUNKS:
            self._size -= CHUNK_COST * (len(self._chunks) - 1)
            self._chunks = [join_chunks(self._chunks)]

    def _add_event(self, event: bytes) -> None:
        match read_event(event):
            case Status(text=text, progress=progress, total=total):
                self._tell(text, progress, total)
            case Reasoning(text=text):
                self._thoughts = (self._thoughts + text)[-2 * MOST_PROGRESS_TEXT :]
            case ToolCall(name=name, delta=delta) if not isinstance(delta, str):
                self._tell(f"calls {name}")
            case ToolResult(is_error=is_error):
                self._tell("its tool has failed" if is_error else "its tool has returned")
            case File() as file:
                self._close_text()
                self._only_text = False
                self._blocks.append(file_block(file, self._agent, self._version))
                self._grow(len(self._blocks[-1]) + CHUNK_COST)

    def _tell_thoughts(self) -> None:
        thoughts, self._thoughts = self._thoughts.strip(), ""
        if thoughts:
            self._tell(thoughts[-MOST_PROGRESS_TEXT:])

    def _tell(self, text: str, progress: float | None = None, total: float | None = None) -> None:
        self._tell_thoughts()
        least = max(self._progress + SMALL_STEP, math.nextafter(self._progress, math.inf))
        numbered = progress is not None and least <= progress <= MAX_COUNT
        self._progress = progress if numbered and progress is not None else least
        shown_total = total if numbered and total is not None and total <= MAX_COUNT else None
        told = Progress(self._progress, shown_total, plain_text(text, MOST_PROGRESS_TEXT))
        self._news = [*self._news[1 - MOST_NEWS :], told]

    def _add_result(self, result: bytes) -> bytes:
        if self._method == "chat":
            text = read_message(result, frozenset()).text
        else:
            text = result if result[:1] == b'"' else _encode(result.decode())
        self._add_text([text])
        return result

    def _close_text(self) -> None:
        if self._chunks:
            self._blocks.append(b'{"type":"text","text":%b}' % join_chunks(self._chunks))
            self._chunks = []

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > MAX_COLLECTED_BYTES:
            raise InvalidAgentResponse(
                f"the answer has more than {MAX_COLLECTED_BYTES} bytes, the most that a tool's "
                "result may hold"
            )


def file_block(file: File, agent: str, version: str) -> bytes:
    """A file as a block of content, in the version of the protocol."""
    if not isinstance(file.data, bytes):
        path = str(file.path)
        if version < "2025-06-18":
            return _encode({"type": "text", "text": f"[{file.name}]({path})"})
        link = path if ":" in path.partition("/")[0] else "file:///" + quote(path.lstrip("/"))
        shown = {"uri": link, "name": file.name, "mimeType": file.mime}
        return _encode({"type": "resource_link", **shown})
    kind = file.mime.partition("/")[0]
    if kind == "image" or (kind == "audio" and version > "2024-11-05"):
        return _encode({"type": kind, "data": file.data, "mimeType": file.mime})
    uri = f"agent://{quote(agent, safe='')}/{quote(file.name, safe='')}"
    resource: dict[str, Any] = {"uri": uri, "mimeType": file.mime}
    try:
        if kind != "text":
            raise ValueError
        resource["text"] = file.data.decode()
    except ValueError:
        resource["blob"] = file.data
    return _encode({"type": "resource", "resource": resource})


def _meta(outcome: Outcome | None) -> bytes:
    meta: dict[str, object] = {}
    if outcome is not None and outcome.usage is not None:
        meta[f"{PREFIX}usage"] = Raw(outcome.usage)
    if outcome is not None and outcome.finish not in {None, "stop"}:
        meta[f"{PREFIX}finish"] = outcome.finish
    return _encode(meta)


def error_content(type_: str, message: str, details: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """What a failed call says: its content, and its `_meta`."""
    text = _encode({"type": "text", "text": f"{type_}: {message}"})
    error = {**details, "type": type_, "message": message}
    return text, _encode({f"{PREFIX}error": error}, enc_hook=str)


def object_in(text: bytes) -> bytes | None:
    """The JSON object that a JSON string holds, on one line; None if it holds anything else."""
    inner = msgspec.json.decode(text, type=str).encode("utf-8", "surrogatepass").strip()
    try:
        msgspec.json.decode(inner, type=dict[str, Raw])
    except (msgspec.MsgspecError, RecursionError):
        return None
    return on_one_line(inner)
