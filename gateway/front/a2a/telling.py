"""A task while its agent is at work: what the agent says becomes artifacts, states, and events.

Theory of operation
-------------------

Every task is a stream, whatever its client asked for: its events are kept by its run, and `Work` is
what they add up to. Whoever subscribes is told the task as it is, and then the events that come
after that (`Work.events` counts them), so nothing is missed or told twice. Kept are results alone
(`{"statusUpdate": …}`), as each reader has a JSON-RPC id of its own: `framed` puts it around them.
Where a defect of the gateway's ends the stream, its last event is an error response, with that id.

    text, files               artifacts; text is one, to which each event appends
    status                    WORKING, with the text and the event as data
    reasoning, tool calls and results of the agent's own, state, x-…
                              WORKING, with the event as data
    calls of client's tools   INPUT_REQUIRED at the end, with the calls as data
    questions                 INPUT_REQUIRED at the end, with text, and the questions as data

A failure of the agent is a state of the task, FAILED, and not an error of the request: the task can
be asked for as any other. REJECTED is what was refused: by the agent, or as it does not take it.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, Raw, Struct, structs

from gateway import clock
from gateway.errors import Cancelled, InvalidRequest
from gateway.front.a2a import task
from gateway.front.a2a.task import Artifacts, Pending, PendingCall, Record, Summary
from gateway.front.chats import endings
from gateway.front.chats.calls import Calls
from gateway.front.chats.message import EMPTY, read_message
from gateway.front.chats.parts import in_fewer_events
from gateway.front.chats.stream import AnswerStream
from gateway.front.event_stream import KEEP_ALIVE
from protocol import on_one_line
from protocol.events import File, Reasoning, Status, ToolCall, ToolResult, UsageSoFar, read_event

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway.errors import GatewayError
    from gateway.exchange import Exchange
    from gateway.front.chats.calls import FunctionCall
    from protocol import Payload

_encode = msgspec.json.encode

JSON_TYPE = "application/json"


class _Content(Struct, gc=False):
    content: Raw = Raw(b"null")


_decode_content = msgspec.json.Decoder(_Content).decode

_STATES = {
    "queued": task.SUBMITTED,
    "running": task.WORKING,
    "completed": task.COMPLETED,
    "failed": task.FAILED,
    "cancelled": task.CANCELED,
}
"""Of a run, as long as nothing more is known."""


_ERROR = b"\nevent: error\ndata: "
"""In an event that is no result (`error_event` of the runs), but a response of JSON-RPC."""


class _ErrorResponse(Struct, gc=False):
    error: Raw


_decode_error = msgspec.json.Decoder(_ErrorResponse).decode


def framed(events: bytes, rpc_id: bytes) -> bytes:
    """Events as they are kept, as responses to the JSON-RPC request with that id."""
    if _ERROR in events:
        return b"\n\n".join(_framed(each, rpc_id) for each in events.split(b"\n\n"))
    opened = events.replace(b"\ndata: ", b'\ndata: {"jsonrpc":"2.0","id":%b,"result":' % rpc_id)
    return opened.replace(b"\n\n", b"}\n\n")


def _framed(event: bytes, rpc_id: bytes) -> bytes:
    """One event without its blank line, which may be the error; or nothing, after the last one."""
    before, is_error, data = event.partition(_ERROR)
    if not is_error:
        return framed(event + b"\n\n", rpc_id)[:-2] if event else b""
    error = bytes(_decode_error(data).error)
    return b'%b%b{"jsonrpc":"2.0","id":%b,"error":%b}' % (before, is_error, rpc_id, error)


class Work:
    """See the module's docstring. One run's part of a task."""

    def __init__(self, context: str, names: frozenset[str], pending: Pending | None) -> None:
        """`names` are those of the client's tools, and `pending` is what is needed to go on after
        the run, if that can be kept."""
        self.id = ""
        self.context = context
        self.artifacts = Artifacts()
        self.events = 0
        """How many events there have been."""
        self.history = b"[]"
        self.calls = Calls(names)
        self._pending = pending
        self._waits: Pending | None = None
        self._state = ""
        """Empty until it is known better than from the run."""
        self._since = clock.utc_text()
        self._status = b""
        self._metadata = b"null"

    def continue_from(self, record: Record) -> None:
        """The task went on until now, and stopped to ask."""
        self.artifacts = Artifacts(record.artifacts)
        self.history = record.history
        status = msgspec.json.decode(record.status)
        if "message" in status:
            self.remember(_encode(status["message"]))

    def remember(self, message: bytes) -> None:
        """Add a message to the history, unless that would be too long."""
        if message and len(self.history) + len(message) <= task.MAX_HISTORY:
            self.history = b"%b%b]" % (
                self.history[:-1] + b"," if self.history != b"[]" else b"[",
                message,
            )

    def record(self, state: str) -> Record:
        """The task now; `state` is that of its run."""
        named = self._named(state)
        status = self._status
        if not status or named != self._state:
            status = _encode({"state": named, "timestamp": self._since})
        return Record(
            summary=self.summary(state),
            status=status,
            metadata=self._metadata,
            history=self.history,
            pending=_encode(self._waits),
            artifacts=self.artifacts.render(),
        )

    def summary(self, state: str) -> bytes:
        """That of the record."""
        return _encode(Summary(self.id, self.context, self._named(state), self._since))

    def _named(self, state: str) -> str:
        named = self._state or _STATES[state]
        if state in {"cancelled", "failed"} and named not in task.TERMINAL:
            return _STATES[state]
        return named

    # Events, as they are kept

    def enter(
        self, state: str, parts: list[Any] | None = None, metadata: dict[str, Any] | None = None
    ) -> bytes:
        """The event of a new state, or of the same with another message."""
        self._state = state
        self._since = clock.utc_text()
        status: dict[str, Any] = {"state": state}
        if parts:
            status["message"] = task.message(
                f"message_{secrets.token_hex(12)}", parts, contextId=self.context, taskId=self.id
            )
        status["timestamp"] = self._since
        told = on_one_line(_encode(status))
        self._status = told
        update: dict[str, Any] = {
            "taskId": self.id,
            "contextId": self.context,
            "status": Raw(told),
        }
        if metadata:
            self._metadata = on_one_line(_encode(metadata))
            update["metadata"] = Raw(self._metadata)
        return self._event({"statusUpdate": update})

    def text(self, texts: list[bytes]) -> bytes:
        """The events of text: JSON strings. Raises InvalidAgentResponse."""
        return b"".join(self._text(on_one_line(each)) for each in in_fewer_events(texts))

    def _text(self, text: bytes, *, whole: bool = False) -> bytes:
        if text == EMPTY and self.artifacts.has_text and not whole:
            return b""  # or any number of chunks that say nothing would each cost an event
        artifact_id, first = self.artifacts.text(text[1:-1])
        artifact = {
            "artifactId": artifact_id,
            "name": task.TEXT_NAME,
            "parts": [{"text": Raw(text)}],
        }
        return self._artifact(artifact, append=not first, last=whole)

    def whole_text(self, text: bytes) -> bytes:
        """The event of the last text, a JSON string. Raises InvalidAgentResponse."""
        return self._text(on_one_line(text), whole=True)

    def whole(self, name: str, part: dict[str, Any]) -> bytes:
        """The event of an artifact that is whole. Raises InvalidAgentResponse."""
        artifact = self.artifacts.add(name, on_one_line(_encode(part)))
        return self._artifact(Raw(artifact), append=False, last=True)

    def _artifact(self, artifact: Any, *, append: bool, last: bool) -> bytes:
        update = {
            "taskId": self.id,
            "contextId": self.context,
            "artifact": artifact,
            "append": append,
            "lastChunk": last,
        }
        return self._event({"artifactUpdate": update})

    def _event(self, result: dict[str, Any]) -> bytes:
        self.events += 1
        return b"data: %b\n\n" % _encode(result)

    def wait_for(self, **changes: Any) -> None:
        """The task waits for its client; `changes` are the members of what is pending."""
        if self._pending is not None:
            self._waits = structs.replace(self._pending, **changes)


class TaskStream(AnswerStream):
    """The `StreamEncoder` of one run of a task."""

    __slots__ = ("_work",)

    def __init__(self, work: Work, exchange: Exchange) -> None:
        super().__init__(exchange)
        self._work = work

    def keep_alive(self) -> bytes:
        """A comment, which clients skip: it may come before the first state."""
        return KEEP_ALIVE

    def error(self, error: GatewayError) -> bytes:
        """The end of a task that failed, was refused or cancelled."""
        if isinstance(error, Cancelled):
            return self._work.enter(task.CANCELED)
        state = task.REJECTED if isinstance(error, InvalidRequest) else task.FAILED
        details = {"type": error.type, **error.details}
        if self._exchange.output_begun:
            details["output_begun"] = True
        parts = [{"text": error.message}, {"data": {"error": details}, "mediaType": JSON_TYPE}]
        return self._work.enter(state, parts)

    def _begin(self) -> bytes:
        return self._work.enter(task.WORKING)

    def _text(self, texts: Sequence[bytes]) -> bytes:
        return self._work.text(list(texts))

    def _event(self, word: bytes) -> bytes:
        work = self._work
        event = read_event(word)
        parts: list[Any] = []
        before = b""
        match event:
            case UsageSoFar():
                return b""
            case File():
                return work.whole(event.name, _file_part(event))
            case ToolCall():
                work.calls.add(event)
                if event.name in work.calls.names:
                    return b""
            case ToolResult(call=call):
                before = self._as_own(call)
                work.calls.answered(call)
            case Status(text=text):
                parts.append({"text": text})
            case Reasoning():
                pass
        parts.append({"data": Raw(on_one_line(word)), "mediaType": JSON_TYPE})
        return before + work.enter(task.WORKING, parts)

    def _as_own(self, call: str) -> bytes:
        """The event of a call that could have been the client's, and was the agent's own."""
        held = self._work.calls.held(call)
        if held is None:
            return b""
        told = {
            "type": "tool_call",
            "call": held.id,
            "name": held.name,
            "arguments": _as_json(held.arguments),
        }
        return self._data(told)

    def _data(self, event: dict[str, Any]) -> bytes:
        """The event of what the agent does meanwhile, which is told as data."""
        return self._work.enter(task.WORKING, [{"data": event, "mediaType": JSON_TYPE}])

    def _ending(self, result: Payload | None) -> Iterator[bytes]:
        """What was not told yet, and the task's last state, or that it waits."""
        work = self._work
        message = None
        if result is not None and self._exchange.call.method == "invoke":
            yield self._output(bytes(result))
        elif result is not None:
            message = read_message(result, work.calls.names)
            if message.reasoning is not None:
                yield self._data({"type": "reasoning", "text": Raw(message.reasoning)})
            content = bytes(_decode_content(result).content)
            if content[:1] == b"{":
                yield self._output(content)
            elif message.text != EMPTY:
                yield work.whole_text(message.text)
        calls = endings.calls_of(self._exchange.outcome, work.calls, message)
        waiting = {call.id for call in calls}
        yield from (
            self._as_own(call.id) for call in work.calls.of_client() if call.id not in waiting
        )
        yield self._outcome(calls)

    def _output(self, output: bytes) -> bytes:
        """An artifact of an output that came as one JSON text."""
        if output[:1] == b'"':
            return self._work.whole_text(output)
        return self._work.whole("output", {"data": Raw(output), "mediaType": JSON_TYPE})

    def _outcome(self, calls: list[FunctionCall]) -> bytes:
        work, outcome = self._work, self._exchange.outcome
        finish = endings.finish_of(outcome, calls)
        metadata: dict[str, Any] = {}
        if outcome is not None and outcome.usage is not None:
            metadata["usage"] = Raw(bytes(outcome.usage))
        if calls:
            pending = [PendingCall(call.id, call.name, call.arguments) for call in calls]
            said = msgspec.json.decode(work.artifacts.said, type=str)
            work.wait_for(calls=pending, said=said)
            told = [
                {"id": call.id, "name": call.name, "arguments": _as_json(call.arguments)}
                for call in calls
            ]
            parts: list[Any] = [{"data": {"toolCalls": told}, "mediaType": JSON_TYPE}]
            return work.enter(task.INPUT_REQUIRED, parts, metadata)
        if outcome is not None and outcome.asks is not None:
            asks = Raw(on_one_line(bytes(outcome.asks)))
            work.wait_for(asks=asks)
            parts = [
                {"text": endings.questions_of(outcome)},
                {"data": {"asks": asks}, "mediaType": JSON_TYPE},
            ]
            return work.enter(task.INPUT_REQUIRED, parts, metadata)
        if finish == "length":
            metadata["finish"] = finish
        return work.enter(task.REJECTED if finish == "refused" else task.COMPLETED, None, metadata)


def _as_json(arguments: str) -> Raw | str:
    """The arguments of a call as the object that they are, if an agent has told one."""
    try:
        return msgspec.json.decode(on_one_line(arguments.encode()), type=Raw)
    except (msgspec.MsgspecError, RecursionError):
        return arguments


def _file_part(file: File) -> dict[str, Any]:
    content = {"raw": file.data} if file.data is not UNSET else {"url": file.path}
    return {**content, "filename": file.name, "mediaType": file.mime}
