"""The dialect's paths, and what is done with a request on one of them."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Annotated, Literal, Protocol

import msgspec
from msgspec import Meta, Struct

from gateway import clock
from gateway.front.a2a import task
from gateway.front.a2a.answering import go_on
from gateway.front.a2a.errors import (
    METHOD_NOT_FOUND,
    NO_ID,
    PUSH_NOT_SUPPORTED,
    TASK_NOT_CANCELABLE,
    UNSUPPORTED_OPERATION,
    encode_error,
    invalid,
    refuse,
)
from gateway.front.a2a.listing import ListParams, list_tasks, read_list
from gateway.front.a2a.rpc import check_version, decode_params, read_id, read_request, result
from gateway.front.a2a.sending import Sent, begin, pending_of, read_send, token_of
from gateway.front.a2a.task import PREFIX, Record
from gateway.front.a2a.telling import TaskStream, Work, framed
from gateway.front.dialect import Response, Route, RunPath, RunRequest
from protocol.tools import tool_names

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.errors import GatewayError
    from gateway.exchange import Exchange
    from gateway.front.dialect import RequestHead
    from gateway.front.run_codec import Listed, Told

ROOT = "/a2a/"

CARD = "/.well-known/agent-card.json"

_JSON = ((b"content-type", b"application/json"),)

_NO_KEY = re.compile(rb"\s*(?:bearer|basic)?\s*\Z", re.IGNORECASE)
"""What presents no key: nothing, or the name of a way to present one and nothing after it."""

_PUSH = frozenset(
    f"{verb}TaskPushNotificationConfig{plural}"
    for verb, plural in (("Create", ""), ("Get", ""), ("List", "s"), ("Delete", ""))
)


class _TaskParams(Struct, gc=False, rename="camel"):
    id: str
    history_length: Annotated[int, Meta(ge=0)] | None = None


_decode_task = msgspec.json.Decoder(_TaskParams).decode


class Agents(Protocol):
    """What is known of the agents where they are served."""

    def handlers(self, agent: str) -> Collection[str] | None:
        """The handlers of an agent; None: they are not known (yet)."""

    def card(self, agent: str, head: RequestHead) -> bytes:
        """The card of an agent, a JSON text, for one who may call it."""


class A2ADialect:
    """A `Dialect`: `/a2a/{name}`. `agents` is set where they are served (`routes`)."""

    def __init__(self) -> None:
        self.agents: Agents | None = None

    def match(self, path: str) -> A2ACodec | None:
        """The codec for one agent's path, with or without a slash at its end."""
        name = path.removeprefix(ROOT).removesuffix("/")
        if not path.startswith(ROOT) or not name or "/" in name:
            return None
        return A2ACodec(name, self.agents)

    def match_run(self, path: str) -> RunPath | None:
        """Tasks have no paths of their own."""
        del path
        return None

    def covers(self, path: str) -> bool:
        """Whether errors on this path are in this dialect's form, though no agent is called."""
        return path.startswith(ROOT)

    def encode_error(self, error: GatewayError, request_id: str) -> Response:
        """An error of a request that never had a codec."""
        return encode_error(error, request_id)


