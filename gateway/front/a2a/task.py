"""A task as it is kept and as it is shown.

Theory of operation
-------------------

A task is a run, or several, one after the other, where the agent asks and the client goes on: each
takes the place and the id of the one before it. What a task is at some moment is its *record*: six
JSON texts, each on one line, which is what the run tells (`RunCodec.tell`) and what is kept of it
once it has ended. Whoever asks for the task gets what is made of the record: without artifacts,
with part of the history, in a list. What is needed to go on from a question is in the record as
well, and is never shown; so nothing is kept of a task but what its run keeps, within its bounds.

The record is divided so that what is small comes first: to filter a hundred tasks, nobody reads
their artifacts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec import Raw, Struct

from gateway.errors import InvalidAgentResponse

if TYPE_CHECKING:
    from collections.abc import Sequence

PREFIX = "task_"
"""What a task's id begins with."""

MAX_OUTPUT = 4 * 1024 * 1024
"""Bytes of what an agent says that a task keeps, as artifacts: it is told again whenever somebody
asks for the task."""

MAX_HISTORY = 256 * 1024
"""Bytes of the messages of a task that are kept, and of what is needed to go on from it."""

ARTIFACT_COST = 256
"""Bytes that an artifact takes beside its content: an agent may send any number of empty files."""

SUBMITTED = "TASK_STATE_SUBMITTED"
WORKING = "TASK_STATE_WORKING"
COMPLETED = "TASK_STATE_COMPLETED"
FAILED = "TASK_STATE_FAILED"
CANCELED = "TASK_STATE_CANCELED"
INPUT_REQUIRED = "TASK_STATE_INPUT_REQUIRED"
REJECTED = "TASK_STATE_REJECTED"
TERMINAL = frozenset({COMPLETED, FAILED, CANCELED, REJECTED})

STATES = (
    SUBMITTED,
    WORKING,
    COMPLETED,
    FAILED,
    CANCELED,
    INPUT_REQUIRED,
    REJECTED,
    "TASK_STATE_AUTH_REQUIRED",
)

_encode = msgspec.json.encode
_decode_list = msgspec.json.Decoder(list[Raw]).decode


class Summary(Struct, frozen=True, gc=False):
    """What tasks are filtered and sorted by."""

    id: str
    context: str
    state: str
    timestamp: str
    """When the state was entered (`clock.utc_text`): they sort as texts."""


class Pending(Struct, frozen=True, gc=False):
    """What is needed to go on from a task that waits for its client."""

    method: str
    payload: Raw
    """What the agent was sent: the input of an invoke, or the messages of a chat."""
    context: Raw
    asks: Raw = Raw(b"null")
    """The agent's questions, as it told them; or"""
    calls: list[PendingCall] = []
    """the calls of the client's tools whose results the agent waits for."""
    tools: Raw = Raw(b"null")
    """The client's tools, as the agent was offered them."""
    said: str = ""
    """The text of the turn that ended with the calls."""


class PendingCall(Struct, frozen=True, gc=False):
    id: str
    name: str
    arguments: str
    """A JSON text."""


_decode_summary = msgspec.json.Decoder(Summary).decode
_decode_pending = msgspec.json.Decoder(Pending | None).decode


