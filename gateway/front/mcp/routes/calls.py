"""Calls of agents, from their arguments to their answers; and the tools that a caller may see.

Knows nothing of the SDK: what a call tells on its way is given to a function.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from copy import copy
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import trio

from gateway.errors import AgentNotFound, AgentUnavailable, InvalidAgentResponse, InvalidRequest
from gateway.front.mcp.answer import Progress, object_in
from gateway.front.mcp.codec import outcome_of, read_events
from gateway.front.mcp.splice import Splices
from gateway.front.mcp.tools import AgentTools, make_tools, read_name
from gateway.front.runs.reading import PORTION
from gateway.front.runs.run import Run
from gateway.front.slices import Slices

if TYPE_CHECKING:
    from gateway.agents.dispatcher import Dispatcher
    from gateway.call import Call
    from gateway.exchange import Exchange
    from gateway.front.auth import Caller
    from gateway.front.calling import Calling
    from gateway.front.client import ClientRequest
    from gateway.front.mcp.answer import Answer
    from gateway.front.mcp.codec import CallCodec
    from gateway.front.mcp.envelope import Envelope
    from gateway.front.runs.service import Runs
    from gateway.front.runs.wishes import Wish
    from protocol import Method, Outcome, Ready

    Tell: TypeAlias = Callable[[list[Progress]], Awaitable[None]]

PROGRESS_SECONDS = 0.05
"""Between two notifications, each of which costs the SDK a few models: what is told meanwhile is
told together."""


class Visit:
    """One request, whatever becomes of its message within the SDK."""

    def __init__(
        self, request: ClientRequest, envelope: Envelope, size: int, wish: Wish | None
    ) -> None:
        """`size` is that of the body in bytes."""
        self.request = request
        self.envelope = envelope
        self.size = size
        self.wish = wish
        self.splices = Splices()
        """What goes into its response."""
        self.work = trio.CancelScope()
        """What is done for it, perhaps by a task of its session."""
        self.gone = False
        """Whether the client has left."""
        self.session = ""
        """The id of the session that the request says it is in."""


class Finished(NamedTuple):
    """A call that has ended well."""

    answer: Answer
    outcome: Outcome | None


class Target(NamedTuple):
    """What a tool stands for."""

    agent: str
    method: Method
    tools: AgentTools


class Calls:
    """See the module's docstring."""

    def __init__(self, dispatcher: Dispatcher, calling: Calling, runs: Runs) -> None:
        self._dispatcher = dispatcher
        self._calling = calling
        self._runs = runs
        self._tools: dict[str, AgentTools] = {}
        """Of each agent that there is, as it was listed last."""
        self._asking: set[trio.CancelScope] = set()
        self._closed = False

    # Tools

    async def prepare(self) -> None:
        """Make what `tools` lists, where it is not known yet, with pauses: the largest schemas take
        the event loop 40 ms for each agent."""
        slices = Slices()
        for name in tuple(self._dispatcher.agents):
            if name in self._dispatcher.agents:
                self._tools_of(name)
            await slices.pause()

    def tools(self, caller: Caller) -> Iterator[tuple[str, bytes]]:
        """The tools that a caller may see, as JSON texts, sorted by their names."""
        listed = {}
        for name in self._dispatcher.agents:
            if caller.may_call(name):
                listed.update(self._tools_of(name).listed)
        yield from sorted(listed.items())

    def find(self, caller: Caller, tool: str) -> Target | None:
        """What a tool stands for; None: the caller can see none with that name."""
        named = read_name(tool)
        if named is None or not caller.may_call(named[0]):
            return None
        try:
            tools = self._tools_of(named[0])
        except (AgentNotFound, AgentUnavailable):
            return None
        return Target(*named, tools) if tool in tools.listed else None

    def _tools_of(self, name: str) -> AgentTools:
        agent = self._dispatcher.agent(name)
        ready = agent.declared.ready
        known = self._tools.get(name)
        if known is None or known.ready is not ready:
            gone = self._tools.keys() - self._dispatcher.agents.keys()
            for each in gone:
                del self._tools[each]
            known = self._tools[name] = make_tools(name, ready, agent.summary.description)
        return known

    @property
    def listed_now(self) -> dict[str, Ready | None]:
        """What changes when the list of all tools does."""
        return {name: agent.declared.ready for name, agent in self._dispatcher.agents.items()}

    # Calls

    async def run(self, visit: Visit, call: Call, codec: CallCodec, tell: Tell) -> Finished:
        """Make a call. Raises GatewayError."""
        wish = visit.wish
        if wish is not None and call.resume is not None:
            wish = wish.of_answers(call.resume)
        begun = await self._calling.begin(visit.request, call, visit.size, codec, wish)
        del call
        if isinstance(begun, Run):
            return await self._follow(visit, begun, tell)
        visit.request.limit_unread(begun.write_seconds)
        try:
            return await self._answer(begun, codec, tell)
        finally:
            self._calling.leave(begun)
            begun.forget_answer()

    async def _answer(self, exchange: Exchange, codec: CallCodec, tell: Tell) -> Finished:
        answering = codec.answering()
        told_at = -math.inf
        while not exchange.drained:
            wait = told_at + PROGRESS_SECONDS - trio.current_time()
            words = await exchange.receive(
                patience=max(wait, 0) if answering.has_news else math.inf
            )
            answering.add(words)
            if answering.has_news and trio.current_time() >= told_at + PROGRESS_SECONDS:
                await tell(answering.take_progress())
                told_at = trio.current_time()
        if answering.has_news:
            await tell(answering.take_progress())
        if exchange.error is not None:
            raise copy(exchange.error)
        return Finished(answering.end(exchange.result, exchange.outcome), exchange.outcome)

    async def _follow(self, visit: Visit, run: Run, tell: Tell) -> Finished:
        """Wait for a run, which goes on when the client leaves, and ends when it cancels."""
        finished = None
        reader = run.attach(0)
        try:
            while not (run.ended and reader.position == run.ring.next):
                data = run.take(reader, PORTION)
                if not data:
                    await run.news.park()
                for told in read_events(data):
                    if told.progress:
                        await tell(told.progress)
                    if (answer := told.answer) is not None:
                        finished = Finished(answer, outcome_of(told))
            self._runs.note_read(run)
        except trio.Cancelled:
            if not visit.gone:
                self._runs.cancel(run)
            raise
        finally:
            run.detach(reader)
            self._runs.note_left(run)
        if run.error is not None:
            raise copy(run.error)
        if finished is None:
            raise run.gap(0)
        return finished

    # Questions

    @contextmanager
    def asking(self, seconds: float) -> Iterator[None]:
        """While a user is asked, for so long, or until the gateway ends."""
        with trio.move_on_after(0 if self._closed else seconds) as scope:
            self._asking.add(scope)
            try:
                yield
            finally:
                self._asking.discard(scope)

    def close(self) -> None:
        """Wait for no more answers: no call could go on with them."""
        self._closed = True
        for scope in self._asking:
            scope.cancel()

    async def structured(self, target: Target, answer: Answer) -> bytes | None:
        """The output of a tool that has declared its schema, as the object that clients get; None:
        it has declared none. Raises InvalidAgentResponse if the output is not as declared."""
        shapes = target.tools.shapes
        if target.method != "invoke" or shapes.output is None:
            return None
        value = answer.value
        if value is not None and not shapes.wraps_output and value[:1] == b'"':
            value = object_in(value)
        if value is None:
            raise InvalidAgentResponse("the answer is not one output, as the agent has declared it")
        checker = self._dispatcher.agent(target.agent).declared.outputs()
        if checker is not None:
            try:
                await checker.check(value)
            except InvalidRequest as error:
                raise InvalidAgentResponse(
                    f"the output is not as the agent has declared it: {error.message}"
                ) from None
        return b'{"result":%b}' % value if shapes.wraps_output else value