class A2ACodec:
    """The `RunReader` of one request."""

    __slots__ = (
        "_agents",
        "_asked",
        "_done",
        "_head",
        "_id",
        "_list",
        "_messages",
        "_sent",
        "_work",
        "agent",
        "reads",
    )

    route = Route("a2a", "/a2a/{name}", "chat", has_runs=True)

    def __init__(self, agent: str, agents: Agents | None) -> None:
        self.agent = agent
        self.reads: Literal["show", "end", "follow"] = "end"
        self._agents = agents
        self._id = NO_ID
        self._asked = ""
        """The method."""
        self._head: RequestHead | None = None
        self._messages: int | None = None
        """How many messages of the history are to be shown; None: all."""
        self._sent: Sent | None = None
        self._list: ListParams | None = None
        self._work: Work | None = None
        self._done: Record | None = None
        """The task so far, which this request goes on with."""

    # What is asked

    def decode(self, head: RequestHead, body: bytes) -> Call | Response | RunRequest:
        rpc_id = read_id(body)
        self._id = rpc_id or NO_ID
        check_version(head)
        request = read_request(body, rpc_id)
        self._asked = request.method
        self._head = head
        match request.method:
            case "SendMessage" | "SendStreamingMessage":
                return self._send(head, request.params)
            case "GetTask":
                return self._of_task("show", request.params)
            case "CancelTask":
                return self._of_task("cancel", request.params)
            case "SubscribeToTask":
                return self._of_task("follow", request.params)
            case "ListTasks":
                self._list = read_list(request.params)
                self._messages = self._list.history_length
                _check_may_list(head)
                return RunRequest("list")
            case "GetExtendedAgentCard":
                return self._card(head)
            case method if method in _PUSH:
                raise refuse(
                    PUSH_NOT_SUPPORTED,
                    "the gateway calls nobody; ask for the task, or subscribe to it",
                )
        raise refuse(METHOD_NOT_FOUND, f"there is no method {request.method[:80]!r} in A2A 1.0")

    def _send(self, head: RequestHead, params: bytes) -> Call | RunRequest:
        sent = self._sent = read_send(params, self.agent)
        self._messages = sent.configuration.history_length
        if self._asked == "SendStreamingMessage":
            self.reads = "follow"
        elif sent.configuration.return_immediately or _prefers_no_waiting(head):
            self.reads = "show"
        if sent.task:
            return RunRequest("go_on", token_of(sent.task))
        handlers = None if self._agents is None else self._agents.handlers(self.agent)
        return self._begin(begin(head, self.agent, sent, handlers))

    def _begin(self, call: Call) -> Call:
        assert self._done is not None or call.conversation is not None
        context = self._done.task.context if self._done is not None else call.conversation or ""
        self._work = Work(context, tool_names(call.tools), pending_of(call))
        return call

    def _of_task(self, does: Literal["show", "cancel", "follow"], params: bytes) -> RunRequest:
        asked: _TaskParams = decode_params(_decode_task, params)
        if not asked.id:
            raise invalid("id is empty", "id")
        self._messages = asked.history_length
        return RunRequest(does, token_of(asked.id))

    def _card(self, head: RequestHead) -> Response:
        if not head.owner or self._agents is None:
            raise refuse(
                UNSUPPORTED_OPERATION,
                "there is no extended card: the agent's card has everything, as there are no keys",
            )
        return self._answer(self._agents.card(self.agent, head))

    # The run of a task

    def kept_as(self, token: str) -> None:
        assert self._work is not None
        assert self._sent is not None
        work = self._work
        work.id = PREFIX + token
        if self._done is not None:
            work.continue_from(self._done)
        work.remember(self._sent.as_history(work.id, work.context))
        self._forget()

    def _forget(self) -> None:
        """Keep nothing of the body, nor of what was told before: the task may last for hours."""
        self._sent = self._done = self._head = None

    @property
    def told_events(self) -> int:
        """See `RunReader`."""
        return 0 if self._work is None else self._work.events

    def tell(self, state: str, error: GatewayError | None = None) -> Response:
        """The record of the task."""
        del error  # it is told by the stream
        assert self._work is not None
        return Response(200, _JSON, self._work.record(state).write())

    def go_on(self, told: Told) -> Call:
        assert self._head is not None
        assert self._sent is not None
        self._done = Record.read(told.body)
        return self._begin(go_on(self._head, self.agent, self._sent, self._done))

    def encode(self, exchange: Exchange, words: list[bytes]) -> Response:
        raise AssertionError("every task is a stream")

    def stream(self, exchange: Exchange) -> TaskStream:
        assert self._work is not None
        return TaskStream(self._work, exchange)

    # What is shown

    def show(self, told: Told) -> Response:
        self._forget()
        record = Record.read(told.body)
        shown = record.show(messages=self._messages)
        if self._asked == "SendMessage":
            shown = b'{"task":%b}' % shown
        return self._answer(shown)

    def outline(self, state: str) -> bytes:
        """The summary: the beginning of the record."""
        assert self._work is not None
        return self._work.summary(state)

    def show_all(self, runs: Sequence[Listed]) -> Response:
        assert self._list is not None
        return self._answer(list_tasks(self._list, runs))

    def open(self, told: Told) -> bytes:
        self._forget()
        record = Record.read(told.body)
        if self._asked == "SubscribeToTask" and record.task.state in task.TERMINAL:
            raise refuse(
                UNSUPPORTED_OPERATION,
                f"the task is over ({record.task.state}): nothing more comes; use GetTask",
            )
        shown = b'{"task":%b}' % record.show(messages=self._messages)
        return b"data: %b\n\n" % result(self._id, shown)

    def frame(self, events: bytes) -> bytes:
        return framed(events, self._id)

    def stays(self, told: Told) -> bool:
        waits = Record.read(told.body).task.state == task.INPUT_REQUIRED
        return waits and self._asked == "SubscribeToTask"

    def withdraw(self, told: Told) -> tuple[bytes, bytes]:
        record = Record.read(told.body)
        if record.task.state in task.TERMINAL:
            raise refuse(TASK_NOT_CANCELABLE, f"the task is over ({record.task.state})")
        canceled = record.with_status(task.CANCELED, clock.utc_text())
        return canceled.write(), canceled.update()

    def encode_error(
        self, error: GatewayError, request_id: str, output_begun: bool | None = None
    ) -> Response:
        del output_begun  # failures of agents are states of tasks
        return encode_error(error, request_id, self._id, was_read=bool(self._asked))

    def _answer(self, value: bytes) -> Response:
        return Response(200, _JSON, result(self._id, value))


def _prefers_no_waiting(head: RequestHead) -> bool:
    """Whether `Prefer: respond-async` says what A2A has a member for."""
    return b"respond-async" in head.fields.get(b"prefer", b"").lower()


def _check_may_list(head: RequestHead) -> None:
    """Raises InvalidRequest where nothing tells one caller from another: the ids of tasks are
    secrets, and anybody could ask for all of them."""
    presented = [head.fields.get(name, b"") for name in (b"authorization", b"x-api-key")]
    if not head.owner and all(_NO_KEY.match(each) for each in presented):
        raise refuse(
            UNSUPPORTED_OPERATION,
            "tasks are listed for whoever presents a key, by Authorization or X-API-Key: nothing "
            "else tells whose they are",
        )
