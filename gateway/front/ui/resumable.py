"""Which run the stream of a chat is, for a page that comes back for it.

A page knows the id of its chat and nothing else (`useChat({resume: true})`). Ids are the
pages' own: each is known under the credential that it was used with. The oldest is forgotten first;
each takes a digest and the id of a run.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from gateway.front.dialect import MOST_CONVERSATION_ID

if TYPE_CHECKING:
    from gateway.front.dialect import RequestHead

MOST_CHATS = 10_000
"""Chats whose last run is known: as many as runs are kept, unless that is changed."""


class Resumable:
    """The last run of each chat, by its token."""

    def __init__(self) -> None:
        self._tokens: dict[bytes, str] = {}

    def put(self, chat: bytes, token: str) -> None:
        self._tokens.pop(chat, None)
        self._tokens[chat] = token
        if len(self._tokens) > MOST_CHATS:
            del self._tokens[next(iter(self._tokens))]

    def get(self, chat: bytes) -> str | None:
        return self._tokens.get(chat)


def chat_of(head: RequestHead, agent: str, chat: str) -> bytes | None:
    """A digest of a chat, its agent, and whose it is; None: it has no id that is taken."""
    if not chat or len(chat) > MOST_CONVERSATION_ID:
        return None
    digest = blake2b(digest_size=16)
    fields = head.fields
    whose = (
        head.owner.encode()
        if head.owner
        else b"\0%b\0%b"
        % (
            fields.get(b"authorization", b""),
            fields.get(b"x-api-key", b""),
        )
    )
    for each in (whose, agent.encode(), chat.encode()):
        digest.update(b"%d:" % len(each))
        digest.update(each)
    return digest.digest()
