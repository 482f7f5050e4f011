"""A recording: one request, and what a worker said to it. `gateway --record DIR` writes them.

The recorded lines go through the same state machine as a gateway's do, so an answer that a gateway
refused is one that broke the protocol here, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, field

from protocol import Method
from protocol.gateway_side import GatewayConnection

from .answer import Answer

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMAT = 1
"""The version of the format that is read here."""

ANSWERED = "answered"
WORKER_ENDED = "worker ended"
ENDED = "the worker ended before it had answered"


class NotARecording(Exception):  # noqa: N818 - what is wrong with a file, not a defect
    """The message says why."""


class _Header(Struct):
    recording: int
    agent: str
    request_id: str
    started: str
    ready: Raw | UnsetType = UNSET


class _Entry(Struct):
    at: float
    to: Raw | UnsetType = UNSET
    from_: Raw | UnsetType = field(name="from", default=UNSET)
    text: str | UnsetType = UNSET
    end: str | UnsetType = UNSET


class Params(Struct):
    """What has to be known of a request's parameters."""

    request_id: str = ""
    stream: bool = False
    events: bool = False


class Message(Struct, omit_defaults=True):
    """A line to a worker: a request, or a cancel, which has no id of its own."""

    jsonrpc: str
    method: str
    params: Raw
    id: int | UnsetType = UNSET


class Recording:
    """One recorded request."""

    def __init__(self, path: str) -> None:
        """Raises NotARecording and OSError."""
        self.path = path
        with open(path, "rb") as file:
            lines = file.read().removesuffix(b"\n").split(b"\n")  # JSON may have a \r in it
        try:
            self._header = msgspec.json.decode(lines[0], type=_Header)
            entries = [msgspec.json.decode(line, type=_Entry) for line in lines[1:]]
            told = [
                (entry.at, msgspec.json.decode(entry.to, type=Message))
                for entry in entries
                if entry.to is not UNSET
            ]
            if not told or told[0][1].id is UNSET:
                raise NotARecording(f"{path} holds no request")
            self.request = told[0][1]
            self.method: Method = msgspec.convert(self.request.method, Method)
            self.params = msgspec.json.decode(self.request.params, type=Params)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise NotARecording(f"{path} is not a recording: {error}") from None
        if self._header.recording != FORMAT:
            raise NotARecording(
                f"{path} has format {self._header.recording}, and this reads {FORMAT}"
            )
        self.answer = Answer(self.method)
        self.cancelled_after: int | None = None
        """Characters of text that had come when the request was cancelled, if it was."""
        self._play(entries)

    @property
    def is_cut(self) -> bool:
        """Whether only the beginning of the answer is known."""
        return self.cancelled_after is not None or not self.answer.is_whole

    def _play(self, entries: list[_Entry]) -> None:
        assert isinstance(self.request.id, int)
        connection = GatewayConnection(ids=iter((self.request.id,)))
        if self._header.ready is not UNSET:
            connection.receive_data(bytes(self._header.ready) + b"\n")
        register(connection, self)
        for entry in entries:
            if entry.to is not UNSET:
                if entry.at and msgspec.json.decode(entry.to, type=Message).method == "cancel":
                    self.cancelled_after = len(self.answer.value.get("text", ""))
            elif entry.end is not UNSET:
                if entry.end == WORKER_ENDED and not self.answer.is_whole:
                    self.answer.end_without(ENDED)
            else:
                for message in connection.receive_data(b"".join(_said(entry))):
                    self.answer.add(message, entry.at)


def register(connection: GatewayConnection, recording: Recording) -> int:
    """Have a connection know the request, so that it can judge the answer; returns its id.

    What it would send instead is given up: the worker gets what was recorded."""
    wire_id, _ = connection.send_request(
        recording.method,
        b"[]",
        stream=recording.params.stream,
        request_id="",
        events=recording.params.events,
    )
    return wire_id


def _said(entry: _Entry) -> Iterator[bytes]:
    if entry.from_ is not UNSET:
        yield bytes(entry.from_) + b"\n"
    elif entry.text is not UNSET:
        yield entry.text.encode() + b"\n"
