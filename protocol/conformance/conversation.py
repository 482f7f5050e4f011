"""One worker's life in the suite: carries out the steps of cases and finds what is wrong.

# Theory of operation

`GatewayConnection` judges each line that comes, as it does in the gateway: a violation ends the
case at once, whatever was being waited for. What a legal line says is put together here, request by
request, and compared with what a case expects once the answer is whole. A case may be followed by
another one in the same process; after a failure, or when stdin was closed, the next one needs a new
process.

Every step has a deadline. Until the worker has said anything, the time that a start may take is
added to it: a framework may take long to load, and nothing is wrong with that.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from protocol.conformance.cases import (
    Expected,
    ExpectedError,
    Step,
    answers_expected,
    lines_to_send,
)
from protocol.conformance.process import Process, WorkerSilent
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.gateway_side import GatewayConnection, WorkerState
from protocol.messages import Chunk, End, Event, Failure, Malformed, Method, Ready, Result

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_SHOWN = 300
"""Characters of a line that a report shows."""
_SHOWN_LINES = 12
"""Lines of the conversation that a report shows."""
_EXIT_GRACE = 1.0
"""Seconds between the end of a worker's stdout and its own: both happen when it exits."""
_UNKNOWN_METHOD = -32601
SCRIPT_NOT_KNOWN = "the agent does not carry out this instruction (-32601)"


class Finding(Exception):  # noqa: N818 - a report, not a defect of the suite
    """What a worker did wrong."""

    def __init__(self, wrong: str, *, expected: str = "", came: str = "") -> None:
        super().__init__(wrong)
        self.wrong = wrong
        self.expected = expected
        self.came = came


class NotApplicable(Exception):  # noqa: N818 - the same
    """The case says nothing about this worker; the message says why."""


@dataclass(slots=True)
class Answer:
    """What has come for one request."""

    method: Method
    asked: bool = False
    """Whether the request asks for events."""
    chunks: list[str] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)
    end: Result | End | Failure | None = None

    def __str__(self) -> str:
        parts = [f"the chunks {_short(repr(''.join(self.chunks)))}"] if self.chunks else []
        if self.events:
            parts.append(f"the events {_as_json(self.events)}")
        if isinstance(self.end, Result):
            parts.append(f"the result {_as_json(self.result)}")
        elif isinstance(self.end, End):
            parts.append("the end of chunks, {}")
        elif isinstance(self.end, Failure):
            parts.append(f"error {self.end.code}, {_short(repr(self.end.message))}")
        else:
            parts.append("no end yet")
        if self.outcome:
            parts.append(f"the outcome {_as_json(self.outcome)}")
        return " and ".join(parts)

    @property
    def result(self) -> Any:
        """The member `result` of the answer that has come."""
        if not isinstance(self.end, Result):
            return {}
        key = "output" if self.method == "invoke" else "message"
        return {key: msgspec.json.decode(self.end.value)}

    @property
    def outcome(self) -> dict[str, Any]:
        """The members that say how the answer ended."""
        outcome = None if self.end is None or isinstance(self.end, Failure) else self.end.outcome
        if outcome is None:
            return {}
        members: dict[str, Any] = {} if outcome.finish is None else {"finish": outcome.finish}
        for key, value in (("usage", outcome.usage), ("asks", outcome.asks)):
            if value is not None:
                members[key] = msgspec.json.decode(value)
        return members


@dataclass(frozen=True, slots=True)
class Clocks:
    """How long a worker may take, in seconds."""

    step: float
    start: float
    """Added to `step` until the worker has said anything."""


class _Params(Struct):
    events: bool = False


class _Head(Struct):
    id: int | UnsetType = UNSET
    method: str = ""
    params: Raw = Raw(b"{}")


class _Ids:
    """The ids that the files of the suite give to requests."""

    def __init__(self) -> None:
        self.next = 0

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        return self.next