class Record(NamedTuple):
    """See the module's docstring. JSON texts, each on one line."""

    summary: bytes
    status: bytes
    metadata: bytes
    """An object, or null."""
    history: bytes
    pending: bytes
    """A `Pending`, or null."""
    artifacts: bytes

    @classmethod
    def read(cls, text: bytes) -> Record:
        """The record that `write` has written."""
        return cls(*text.split(b"\n"))

    @staticmethod
    def summary_of(text: bytes) -> Summary:
        """The summary of a record that `write` has written, or of the beginning of one."""
        end = text.find(b"\n")
        return _decode_summary(text if end < 0 else text[:end])

    def write(self) -> bytes:
        return b"\n".join(self)

    @property
    def task(self) -> Summary:
        return _decode_summary(self.summary)

    @property
    def waits_for(self) -> Pending | None:
        """What the task waits for, if that is kept."""
        pending: Pending | None = _decode_pending(self.pending)
        return pending

    def show(self, *, messages: int | None = None, artifacts: bool = True) -> bytes:
        """The `Task` as a JSON text, with so many of the latest messages of its history (None: with
        all)."""
        task = self.task
        members = [
            b'"id":%b,"contextId":%b,"status":%b'
            % (_encode(task.id), _encode(task.context), self.status)
        ]
        if artifacts and self.artifacts != b"[]":
            members.append(b'"artifacts":' + self.artifacts)
        if messages != 0 and (history := _latest(self.history, messages)) != b"[]":
            members.append(b'"history":' + history)
        if self.metadata != b"null":
            members.append(b'"metadata":' + self.metadata)
        return b"{%b}" % b",".join(members)

    def with_status(self, state: str, timestamp: str) -> Record:
        """The same task in another state, which says nothing and waits for nobody."""
        task = self.task
        summary = Summary(task.id, task.context, state, timestamp)
        status = _encode({"state": state, "timestamp": timestamp})
        return self._replace(summary=_encode(summary), status=status, pending=b"null")

    def update(self) -> bytes:
        """The event of the task's state, without its blank line."""
        task = self.task
        update = {"taskId": task.id, "contextId": task.context, "status": Raw(self.status)}
        return b"data: " + _encode({"statusUpdate": update})


def _latest(history: bytes, messages: int | None) -> bytes:
    if messages is None:
        return history
    return _encode(_decode_list(history)[-messages:])


class Artifacts:
    """The artifacts of a task, those of earlier runs included. Methods raise InvalidAgentResponse
    for more than `MAX_OUTPUT`, and then nothing has changed."""

    __slots__ = ("_ended", "_held", "_text", "_text_id", "count")

    def __init__(self, earlier: bytes = b"[]") -> None:
        self._ended: list[bytes] = [bytes(each) for each in _decode_list(earlier)]
        self._held = sum(map(len, self._ended))
        self.count = len(self._ended)
        """How many there are; that of the text, which is open, included."""
        self._text = bytearray()
        """The inside of a JSON string. One buffer: chunks may have a byte or two each."""
        self._text_id = ""

    @property
    def has_text(self) -> bool:
        """Whether this run has said any, be it empty."""
        return bool(self._text_id)

    def text(self, inside: bytes) -> tuple[str, bool]:
        """Add text, the inside of a JSON string; returns the artifact's id, and whether it is the
        first of its text."""
        first = not self._text_id
        self._hold(len(inside) + (ARTIFACT_COST if first else 0))
        if first:
            self._text_id = self._new_id()
        self._text += inside
        return self._text_id, first

    def add(self, name: str, part: bytes) -> bytes:
        """Add an artifact of one part, a JSON text; returns the artifact."""
        self._hold(len(part) + ARTIFACT_COST)
        artifact = _artifact(self._new_id(), name, part)
        self._ended.append(artifact)
        return artifact

    def _new_id(self) -> str:
        self.count += 1
        return f"artifact-{self.count}"

    def _hold(self, size: int) -> None:
        if self._held + size > MAX_OUTPUT:
            raise InvalidAgentResponse(
                f"the answer has more than {MAX_OUTPUT} bytes, the most that a task may have as "
                "artifacts"
            )
        self._held += size

    @property
    def said(self) -> bytes:
        """The text of this run, a JSON string."""
        return b'"%b"' % bytes(self._text)

    def render(self) -> bytes:
        """The JSON text of all."""
        found = list(self._ended)
        if self._text_id:
            # Numbered when it began, and shown there: the others may be files that came later.
            text = _artifact(self._text_id, TEXT_NAME, b'{"text":%b}' % self.said)
            found.insert(int(self._text_id.removeprefix("artifact-")) - 1, text)
        return b"[%b]" % b",".join(found)


TEXT_NAME = "answer"


def _artifact(artifact_id: str, name: str, part: bytes) -> bytes:
    return b'{"artifactId":%b,"name":%b,"parts":[%b]}' % (
        _encode(artifact_id),
        _encode(name),
        part,
    )


def message(message_id: str, parts: Sequence[Any], **more: Any) -> dict[str, Any]:
    """A message of the agent's. `parts` are objects, or JSON texts as `Raw`."""
    return {"messageId": message_id, "role": "ROLE_AGENT", "parts": list(parts), **more}
