"""One request to a service and its answer, between an agent and a connection to that service.

This module owns the passing on of both, its clocks and the blame for what fails. It does not know
which requests are allowed, nor what of them is recorded (`door`).

# Theory of operation

*One request* is a nursery of two tasks. One sends the body up as it comes, and then watches the
agent. The other waits for the answer, and passes on each piece as soon as it has come. Whichever
fails cancels the other: if the agent leaves, the connection to the service is closed at once; if
the service ends too early, the agent's connection is, so that half an answer never looks whole.

*Blame and clocks.* Until the answer's head has been passed on, a failure is an answer of the door's
own, in the form that clients of this service read. It names the service, the clock or the cause,
and the setting that moves it. Afterwards it can only be a cut.

*Budgets and records.* A piece of the answer is charged before the agent gets it, and the record
of the call is told before the last piece. Whoever has an answer, or the numbers at the end of a
stream, may ask again at once, or look at the counters, and must find them counted.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import h11
import trio

from gateway.sandbox.network.addresses import Unreachable
from gateway.sandbox.network.downstream import Left
from gateway.sandbox.network.rules import (
    build_headers,
    build_response_headers,
    build_target,
    why_unreadable,
)
from gateway.sandbox.network.upstream import BadAnswer
from gateway.sandbox.network.usage import UsageReader, tokens_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.config.presets import ErrorForm
    from gateway.sandbox.network.audit import Verdict
    from gateway.sandbox.network.budget import Budget
    from gateway.sandbox.network.downstream import Downstream
    from gateway.sandbox.network.rules import Service, Target
    from gateway.sandbox.network.upstream import Connection, Upstream


class Failed(Exception):  # noqa: N818 - an answer for the agent, no failure of this process
    """The service has not answered, or not as HTTP asks. `rule`: the setting, or `upstream`."""

    def __init__(self, status: int, rule: str, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.rule = rule


@dataclass(frozen=True, slots=True)
class Clocks:
    """Seconds; see `gateway.config.services.ServiceClocks`."""

    connect: float
    first: float
    idle: float


@dataclass(slots=True)
class Entry:
    """One service of this agent, under the rules that hold now."""

    service: Service
    upstream: Upstream
    budget: Budget
    clocks: Clocks
    errors: ErrorForm
    source: dict[str, Any] = field(repr=False)
    """The rules of this service, as the gateway has sent them; they hold its keys."""


@dataclass(slots=True)
class Call:
    """One request, as the record of it will say."""

    worker: int
    method: str = ""
    path: str = ""
    service: str = ""
    verdict: Verdict = "refused"
    rule: str = ""
    why: str = ""
    status: int = 0
    sent: int = 0
    received: int = 0
    began: float = field(default_factory=trio.current_time)
    usage: UsageReader | None = None
    whole: bool = False
    """Whether the answer has come to its end."""
    charged: int = 0
    """Tokens that the service's budget was charged so far."""
    noted: bool = False
    """Whether its record was told."""

    def refuse(self, rule: str, why: str, status: int) -> None:
        self.verdict, self.rule, self.why, self.status = "refused", rule, why, status

    def fail(self, rule: str, why: str, status: int) -> None:
        self.verdict, self.rule, self.why, self.status = "failed", rule, why, status

    def charge(self, budget: Budget, *, ended: bool) -> None:
        """Charge the service's budget for what it was not charged yet: the tokens that the answer
        has named so far, and once the answer or the call has ended, the estimate of the others."""
        tokens = self._at_the_end() if ended else self._named()
        if tokens > self.charged:
            budget.charge(tokens - self.charged, time.time())
            self.charged = tokens

    def _named(self) -> int:
        return 0 if self.usage is None or self.usage.tokens is None else self.usage.tokens.total

    def _at_the_end(self) -> int:
        if self.usage is not None:
            return self.usage.charge(sent=self.sent, received=self.received, whole=self.whole)
        # The agent has left before an answer: what was asked is worked at, and paid for.
        return tokens_in(self.sent) if self.verdict == "allowed" else 0


