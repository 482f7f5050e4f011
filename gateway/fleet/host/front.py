"""One front as a host sees it: its requests, each from its submission to its end.

What a front says comes in order, and is done at once. What is to be said to it is gathered until
the end of the turn of the loop in which it happened: a request that has changed is noted by its
exchange, within a step of its agent's supervisor, and `run`, one task, looks at all that were noted
together. So what the workers say in one turn leaves in one message, and no request has a task.
"""

from __future__ import annotations

import logging
import math
from copy import copy
from functools import partial
from typing import TYPE_CHECKING

import trio

from gateway import clock
from gateway.call import Call, session_key
from gateway.errors import Cancelled, GatewayError, InternalError, Overloaded, WorkerCrashed
from gateway.fleet.conversation import Elsewhere
from gateway.fleet.host.beats import describe
from gateway.fleet.host.exchange import ForwardedExchange
from gateway.fleet.host.lines import frames
from gateway.fleet.host.request import Forwarded, referral, refusal
from gateway.fleet.messages import (
    Ask,
    Cancel,
    Described,
    Hurry,
    Leaving,
    Left,
    Submit,
    Told,
    Took,
)
from gateway.observe import logs
from gateway.observe.tracecontext import TraceContext

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from gateway.agents.agent import Agent
    from gateway.agents.dispatcher import Dispatcher
    from gateway.fleet.conversation import Conversation
    from gateway.fleet.messages import Down, Up
    from gateway.fleet.ownership import Claims
    from gateway.fleet.pipe import Ended
    from gateway.fleet.wire import Wire
    from gateway.workers.input_checker import InputChecker

log = logging.getLogger("gateway.fleet")

TELL_AT_ONCE = 8
"""Answers to questions that are made and sent at a time: each may have 1 MiB, and what a front does
not take waits here."""

MOST_ASKED = 4096
"""Questions that wait for their answers: as many as a front asks."""

RETURN_SECONDS = 2.0
"""A front to which NATS finds no way may be on its way back: it has this time."""

MOVED = WorkerCrashed(
    "the host that had the request was cut off, and its conversation has gone on at another one"
)

DEFECT = InternalError("a defect of the gateway; see the log of its host")


