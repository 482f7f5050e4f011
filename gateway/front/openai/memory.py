"""What was said lately, for clients that name it instead of sending it again.

Some clients (the AI SDK, unless it is told `store: false`) do not send an assistant's earlier words
back, but a reference to their item; and a client may name the last response instead of the
conversation that it belongs to. Both are answered from what this gateway has said itself, for as
long as it is remembered: the memory is bounded in things and bytes, the oldest is forgotten first,
and a restart forgets all. What is not known is refused, never left out.

The ids are unguessable: whoever has one was told what it stands for. Each is known under the key of
its caller alone, whose name is the `owner` here, all the same: others may come to see an id.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from msgspec import Struct

MOST_ITEMS = 4096
MOST_ITEM_BYTES = 128 * 1024
"""A longer item is not remembered at all."""
MOST_BYTES = 8 * 1024 * 1024
"""Of all items together, `ITEM_COST` included."""
ITEM_COST = 256
"""Bytes that an item takes beside its text."""

MOST_RESPONSES = 4096
"""Each takes less than 1 KiB: a conversation's id is bounded."""

V = TypeVar("V")


class Place(Struct, frozen=True, gc=False):
    """A conversation with one agent, of the key with the name `owner`, if there are keys."""

    owner: str
    agent: str
    conversation: str


class _Bounded(Generic[V]):
    """A dict of which the oldest entries are forgotten."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._entries: dict[str, tuple[V, int]] = {}
        self._bytes = 0

    def put(self, key: str, value: V, size: int) -> None:
        self.drop(key)
        self._entries[key] = value, size
        self._bytes += size
        while len(self._entries) > self._most or self._bytes > self._most_bytes:
            self.drop(next(iter(self._entries)))

    def get(self, key: str) -> V | None:
        entry = self._entries.get(key)
        return None if entry is None else entry[0]

    def drop(self, key: str) -> None:
        _, size = self._entries.pop(key, (None, 0))
        self._bytes -= size


class Memory:
    """The items and the last responses that one gateway remembers."""

    def __init__(self) -> None:
        self._items: _Bounded[bytes] = _Bounded(MOST_ITEMS, MOST_BYTES)
        self._places: _Bounded[Place] = _Bounded(MOST_RESPONSES, MOST_BYTES)
        self._last: dict[Place, str] = {}
        """The id of the last response in each conversation of `_places`."""

    def keep_item(self, owner: str, item_id: str, item: bytes) -> None:
        """Remember an item of a response's output, a JSON text."""
        if len(item) <= MOST_ITEM_BYTES:
            self._items.put(f"{owner}/{item_id}", item, len(item) + ITEM_COST)

    def item(self, owner: str, item_id: str) -> bytes | None:
        return self._items.get(f"{owner}/{item_id}")

    def keep_response(self, response_id: str, place: Place) -> None:
        """Remember that a response is the last one of its conversation."""
        before = self._last.get(place)
        if before is not None:
            self._places.drop(before)
        self._last[place] = response_id
        self._places.put(response_id, place, ITEM_COST)
        if len(self._last) > 2 * MOST_RESPONSES:
            known = self._places
            self._last = {at: last for at, last in self._last.items() if known.get(last)}

    def place(self, response_id: str) -> Place | None:
        """The conversation whose last response this is; None: it is not known, or not the last."""
        return self._places.get(response_id)
