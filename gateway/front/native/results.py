"""The fallback both ways between the two forms of an answer: one result, or chunks; and what stands
beside the answer for a client that asked for events."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw, Struct

from gateway.front.dialect import join_chunks, text_runs
from protocol import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.exchange import Exchange
    from protocol import Method, Payload


class _ChatMessage(Struct, gc=False):
    content: Raw = Raw(b"null")
    tool_calls: Raw = Raw(b"null")


_decode_message = msgspec.json.Decoder(_ChatMessage).decode


def as_chunk(method: Method, result: Payload) -> bytes:
    """One result as the one chunk of a stream: a string as it is, anything else as JSON text.

    A chat's message counts as its content, unless it holds more than that (tool calls).
    """
    if method == "chat":
        message = _decode_message(result)
        content = bytes(message.content)
        if content[:1] == b'"' and bytes(message.tool_calls) == b"null":
            return content
    else:
        content = bytes(result)
        if content[:1] == b'"':
            return content
    return msgspec.json.encode(str(result, "utf-8"))


def as_body(
    method: Method, result: Payload | None, chunks: Sequence[bytes], more: bytes = b""
) -> bytes:
    """The body of one JSON answer: the result, or the chunks joined to one string.

    `more` are further members, each with a comma before it.
    """
    if result is None:
        joined = join_chunks(chunks)
        result = joined if method == "invoke" else b'{"role":"assistant","content":%b}' % joined
    key = b'{"output":' if method == "invoke" else b'{"message":'
    return b"".join((key, result, more, b"}"))


def as_body_with_events(exchange: Exchange, words: Sequence[bytes]) -> bytes:
    """The same as `as_body`, and what else was said: `finish`, `usage`, `asks` and `events`."""
    chunks: list[bytes] = []
    events: list[bytes] = []
    for texts, event in text_runs(words):
        if event is None:
            chunks += texts
        else:
            events.append(event)
    outcome = exchange.outcome or Outcome()
    more = b',"finish":%b,"usage":%b,"asks":%b,"events":[%b]' % (
        b"null" if outcome.finish is None else b'"%b"' % outcome.finish.encode(),
        outcome.usage or b"null",
        outcome.asks or b"[]",
        b",".join(events),
    )
    return as_body(exchange.call.method, exchange.result, chunks, more)


def outcome_members(outcome: Outcome | None) -> bytes:
    """What an outcome tells, as members of an object; nothing if it tells nothing."""
    if outcome is None:
        return b""
    finish = None if outcome.finish is None else b'"%b"' % outcome.finish.encode()
    members = ((b"finish", finish), (b"usage", outcome.usage), (b"asks", outcome.asks))
    return b",".join([b'"%b":%b' % (key, value) for key, value in members if value is not None])