class Front:
    """A front; the owner of its wire (`gateway.fleet.wire.Owner`). `run` must be running.

    `answer` gives the answer to an `Ask` about an agent, and `revision` that of its description.
    `see` is told of deadlines of exchanges.
    """

    def __init__(
        self,
        wire: Wire,
        dispatcher: Dispatcher,
        claims: Claims,
        *,
        answer: Callable[[str, str], Awaitable[bytes | None]],
        revision: Callable[[Agent], int],
        see: Callable[[float], None],
    ) -> None:
        """`dispatcher` makes every exchange a `ForwardedExchange`."""
        self.wire = wire
        self.requests: dict[int, Forwarded] = {}
        """Those that have not ended, by their ids."""
        self._dispatcher = dispatcher
        self._claims = claims
        self._claiming: dict[int, Call] = {}
        """Requests whose conversations are being claimed, by their ids."""
        self._awaited = False
        """Whether a `Left` is."""
        self._fewer = trio.lowlevel.ParkingLot()
        """Where `take_leave` waits until there are fewer of all these."""
        self._answer = answer
        self._revision = revision
        self._see = see
        self._changed: dict[Forwarded, None] = {}
        self._woken = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._early: list[Callable[[], Awaitable[None]]] = []
        """What is to be done once `run` runs: a wire begins with what its front has said first."""
        self._described: dict[str, int] = {}
        """Which revision of agents' descriptions the front was told."""
        self._checking: dict[int, trio.CancelScope] = {}
        """Requests whose inputs are checked before they are submitted, by their ids."""
        self._asked = 0
        self._telling = trio.CapacityLimiter(TELL_AT_ONCE)
        self._epochs = 0
        """How many have ended."""
        self._unheard_at: float | None = None

    def __repr__(self) -> str:
        return f"<Front with {len(self.requests)} requests>"

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Say what there is to say, until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            for task in self._early:
                self._nursery.start_soon(task)
            while True:
                await self._woken.wait()
                await self.wire.room()
                self._woken = trio.Event()
                self._advance()

    async def take_leave(self) -> None:
        """Wait until the front has received what there was to say, and submits nothing more.

        What it submits until it hears that this host ends arrives before its `Left`, and is
        refused; without that, it would be received by nobody, and NATS would not say so. That the
        front has received `Leaving` does not tell: requests may wait there until they fit into a
        window.
        """
        epochs = -1
        while epochs != self._epochs:  # the front begins anew, and has to hear it again
            epochs = self._epochs
            self._awaited = self.wire.open  # else the front has gone
            self.wire.send(Leaving())
            while self._awaited:
                await self._fewer.park()
        while self._claiming or self._checking:  # they are refused soon
            await self._fewer.park()
        while self._changed:
            await self.wire.room()
            await trio.lowlevel.checkpoint()
        await self.wire.settled()

    # What becomes of its wire

    def ended(self, ended: Ended) -> None:
        """The front, or the pipe to it, is gone: nobody waits for its requests any more."""
        if self.requests:
            message = f"{len(self.requests)} requests are cancelled: {ended.detail}"
            logs.event(log, logging.WARNING, message, front=str(self.wire.peer))
        self._epochs += 1
        requests, self.requests = self.requests, {}
        self._changed.clear()
        self._claiming.clear()
        self._awaited = False
        self._fewer.unpark_all()
        for scope in self._checking.values():
            scope.cancel()
        self._checking.clear()
        for request in requests.values():
            request.abandon()
            self._leave(request)

    def unheard(self) -> None:
        """NATS found nobody to give a message to."""
        if self._unheard_at is None or self._unheard_at < self.wire.heard_at:
            self._unheard_at = clock.now()

    def is_gone(self, grace: float) -> bool:
        """Whether nothing was heard for too long: for `grace` seconds, or a shorter time if NATS
        says that nobody is there."""
        now, heard_at, unheard_at = clock.now(), self.wire.heard_at, self._unheard_at
        if unheard_at is not None and heard_at <= unheard_at <= now - RETURN_SECONDS:
            return True
        return heard_at < now - grace

    # What it says

    def receive(self, messages: Sequence[Up | Down]) -> None:
        """Do what the front says."""
        for message in messages:
            if isinstance(message, Submit):
                if self._has(message.id):
                    # Two answers under one id: which requests there are is not certain any more.
                    self.wire.end(f"request {message.id} came twice")
                    return
                self._submit(message)
            elif isinstance(message, Took):
                request = self.requests.get(message.id)
                if request is not None and request.took(message.size):
                    self._note(request)
            elif isinstance(message, Cancel):
                self._cancel(message.id)
            elif isinstance(message, Left):
                self._awaited = False
                self._fewer.unpark_all()
            elif isinstance(message, Ask):
                if self._asked >= MOST_ASKED:
                    self.wire.end(f"{MOST_ASKED} questions wait for their answers")
                    return
                self._asked += 1
                self._do(partial(self._tell, message, self._epochs))

    def _has(self, request_id: int) -> bool:
        return (
            request_id in self.requests
            or request_id in self._claiming
            or request_id in self._checking
        )

    def _do(self, task: Callable[[], Awaitable[None]]) -> None:
        if self._nursery is None:
            self._early.append(task)
        else:
            self._nursery.start_soon(task)

    def _submit(self, said: Submit) -> None:
        agent = self._dispatcher.agents.get(said.agent)
        inputs = None if agent is None or said.method != "invoke" else agent.declared.inputs
        if (
            agent is None
            or inputs is None
            or said.described == self._revision(agent)
            or self._dispatcher.draining
        ):
            self._enter(said)
        else:  # its workers have declared themselves since the front was told of them
            scope = self._checking[said.id] = trio.CancelScope()
            self._do(partial(self._check_first, said, inputs, scope))

    async def _check_first(
        self, said: Submit, inputs: InputChecker, scope: trio.CancelScope
    ) -> None:
        """Go on if the input is what the agent declares: a front does that if it knows."""
        error: GatewayError | None = None
        with scope:
            try:
                await inputs.check(said.payload, time_left(said))
            except GatewayError as found:
                error = copy(found)
        if scope.cancel_called:  # which a check that need not wait does not notice
            error = Cancelled()
        if self._checking.get(said.id) is not scope:
            return  # its epoch has ended
        del self._checking[said.id]
        self._fewer.unpark_all()
        if error is None:
            self._enter(said)
        else:
            self.wire.send(refusal(said.id, error))

    def _enter(self, said: Submit) -> None:
        call = call_of(said)
        session = self._session(call)
        if session is None or self._dispatcher.draining:
            if session is not None:
                self._claims.drain(ending=True)  # for whoever gets it instead
            self._admit(said.id, call)
        else:
            self._claiming[said.id] = call
            settled = partial(self._claimed, said.id, call)
            self._claims.enter(call.agent, session, said.had, settled)

    def _session(self, call: Call) -> str | None:
        """What binds a request to the host that has it; None: nothing does."""
        agent = self._dispatcher.agents.get(call.agent)
        if agent is None or agent.settings.session == "none":
            return None
        return session_key(call, agent.settings.session_by)

    def _claimed(self, request_id: int, call: Call, outcome: Conversation | Elsewhere) -> None:
        waits = self._claiming.get(request_id) is call
        if waits:
            del self._claiming[request_id]
            self._fewer.unpark_all()
        if isinstance(outcome, Elsewhere):
            if waits:
                self.wire.send(referral(request_id, outcome))
        elif waits:
            self._admit(request_id, call, outcome)
        else:
            self._claims.leave(outcome)

    def _admit(self, request_id: int, call: Call, conversation: Conversation | None = None) -> None:
        error: GatewayError
        try:
            exchange = self._dispatcher.submit(call)
        except GatewayError as refused:
            error = copy(refused)
        except Exception:  # the boundary: a defect of ours is logged, and ends the request alone
            log.exception("internal error", extra={"fields": {"request": call.request_id}})
            error = DEFECT
        else:
            assert isinstance(exchange, ForwardedExchange)
            request = self.requests[request_id] = Forwarded(request_id, exchange, conversation)
            hurry = partial(self.wire.send, Hurry(request_id))
            exchange.watch(partial(self._note, request), self._see, hurry)
            return
        # What is only full keeps its conversations. Else others may have them.
        release = not isinstance(error, Overloaded)
        bound = conversation is not None and self._claims.leave(conversation, release=release)
        self.wire.send(refusal(request_id, error, bound=bound))

    def _cancel(self, request_id: int) -> None:
        if (scope := self._checking.get(request_id)) is not None:
            scope.cancel()
        if self._claiming.pop(request_id, None) is not None:
            self._fewer.unpark_all()
            self.wire.send(refusal(request_id, Cancelled()))
        request = self.requests.get(request_id)
        if request is not None:
            request.abandon()
            self._dispatcher.leave(request.exchange)
            self._note(request)

    def _leave(self, request: Forwarded) -> None:
        """A request has ended."""
        self._dispatcher.leave(request.exchange)
        if request.conversation is not None:
            self._claims.leave(request.conversation, release=request.left_unread)

    def moved(self, agent: str, session: str) -> None:
        """Another host has a conversation now: its requests here must end."""
        for request in self.requests.values():
            its = request.conversation
            if its is not None and (its.agent, its.session) == (agent, session):
                request.exchange.fail(MOVED)

    async def _tell(self, asked: Ask, epochs: int) -> None:
        async with self._telling:
            await self.wire.room()
            self._asked -= 1
            if self._epochs != epochs:
                return
            agent = self._dispatcher.agents.get(asked.agent)
            revision = 0 if agent is None else self._revision(agent)
            body = await self._answer(asked.what, asked.agent)
        if self._epochs == epochs:
            if asked.what == "describe" and agent is not None:
                self._described[agent.name] = revision
            self.wire.send(Told(asked.id, body))

    # What it is told

    def _note(self, request: Forwarded) -> None:
        """Something has happened to a request: look at it soon."""
        self._changed[request] = None
        self._woken.set()

    def tell_given(self) -> None:
        """Say which requests have got a worker, where that was not said with its first words."""
        messages: list[Down] = []
        for request in self.requests.values():
            request.tell_given(messages)
        if messages:
            self.wire.send(*messages)

    def _advance(self) -> None:
        changed, self._changed = self._changed, {}
        messages: list[Down] = []
        lines: list[bytes] = []
        ends: list[Down] = []
        for request in changed:
            if self.requests.get(request.id) is not request:
                continue  # its epoch has ended
            if request.checking or request.exchange.has_to_be_checked:
                self._check(request)
                continue
            self._describe(request.exchange.call.agent, messages)
            try:
                request.advance(messages, lines, ends)
            except Exception:  # the boundary: a defect of ours ends the request alone
                request_id = request.exchange.call.request_id
                log.exception("internal error", extra={"fields": {"request": request_id}})
                request.give_up()
                ends.append(request.failure(DEFECT))
            if request.over:
                del self.requests[request.id]
                self._leave(request)
            elif not request.exchange.ended:
                self._see(request.exchange.deadline)
        if messages or lines or ends:
            self.wire.send_now(*messages, *frames(lines), *ends)

    def _describe(self, name: str, messages: list[Down]) -> None:
        """Say what an agent's workers have declared, if the front was told something else."""
        agent = self._dispatcher.agents.get(name)
        if agent is None:
            return
        revision = self._revision(agent)
        if self._described.get(name, revision) != revision:
            self._described[name] = revision
            messages.append(Described(name, revision, describe(agent)))

    def _check(self, request: Forwarded) -> None:
        if not request.checking:
            request.checking = True
            assert self._nursery is not None
            self._nursery.start_soon(self._check_late, request)

    async def _check_late(self, request: Forwarded) -> None:
        await request.exchange.check_late()
        request.checking = False
        self._note(request)


def time_left(said: Submit) -> float:
    """Seconds that its caller allows; none where a front says what is no time."""
    return math.inf if said.total is None else max(0.0, said.total)  # 0.0 for NaN, too


def call_of(said: Submit) -> Call:
    return Call(
        agent=said.agent,
        method=said.method,
        payload=said.payload,
        stream=said.stream,
        context=said.context,
        conversation=said.conversation,
        user=said.user,
        owner=said.owner,
        request_id=said.request_id,
        total=time_left(said),
        events=said.events,
        tools=said.tools,
        resume=said.resume,
        trace=None if said.trace is None else TraceContext(*said.trace),
        needs=frozenset(said.needs),
        continues=said.continues,
    )
