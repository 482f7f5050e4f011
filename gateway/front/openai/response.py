"""Answers to `POST /v1/responses`: one Response, or the stream of its events."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw, Struct

from gateway import clock
from gateway.front.chats.answer import ContentStream
from gateway.front.dialect import join_chunks, text_runs
from gateway.front.openai import outcomes
from gateway.front.openai.errors import error_members
from gateway.front.openai.output import Output
from gateway.front.openai.response_request import not_found

if TYPE_CHECKING:
    from gateway.errors import GatewayError
    from gateway.exchange import Exchange
    from gateway.front.openai.memory import Memory
    from gateway.front.openai.response_request import ResponseRequest
    from protocol import Outcome, Payload

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


class ResponseStream(ContentStream):
    """The `StreamEncoder` of one Response."""

    __slots__ = ("_frame", "_memory", "_output", "_request", "last_response")

    def __init__(
        self, frame: ResponseFrame, request: ResponseRequest, exchange: Exchange, memory: Memory
    ) -> None:
        self._frame = frame
        self._request = request
        self._memory = memory
        self._output = Output()
        self.last_response: bytes | None = None
        """The whole Response, a JSON text, once the stream has ended, well or badly."""
        super().__init__(exchange, self._output, request.tools.names)

    def chunks(self, words: list[bytes]) -> bytes:
        """Text, reasoning, images, comments; nothing for what is not the client's."""
        self._look_for_loss()
        return super().chunks(words)

    def end(self, result: Payload | None) -> bytes:
        """What was not told yet, and the whole Response."""
        self._look_for_loss()
        return super().end(result)

    def error(self, error: GatewayError) -> bytes:
        """The end of a Response that failed, which no client takes for that of a whole one: an
        event for those who follow its states, and one that clients raise as an exception."""
        exchange, output = self._exchange, self._output
        members = error_members(
            error, exchange.call.request_id, exchange.output_begun, messages=MESSAGES
        )
        closing = self._opening() + output.close("incomplete")
        self.last_response = self._frame.render("failed", output.items, error=error)
        told = output.event("failed", response=Raw(self.last_response))
        flat = {name: members[name] for name in ("code", "message", "param")}
        return closing + told + output.event("error", **flat, error=members)

    def _begin(self) -> bytes:
        response = Raw(self._frame.render("in_progress"))
        created = self._output.event("created", response=response)
        return created + self._output.event("in_progress", response=response)

    def _finished(self, finish: str, outcome: Outcome | None) -> bytes:
        """The last events, the whole Response among them."""
        output = self._output
        incomplete = _INCOMPLETE.get(finish)
        status = "completed" if incomplete is None else "incomplete"
        closing = output.close(status)
        self.last_response = self._frame.render(
            status, output.items, incomplete=incomplete, usage=outcomes.response_usage(outcome)
        )
        self._remember()
        return closing + output.event(status, response=Raw(self.last_response))

    def _look_for_loss(self) -> None:
        """Fail if the agent has lost what the request goes on from: known once the agent has said a
        word, or has ended."""
        previous = self._request.previous
        if self.failure is None and previous is not None and self._exchange.session != "kept":
            self._fail(not_found(previous))

    def _remember(self) -> None:
        if not self._request.store:
            return
        owner = self._exchange.call.owner
        for item_id, item in self._output.items:
            self._memory.keep_item(owner, item_id, item)
        # Without a session, no worker has been given the conversation to keep.
        if self._request.place is not None and self._exchange.session is not None:
            self._memory.keep_response(self._frame.id, self._request.place)


def encode_response(stream: ResponseStream, exchange: Exchange, words: list[bytes]) -> bytes:
    """The body of one whole Response, which is the last of its stream. Raises InvalidAgentResponse
    and InvalidRequest."""
    # Nobody gets the events: the fewer, the better.
    stream.chunks([join_chunks(run) if word is None else word for run, word in text_runs(words)])
    stream.end(exchange.result)
    if stream.failure is not None:
        raise copy(stream.failure)
    assert stream.last_response is not None
    return stream.last_response