class Forwarding:
    """One request and its answer, on one connection to the service."""

    def __init__(
        self,
        agent: Downstream,
        entry: Entry,
        connection: Connection,
        call: Call,
        note: Callable[[], None],
    ) -> None:
        """`note` tells the record of the call, whose answer has come to its end."""
        self._agent = agent
        self._entry = entry
        self._connection = connection
        self._call = call
        self._note = note
        self._name = entry.service.name
        self._sent_whole = self._answered = False
        self._waiting = trio.CancelScope()
        """For the answer's head, since the last byte of the request."""

    async def run(self, asked: h11.Request, target: Target) -> bool:
        """Whether the connection can be used again. Raises Failed, Left."""
        path = build_target(self._entry.service, target)
        failures: list[Exception] = []
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                try:
                    with suppress(trio.BrokenResourceError):  # `_pass_on` says why
                        request = self._request(asked, path)
                        # In one piece with what is there of the body.
                        await self._send(request, *self._part(self._agent.arrived()))
                    nursery.start_soon(self._send_body, scope, failures)
                    await self._pass_on(path.partition(b"?")[0].decode("ascii"))
                except (Failed, Left) as error:
                    failures.append(error)
                except h11.LocalProtocolError:
                    # Not chained: it quotes what it is about.
                    why = f"{self._name}: this cannot be passed on as HTTP"
                    failures.append(Failed(502, "upstream", why))
                scope.cancel()
        try:
            if failures and not self._answered:
                raise failures[0]
        finally:
            failures.clear()  # their tracebacks hold this frame
        return self._sent_whole

    def _request(self, asked: h11.Request, path: bytes) -> h11.Request:
        framing = [
            each for each in asked.headers if each[0] in {b"content-length", b"transfer-encoding"}
        ]
        headers = build_headers(self._entry.service, asked.headers, framing)
        return h11.Request(method=asked.method, target=path, headers=headers)

    def _part(self, data: bytes) -> list[h11.Event]:
        """A part of the body as it is sent, and its end if that has come."""
        self._call.sent += len(data)
        events: list[h11.Event] = [h11.Data(data=data)] if data else []
        if self._agent.read_whole:
            events.append(h11.EndOfMessage())
        return events

    async def _send(self, *events: h11.Event) -> None:
        idle = self._entry.clocks.idle
        with trio.move_on_after(idle):
            await self._connection.send(*events)
            self._sent_whole = self._agent.read_whole
            self._restart_clock()
            return
        setting = self._clock("idle")
        raise Failed(504, setting, f"{self._name} has read nothing for {idle:g} s ({setting})")

    async def _send_body(self, scope: trio.CancelScope, failures: list[Exception]) -> None:
        """Send the rest of the body up, then wait for the agent to leave."""
        try:
            while not self._agent.read_whole:
                await self._send(*self._part(await self._body()))
        except trio.BrokenResourceError:
            return  # it may have answered before: the answer counts
        except (Failed, Left) as error:
            failures.append(error)
            scope.cancel()
            return
        await self._agent.gone()
        failures.append(Left("the agent has left"))
        scope.cancel()

    async def _body(self) -> bytes:
        idle = self._entry.clocks.idle
        with trio.move_on_after(idle):
            return await self._agent.body()
        raise Left(f"the agent has sent nothing of its body for {idle:g} s ({self._clock('idle')})")

    def _restart_clock(self) -> None:
        self._waiting.deadline = trio.current_time() + self._entry.clocks.first

    async def _pass_on(self, path: str) -> None:
        """Pass the answer on, each piece as it comes. Raises Failed, Left."""
        service, call = self._entry.service, self._call
        head = await self._head()
        if (why := why_unreadable(head.headers)) is not None:
            raise Failed(502, "upstream", f"{self._name}: {why}")
        call.status = head.status_code
        types = [value for name, value in head.headers if name == b"content-type"]
        call.usage = UsageReader(types[0].decode("latin-1") if types else "")
        headers = build_response_headers(service, path, head.headers)
        events: list[h11.Event] = [self._agent.head(head.status_code, headers)]
        masked = service.mask.body()
        while True:
            data = self._arrived()
            call.received += len(data)
            call.usage.feed(data)
            call.whole = whole = self._connection.is_whole
            # Before the agent has it: then its next request may be read before this task goes on.
            call.charge(self._entry.budget, ended=whole)
            if whole:
                self._note()
            passed = masked.feed(data) + (masked.end() if whole else b"")
            events += [h11.Data(data=passed)] if passed else []
            events += [h11.EndOfMessage()] if whole else []
            await self._send_to_agent(*events)
            if whole:
                self._answered = True  # whoever leaves now has got all of it
                return
            events = []
            await self._wait_for_more()

    def _arrived(self) -> bytes:
        try:
            return self._connection.arrived()
        except BadAnswer as error:
            raise Failed(502, "upstream", f"{self._name}: {error}") from None

    async def _head(self) -> h11.Response:
        self._restart_clock()
        try:
            with self._waiting:
                return await self._connection.head()
        except BadAnswer as error:
            raise Failed(502, "upstream", f"{self._name}: {error}") from None
        first = self._entry.clocks.first
        why = f"{self._name} has not begun to answer within {first:g} s ({self._clock('first')})"
        raise Failed(504, self._clock("first"), why)

    async def _wait_for_more(self) -> None:
        idle = self._entry.clocks.idle
        try:
            with trio.move_on_after(idle):
                await self._connection.wait()
                return
        except BadAnswer as error:
            raise Failed(502, "upstream", f"{self._name}: {error}") from None
        setting = self._clock("idle")
        raise Failed(504, setting, f"{self._name} has sent nothing for {idle:g} s ({setting})")

    async def _send_to_agent(self, *events: h11.Event) -> None:
        if events:
            with trio.move_on_after(self._entry.clocks.idle):
                await self._agent.send(*events)
                return
            raise Left("the agent does not read")

    def _clock(self, name: str) -> str:
        return f"services.{self._name}.clocks.{name}"


async def connect(entry: Entry) -> Connection:
    name, seconds = entry.service.name, entry.clocks.connect
    try:
        with trio.move_on_after(seconds):
            return await entry.upstream.take()
    except Unreachable as error:
        why = f"{name}: {error}"
        if error.refused:
            raise Failed(403, f"services.{name}.url", f"{why} (services.{name}.url)") from None
        raise Failed(502, "upstream", why) from None
    setting = f"services.{name}.clocks.connect"
    raise Failed(504, setting, f"{name} could not be reached within {seconds:g} s ({setting})")
