"""The output of a Response, item by item, and the events that tell of it.

Theory of operation
-------------------

A Response's output is a list of items: the agent's reasoning, its message, images, calls of the
client's tools. `Output` takes what the agent says in the order in which it is said, and returns the
events for it; beside that it keeps every item that has ended, since the Response is told once more,
whole, at its end. At most one item is open: text opens a message, reasoning opens a reasoning item,
and whatever is of another kind ends the open one first. An answer without any item still has one
message, which is empty.

    text        output_item.added  content_part.added            output_text.delta …
                output_text.done   content_part.done             output_item.done
    reasoning   output_item.added  reasoning_summary_part.added  reasoning_summary_text.delta …
                reasoning_summary_text.done  reasoning_summary_part.done  output_item.done
    image       output_item.added  output_item.done
    call        output_item.added  function_call_arguments.delta, .done  output_item.done

Every event has a `sequence_number`, from 0 on, one more than that of the event before it.
Event types and members are those of OpenAI's API reference, "Streaming events".
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from gateway.errors import InvalidAgentResponse
from gateway.front.chats.answer import Content
from gateway.front.chats.parts import in_fewer_events
from protocol import on_one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.front.chats.calls import FunctionCall
    from protocol.events import File

MAX_OUTPUT = 2 * 1024 * 1024
"""Bytes of text, reasoning and images that a Response may have in all: at its end each is told four
times, in one part. A chat completion tells nothing twice, and has no such limit."""

MOST_ITEMS = 4096
"""Of messages, reasoning and images: an agent may begin one with every word, and say nothing in it.
"""

MOST_PIECES = 2048
"""Pieces of an item that are kept as they came. They may be shorter than what each takes beside its
text; joined earlier, a long text would be copied more often."""

_encode = msgspec.json.encode


class _Open:
    """An item that is being said: a message, or reasoning."""

    __slots__ = ("delta", "id", "index", "is_text", "pieces")

    def __init__(self, index: int, *, is_text: bool) -> None:
        self.index = index
        self.is_text = is_text
        self.id = _new_id("msg" if is_text else "rs")
        self.pieces: list[bytes] = []
        """The insides of JSON strings; see `add`."""
        kind = b"output_text" if is_text else b"reasoning_summary_text"
        part = b'"content_index":0,"logprobs":[]' if is_text else b'"summary_index":0'
        self.delta = (
            b'event: response.%b.delta\ndata: {"type":"response.%b.delta","item_id":"%b",'
            b'"output_index":%d,%b,"sequence_number":' % (kind, kind, self.id.encode(), index, part)
        )
        """What an event of its text begins with."""

    @property
    def text(self) -> bytes:
        """What was said so far, a JSON string."""
        return b'"%b"' % b"".join(self.pieces)

    def add(self, inside: bytes) -> None:
        if not inside:
            return
        self.pieces.append(inside)
        if len(self.pieces) >= MOST_PIECES:
            self.pieces = [b"".join(self.pieces)]

    def part(self, text: bytes) -> dict[str, Any]:
        if self.is_text:
            return {"type": "output_text", "text": Raw(text), "annotations": [], "logprobs": []}
        return {"type": "summary_text", "text": Raw(text)}

    def item(self, text: bytes | None, status: str) -> dict[str, Any]:
        """The item with that text; None: nothing was said yet."""
        parts = [] if text is None else [self.part(text)]
        if self.is_text:
            return {
                "id": self.id,
                "type": "message",
                "status": status,
                "role": "assistant",
                "content": parts,
            }
        return {"id": self.id, "type": "reasoning", "summary": parts}


class Output(Content):
    """A `Content`; see the module's docstring. Every method returns events, as they are sent.

    Methods raise InvalidAgentResponse for more than `MAX_OUTPUT` or `MOST_ITEMS`, and then nothing
    has changed.
    """

    __slots__ = ("_held", "_open", "_sequence", "items")

    def __init__(self) -> None:
        self.items: list[tuple[str, bytes]] = []
        """The items that have ended: the id and the JSON text of each."""
        self._open: _Open | None = None
        self._sequence = 0
        self._held = 0

    def event(self, kind: str, **members: Any) -> bytes:
        """One event of the type `response.{kind}`, or `kind` where that is `error`."""
        name = kind if kind == "error" else f"response.{kind}"
        data = _encode({"type": name, "sequence_number": self._sequence, **members})
        self._sequence += 1
        return b"event: %b\ndata: %b\n\n" % (name.encode(), on_one_line(data))

    def text(self, texts: Sequence[bytes]) -> bytes:
        """Text of the message, JSON strings."""
        return self._say(texts, is_text=True)

    def reasoning(self, text: bytes) -> bytes:
        """A piece of reasoning, a JSON string."""
        return self._say([text], is_text=False)

    def nothing(self) -> bytes:
        """Without any item, the output is a message that says nothing."""
        return b"" if self._open is not None or self.items else self._begin(is_text=True)

    def file(self, file: File) -> bytes | None:
        """An image that the agent made, as base64."""
        if not file.mime.startswith("image/") or not isinstance(file.data, bytes):
            return None
        result = _encode(file.data)
        self._check_items()
        self._hold(len(result))
        image = {
            "id": _new_id("ig"),
            "type": "image_generation_call",
            "status": "completed",
            "result": Raw(result),
        }
        events = [
            self.close(),
            self._added({**image, "status": "in_progress", "result": None}),
            self._done(image),
        ]
        return b"".join(events)

    def calls(self, calls: Sequence[FunctionCall]) -> bytes:
        return self.close() + b"".join([self._call(call) for call in calls])

    def _call(self, call: FunctionCall) -> bytes:
        item = {
            "id": _new_id("fc"),
            "type": "function_call",
            "status": "completed",
            "call_id": call.id,
            "name": call.name,
            "arguments": call.arguments,
        }
        place = {"item_id": item["id"], "output_index": len(self.items)}
        kind = "function_call_arguments"
        events = [
            self._added({**item, "status": "in_progress", "arguments": ""}),
            self.event(f"{kind}.delta", **place, delta=call.arguments),
            self.event(f"{kind}.done", **place, name=call.name, arguments=call.arguments),
            self._done(item),
        ]
        return b"".join(events)

    def close(self, status: str = "completed") -> bytes:
        """The end of the open item, if there is one."""
        opened, self._open = self._open, None
        if opened is None:
            return b""
        text = opened.text
        events = []
        place = {"item_id": opened.id, "output_index": opened.index}
        if opened.is_text:
            place["content_index"] = 0
            events.append(self.event("output_text.done", **place, text=Raw(text), logprobs=[]))
            events.append(self.event("content_part.done", **place, part=opened.part(text)))
        else:
            place["summary_index"] = 0
            kind = "reasoning_summary"
            events.append(self.event(f"{kind}_text.done", **place, text=Raw(text)))
            events.append(self.event(f"{kind}_part.done", **place, part=opened.part(text)))
        events.append(self._done(opened.item(text, status)))
        return b"".join(events)

    def _say(self, texts: Sequence[bytes], *, is_text: bool) -> bytes:
        texts = in_fewer_events(texts)
        inside = b"".join([text[1:-1] for text in texts])
        if not inside.isascii():  # some clients end lines at U+2028, as `str.splitlines` does
            texts = [on_one_line(text) for text in texts]
            inside = on_one_line(inside)
        begins = self._open is None or self._open.is_text is not is_text
        if begins:
            self._check_items()
        self._hold(len(inside))
        opening = self.close() + self._begin(is_text=is_text) if begins else b""
        opened = self._open
        assert opened is not None
        opened.add(inside)
        start = self._sequence
        self._sequence += len(texts)
        numbered = [b'%d,"delta":%b' % each for each in enumerate(texts, start)]
        return b"%b%b%b}\n\n" % (opening, opened.delta, (b"}\n\n" + opened.delta).join(numbered))

    def _begin(self, *, is_text: bool) -> bytes:
        self._open = opened = _Open(len(self.items), is_text=is_text)
        added = self._added(opened.item(None, "in_progress"))
        place = {"item_id": opened.id, "output_index": opened.index}
        kind, number = (
            ("content_part", "content") if is_text else ("reasoning_summary_part", "summary")
        )
        place[f"{number}_index"] = 0
        return added + self.event(f"{kind}.added", **place, part=opened.part(b'""'))

    def _added(self, item: dict[str, Any]) -> bytes:
        return self.event("output_item.added", output_index=len(self.items), item=item)

    def _done(self, item: dict[str, Any]) -> bytes:
        text = _encode(item)
        event = self.event("output_item.done", output_index=len(self.items), item=Raw(text))
        self.items.append((item["id"], text))
        return event

    def _check_items(self) -> None:
        if len(self.items) >= MOST_ITEMS:
            raise InvalidAgentResponse(
                f"the answer has more than {MOST_ITEMS} items (texts, reasoning, images), the most "
                "that a Response may have; a chat completion may have more"
            )

    def _hold(self, size: int) -> None:
        if self._held + size > MAX_OUTPUT:
            raise InvalidAgentResponse(
                f"the answer has more than {MAX_OUTPUT} bytes, the most that a Response may have; "
                "a chat completion may have more"
            )
        self._held += size


def _new_id(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(16)}"