class Conversation:
    """A worker's process and all that was said with it."""

    def __init__(self, process: Process, *, clocks: Clocks, agent_input: str) -> None:
        self._process = process
        self._clocks = clocks
        self._deadline = 0.0
        self._input = agent_input
        self._ids = _Ids()
        self._connection = GatewayConnection(ids=self._ids)
        self._answers: dict[int, Answer] = {}
        self._sent_ids: set[int] = set()
        self.ready: Ready | None = None
        self.stdin_closed = False
        self.lines: list[str] = []
        """What was said, as a report shows it."""

    @property
    def sends_ready(self) -> bool:
        return self._connection.worker_state is WorkerState.READY

    def carry_out(self, step: Step) -> None:
        """Do what a step says. Raises Finding and NotApplicable."""
        self._set_deadline()
        if step.send is not UNSET:
            self._send(step)
        elif step.expect is not UNSET:
            for expected in answers_expected(step, agent_input=self._input):
                self._expect(expected)
        elif step.close is not UNSET:
            self.lines.append("  (stdin is closed)")
            self.stdin_closed = True
            self._process.close_stdin()
        elif step.exit is not UNSET:
            self._expect_exit(step.exit)

    def wait_for_ready(self) -> None:
        """Wait for the worker's first line. Raises Finding."""
        self._set_deadline()
        while self.ready is None:
            self._receive("ready, as at this worker's first start")
        if not self.sends_ready:
            raise Finding("ready did not come first")

    def catch_up(self) -> None:
        """Judge what has come already, without waiting. Raises Finding."""
        try:
            while not self._process.ended:
                self._take(self._process.receive(0.0))
        except WorkerSilent:
            pass

    def last_of_stderr(self) -> str:
        return self._process.last_of_stderr()

    def shown_lines(self) -> Sequence[str]:
        """The end of what was said, `→` to the worker and `←` from it."""
        left_out = len(self.lines) - _SHOWN_LINES
        head = [f"  ({left_out} lines before)"] if left_out > 0 else []
        return [*head, *self.lines[-_SHOWN_LINES:]]

    @property
    def _silent(self) -> bool:
        return self._connection.worker_state is WorkerState.SILENT

    def _set_deadline(self) -> None:
        start = self._clocks.start if self._silent else 0.0
        self._deadline = time.monotonic() + self._clocks.step + start

    def _send(self, step: Step) -> None:
        texts = lines_to_send(step, agent_input=self._input)
        for text in texts:
            self.lines.append(f"→ {_short(text.decode())}")
            self._register(text)
        data = b"".join(text + b"\n" for text in texts)
        if step.pieces == 1:
            self._process.send(data)
            return
        size = -(-len(data) // step.pieces)
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        try:
            self._process.send_apart(pieces, self._deadline)
        except WorkerSilent:
            raise Finding(
                f"it did not read its stdin within {self._clocks.step:g} s",
                expected="a reader that takes what there is, also when no line is whole",
            ) from None

    def _register(self, text: bytes) -> None:
        """Have the connection know a request, so that it can judge the answer."""
        head = msgspec.json.decode(text, type=_Head)
        if head.id is UNSET or head.id in self._sent_ids:
            return
        self._sent_ids.add(head.id)
        self._ids.next = head.id
        asked = (
            bytes(head.params)[:1] == b"{" and msgspec.json.decode(head.params, type=_Params).events
        )
        # A method that nobody knows must be refused, which is legal for every method.
        method: Method = "chat" if head.method == "chat" else "invoke"
        self._answers[head.id] = Answer(method, asked)
        try:
            # Events are looked at in any case: a gateway drops those that it did not ask for.
            self._connection.send_request(method, b"[]", stream=False, request_id="", events=True)
        except LocalProtocolError as error:
            raise Finding(str(error)) from None

    def _expect(self, expected: Expected) -> None:
        answer = self._answers[expected.id]
        what = _in_words(expected)
        while not (answer.end or (expected.open and "".join(answer.chunks) == expected.chunks)):
            self._receive(what, answer)
        if _is_unknown_instruction(expected, answer):
            raise NotApplicable(SCRIPT_NOT_KNOWN)
        if (wrong := _difference(expected, answer)) is not None:
            raise Finding(wrong, expected=what, came=str(answer))

    def _expect_exit(self, status: int) -> None:
        what = f"the worker's end with status {status}"
        while not self._process.ended:
            self._receive(what)
        try:
            found = self._process.exit_status(self._deadline)
        except WorkerSilent:
            raise Finding(
                f"it closed its stdout, but did not end within {self._clocks.step:g} s",
                expected=what,
            ) from None
        if found != status:
            said = f"signal {-found}" if found < 0 else f"status {found}"
            raise Finding(f"it ended with {said}", expected=what)
        if unanswered := self._connection.in_flight:
            raise Finding(f"it ended and left {len(unanswered)} requests without an answer")

    def _receive(self, expected: str, answer: Answer | None = None) -> None:
        """Wait for one more read. Raises Finding when there is none, or when it is not legal."""
        came = "" if answer is None else str(answer)
        try:
            data = self._process.receive(self._deadline)
        except WorkerSilent:
            silent = f"nothing {'' if self._silent else 'more '}came within {self._clocks.step:g} s"
            if partial := self._connection.partial_bytes:
                silent += f", and {partial} bytes wait for their newline"
            raise Finding(silent, expected=expected, came=came) from None
        was_silent = self._silent
        self._take(data)
        if was_silent:
            self._set_deadline()
        if not data and not self.stdin_closed:
            try:
                status = self._process.exit_status(time.monotonic() + _EXIT_GRACE)
            except WorkerSilent:
                raise Finding("it closed its stdout", expected=expected, came=came) from None
            said = f"signal {-status}" if status < 0 else f"status {status}"
            raise Finding(
                f"it ended with {said}, though its stdin is open", expected=expected, came=came
            )
        if not data and answer is not None and answer.end is None:
            raise Finding(
                "it ended without having answered what it had read", expected=expected, came=came
            )

    def _take(self, data: bytes) -> None:
        self.lines += [
            f"← {_short(line.decode(errors='replace'))}" for line in data.splitlines() if line
        ]
        for event in self._connection.receive_data(data):
            if isinstance(event, Malformed):
                raise _violation(event.error)
            if isinstance(event, Ready):
                self.ready = event
            elif isinstance(event, Chunk):
                self._answers[event.id].chunks.append(msgspec.json.decode(event.text))
            else:
                self._add(self._answers[event.id], event)

    def _add(self, answer: Answer, event: Event | Result | End | Failure) -> None:
        if isinstance(event, Event):
            answer.events.append(msgspec.json.decode(event.event))
            unasked = "an event"
        else:
            answer.end = event
            unasked = "a result with more than a value" if answer.outcome else ""
        if unasked and not answer.asked:
            raise Finding(
                f"{unasked}, for request {event.id}, which does not say 'events'",
                expected="nothing that an older gateway would not understand",
            )


def _violation(error: RemoteProtocolError) -> Finding:
    return Finding(f"{error.violation.value}: {error.message}")


def _is_unknown_instruction(expected: Expected, answer: Answer) -> bool:
    said = (expected.result, expected.chunks, expected.events, expected.outcome)
    wants = any(each is not UNSET for each in said) or (
        expected.error is not UNSET and expected.error.code != _UNKNOWN_METHOD
    )
    return wants and isinstance(answer.end, Failure) and answer.end.code == _UNKNOWN_METHOD


def _difference(expected: Expected, answer: Answer) -> str | None:
    if expected.chunks is not UNSET and "".join(answer.chunks) != expected.chunks:
        return "the text is another"
    if expected.events is not UNSET and not is_same(answer.events, expected.events):
        return "the events are others"
    if answer.end is None:
        return None
    if expected.error is not UNSET:
        return _difference_of_error(expected.error, answer.end)
    return _difference_of_end(expected, answer)


def _difference_of_end(expected: Expected, answer: Answer) -> str | None:
    wants = expected.result is not UNSET or expected.outcome is not UNSET
    if wants and isinstance(answer.end, Failure):
        return "an error came"
    if expected.result is not UNSET and not is_same(answer.result, expected.result):
        return "the result is another"
    if expected.outcome is not UNSET and not is_same(answer.outcome, expected.outcome):
        return "the outcome is another"
    return None


def _difference_of_error(expected: ExpectedError, end: Result | End | Failure) -> str | None:
    if not isinstance(end, Failure):
        return "no error came"
    if expected.code not in (UNSET, end.code):
        return "the error has another code"
    if expected.message is not UNSET and expected.message not in end.message:
        return "the error's message does not say why"
    return None


def is_same(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same; numbers by value, as languages print them otherwise."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    return bool(one == other)


def _in_words(expected: Expected) -> str:
    parts = []
    if expected.chunks is not UNSET:
        parts.append(f"the chunks {_short(repr(expected.chunks))}")
    values = ((name, getattr(expected, name)) for name in ("events", "result", "outcome"))
    parts += [f"the {name} {_as_json(value)}" for name, value in values if value is not UNSET]
    if expected.error is not UNSET:
        code = "" if expected.error.code is UNSET else f" {expected.error.code}"
        message = expected.error.message
        parts.append(f"error{code}" + ("" if message is UNSET else f" that says {message!r}"))
    return f"{' and '.join(parts) or 'an answer'} to request {expected.id}"


def _as_json(value: Any) -> str:
    return _short(msgspec.json.encode(value).decode())


def _short(text: str) -> str:
    if len(text) <= _SHOWN:
        return text
    return f"{text[: _SHOWN - 60]} …{len(text) - _SHOWN:,} more… {text[-60:]}"
