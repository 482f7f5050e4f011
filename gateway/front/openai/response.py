"""Answers to `POST /v1/responses`: one Response, or the stream of its events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw, Struct

from gateway import clock
from gateway.errors import GatewayError, InvalidAgentResponse
from gateway.front.chats import endings
from gateway.front.chats.calls import Calls
from gateway.front.chats.message import EMPTY, read_message
from gateway.front.chats.parts import link_to, status_comment
from gateway.front.dialect import join_chunks, text_runs
from gateway.front.event_stream import HEADERS, KEEP_ALIVE
from gateway.front.openai import outcomes
from gateway.front.openai.errors import error_members
from gateway.front.openai.output import Output
from gateway.front.openai.response_request import not_found
from protocol.events import File, Reasoning, Status, ToolCall, ToolResult, read_event

if TYPE_CHECKING:
    from gateway.exchange import Exchange
    from gateway.front.chats.calls import FunctionCall
    from gateway.front.openai.memory import Memory
    from gateway.front.openai.response_request import ResponseRequest
    from protocol import Payload

_encode = msgspec.json.encode

MESSAGES = "input"
"""What the parameter is called that holds the messages."""

_INCOMPLETE = {"length": "max_output_tokens", "refused": "content_filter"}
"""Why a Response is not complete, by the finish of its answer."""


class ResponseFrame(Struct, frozen=True, gc=False):
    """What every telling of one Response has in common."""

    id: str
    model: str
    echo: bytes
    created: int

    @classmethod
    def of(cls, response_id: str, request: ResponseRequest) -> ResponseFrame:
        return cls(response_id, request.model, request.echo, clock.unix_time())

    def render(
        self,
        status: str,
        items: list[tuple[str, bytes]] | None = None,
        *,
        error: GatewayError | None = None,
        incomplete: str | None = None,
        usage: dict[str, Any] | None = None,
    ) -> bytes:
        """The Response as a JSON text. `status`: queued, in_progress, completed, incomplete,
        failed or cancelled; `items`: the output so far, as `Output.items` has it."""
        failure = None
        if error is not None and status != "cancelled":
            failure = {"code": "server_error", "message": error.message}
        details = None if incomplete is None else {"reason": incomplete}
        return b"".join(
            (
                b'{"id":"%b","object":"response","created_at":%d,"status":"%b","model":%b,'
                % (self.id.encode(), self.created, status.encode(), _encode(self.model)),
                b'"error":%b,"incomplete_details":%b,' % (_encode(failure), _encode(details)),
                b'"output":[%b],' % b",".join([item for _, item in items or ()]),
                b'"usage":%b,%b}' % (_encode(usage), self.echo),
            )
        )


class Telling:
    """One answer on its way to being a Response: what the agent says goes in, events come out.

    No method raises: what cannot be told sets `failure`, and the events before it are returned.
    """

    __slots__ = (
        "_calls",
        "_exchange",
        "_frame",
        "_memory",
        "_output",
        "_request",
        "failure",
        "response",
    )

    def __init__(
        self, frame: ResponseFrame, request: ResponseRequest, exchange: Exchange, memory: Memory
    ) -> None:
        self._frame = frame
        self._request = request
        self._exchange = exchange
        self._memory = memory
        self._output = Output()
        self._calls = Calls(request.tools.names)
        self.failure: GatewayError | None = None
        self.response: bytes | None = None
        """The whole Response, a JSON text, once it has ended, well or badly."""

    def begin(self) -> bytes:
        """The events that open a stream."""
        response = Raw(self._frame.render("in_progress"))
        created = self._output.event("created", response=response)
        return created + self._output.event("in_progress", response=response)

    def words(self, words: list[bytes]) -> bytes:
        """The events for words of the answer."""
        events: list[bytes] = []
        try:
            for texts, event in text_runs(words):
                events.append(self._output.text(texts) if event is None else self._event(event))
        except InvalidAgentResponse as error:
            self.failure = error
        return b"".join(events)

    def _event(self, word: bytes) -> bytes:
        match read_event(word):
            case Reasoning(text=text):
                return self._output.reasoning(_encode(text))
            case Status() as event:
                return status_comment(event)
            case File(mime=mime, data=data) as event:
                if mime.startswith("image/") and isinstance(data, bytes):
                    return self._output.image(event)
                return self._output.text([_encode(link_to(event))])
            case ToolCall() as event:
                self._calls.add(event)
            case ToolResult(call=call):
                self._calls.answered(call)
        return b""

    def end(self, result: Payload | None) -> bytes:
        """The last events of an answer that ended well, the whole Response among them."""
        outcome, output = self._exchange.outcome, self._output
        events: list[bytes] = []
        try:
            calls = self._last_words(result, events)
        except InvalidAgentResponse as error:
            self.failure = error
            return b"".join(events)
        incomplete = _INCOMPLETE.get(endings.finish_of(outcome, calls))
        status = "completed" if incomplete is None else "incomplete"
        events += [output.call(call) for call in calls]
        events.append(output.finish(status))
        self.response = self._frame.render(
            status, output.items, incomplete=incomplete, usage=outcomes.response_usage(outcome)
        )
        events.append(output.event(status, response=Raw(self.response)))
        self._remember()
        return b"".join(events)

    def _last_words(self, result: Payload | None, events: list[bytes]) -> list[FunctionCall]:
        """Add the events for an answer in one result, and for questions; returns the calls that
        the client is to make."""
        outcome, output = self._exchange.outcome, self._output
        message = None
        if result is not None:
            message = read_message(result, self._request.tools.names)
            if message.reasoning is not None:
                events.append(output.reasoning(message.reasoning))
            if message.text != EMPTY:
                events.append(output.text([message.text]))
        if questions := endings.questions_of(outcome):
            events.append(output.paragraph(questions))
        return endings.calls_of(outcome, self._calls, message)

    def fail(self, error: GatewayError) -> bytes:
        """The end of a Response that failed: an event for those who follow its states, and one that
        clients raise as an exception."""
        exchange, output = self._exchange, self._output
        members = error_members(
            error, exchange.call.request_id, exchange.output_begun, messages=MESSAGES
        )
        closing = output.close("incomplete")
        self.response = self._frame.render("failed", output.items, error=error)
        told = output.event("failed", response=Raw(self.response))
        flat = {name: members[name] for name in ("code", "message", "param")}
        return closing + told + output.event("error", **flat, error=members)

    def look_for_loss(self) -> None:
        """Fail if the agent has lost what the request goes on from: known once the agent has said a
        word, or has ended."""
        previous = self._request.previous
        if previous is not None and self._exchange.session != "kept":
            self.failure = not_found(previous)

    def _remember(self) -> None:
        if not self._request.store:
            return
        owner = self._exchange.call.owner
        for item_id, item in self._output.items:
            self._memory.keep_item(owner, item_id, item)
        # Without a session, no worker has been given the conversation to keep.
        if self._request.place is not None and self._exchange.session is not None:
            self._memory.keep_response(self._frame.id, self._request.place)


def encode_response(telling: Telling, exchange: Exchange, words: list[bytes]) -> bytes:
    """The body of one whole Response. Raises InvalidAgentResponse and InvalidRequest."""
    telling.look_for_loss()
    if telling.failure is None:
        # Nobody gets the events: the fewer, the better.
        telling.words(
            [join_chunks(run) if event is None else event for run, event in text_runs(words)]
        )
    if telling.failure is None:
        telling.end(exchange.result)
    if telling.failure is not None:
        raise telling.failure
    assert telling.response is not None
    return telling.response


class ResponseStream:
    """The `StreamEncoder` of one Response."""

    __slots__ = ("_begun", "_exchange", "_telling")

    headers = HEADERS

    def __init__(self, telling: Telling, exchange: Exchange) -> None:
        self._telling = telling
        self._exchange = exchange
        self._begun = False

    @property
    def failure(self) -> GatewayError | None:
        """See `StreamEncoder.failure`."""
        return self._telling.failure

    @property
    def last_response(self) -> bytes | None:
        """The whole Response, a JSON text, once the stream has ended, well or badly."""
        return self._telling.response

    def chunks(self, chunks: list[bytes]) -> bytes:
        """Text, reasoning, images, comments; nothing for what is not the client's."""
        telling = self._telling
        if telling.failure is not None:
            return b""
        telling.look_for_loss()
        told = b"" if telling.failure is not None else self._opening() + telling.words(chunks)
        if telling.failure is not None:
            # It may have ended well meanwhile: then `end` tells of the failure.
            self._exchange.fail(telling.failure)
        return told

    def keep_alive(self) -> bytes:
        """A comment, which clients skip."""
        return self._opening() + KEEP_ALIVE

    def end(self, result: Payload | None) -> bytes:
        """What was not told yet, and the whole Response."""
        telling, told = self._telling, self._opening()
        if telling.failure is None:
            telling.look_for_loss()
        if telling.failure is None:
            told += telling.end(result)
        return told if telling.failure is None else told + telling.fail(telling.failure)

    def error(self, error: GatewayError) -> bytes:
        """An end that no client takes for that of a whole Response."""
        return self._opening() + self._telling.fail(error)

    def _opening(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        return self._telling.begin()
