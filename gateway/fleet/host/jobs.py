"""Background runs at a host: taken from JetStream when there is a place for one, and given to the
agents as any request. See `gateway.fleet.background`.

Nothing is asked while there is nothing to take: a front says on the agent's subject that there is
something, and so does a new connection, after which there may be. A host that has no place for it
asks again when it has.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio
from msgspec import structs

from gateway import clock
from gateway.errors import Cancelled, GatewayError, InternalError
from gateway.fleet.background import AwayError, Outcome
from gateway.fleet.host.beats import capacity
from gateway.fleet.host.exchange import ForwardedExchange
from gateway.fleet.host.front import DEFECT, call_of
from gateway.fleet.host.lines import answer, words
from gateway.fleet.host.request import as_said
from gateway.fleet.jetstream import FullError, NonsenseError
from gateway.fleet.wire import BEAT
from gateway.observe import logs

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.agents.dispatcher import Dispatcher
    from gateway.call import Call
    from gateway.fleet.background import Store
    from gateway.fleet.bus import Bus, Delivery
    from gateway.fleet.messages import Submit
    from gateway.fleet.subjects import Peer
    from gateway.workers.input_checker import InputChecker

log = logging.getLogger("gateway.fleet")

AT_ONCE = 8
"""Agents that are asked for at a time."""

RETRY_SECONDS = 1.0
"""Until an outcome is written again that could not be."""

AWAY_SECONDS = 5.0
"""Until JetStream is asked again that could not be: about one agent, and the others once it can."""

RETRIES = 60

UNREADABLE = Outcome(
    b"",
    as_said(
        InternalError(
            "the host of the agent cannot read the request: has its front another version?"
        )
    ),
    handed_over=False,
)


class Jobs:
    """The background runs of one host. `see` is told of the deadlines of exchanges."""

    def __init__(
        self,
        bus: Bus,
        store: Store,
        this: Peer,
        dispatcher: Dispatcher,
        *,
        see: Callable[[float], None],
    ) -> None:
        self.open: dict[str, ForwardedExchange] = {}
        """Those that run here, by their tokens."""
        self._bus = bus
        self._store = store
        self._this = this
        self._dispatcher = dispatcher
        self._see = see
        self._checking: dict[str, trio.CancelScope] = {}
        """By their tokens, the jobs whose inputs are being checked."""
        self._due: dict[str, None] = {}
        """Agents for which there may be something to take, in the order of asking."""
        self._away_until: float | None = None
        """Running time at which JetStream is asked again; None: it has answered."""
        self._asking: set[str] = set()
        """Agents for which a job is being taken."""
        self._heard: set[str] = set()
        """Agents whose subjects are subscribed."""
        self._limit = trio.CapacityLimiter(AT_ONCE)
        self._left = trio.lowlevel.ParkingLot()
        """Where `settled` waits until there are fewer of these."""
        self._writing = 0
        """Jobs that were taken and whose outcomes are not written."""

    def __repr__(self) -> str:
        return f"<Jobs {len(self.open)} run here>"

    async def run(self) -> None:
        """Take what there is, until cancelled."""
        self._bus.watch(self._connected, lambda: None)
        async with trio.open_nursery() as nursery:
            while True:
                if self._bus.connected:
                    self._listen()
                    for agent in self._to_ask():
                        del self._due[agent]
                        self._asking.add(agent)
                        nursery.start_soon(self._take, agent)
                await trio.sleep(BEAT)

    async def settled(self) -> None:
        """Wait until every outcome is written, also that of a job that is being taken."""
        while self._asking or self._writing:
            await self._left.park()

    def _to_ask(self) -> list[str]:
        able = [each for each in self._due if self._has_place(each)]
        if self._away_until is None:
            return able
        return [] if self._asking or clock.now() < self._away_until else able[:1]

    def _connected(self) -> None:
        self._heard.clear()
        self._away_until = None

    def _listen(self) -> None:
        for agent in self._dispatcher.agents.keys() - self._heard:
            self._heard.add(agent)
            self._due[agent] = None
            self._bus.subscribe(self._store.hint(agent), self._on_hint)
            self._bus.subscribe(self._store.stop(agent), self._on_stop)

    def _on_hint(self, delivery: Delivery) -> None:
        self._due[delivery.subject.rsplit(".", 1)[1]] = None

    def _on_stop(self, delivery: Delivery) -> None:
        token = delivery.data.decode("ascii", "replace")
        if (scope := self._checking.get(token)) is not None:
            scope.cancel()
        exchange = self.open.get(token)
        if exchange is not None:
            self._dispatcher.leave(exchange)

    def _has_place(self, name: str) -> bool:
        agent = self._dispatcher.agents.get(name)
        if agent is None or name in self._asking or self._dispatcher.leaving:
            return False
        if self._dispatcher.draining or not agent.state.can_serve:
            return False
        summary = agent.summary
        return summary.in_flight + summary.waiting < capacity(agent)

    async def _take(self, agent: str) -> None:
        try:
            async with self._limit:
                taken = await self._store.take(agent, str(self._this))
        except (AwayError, FullError):
            self._away_until = clock.now() + AWAY_SECONDS
            self._due[agent] = None
            return
        finally:
            self._asking.discard(agent)
            self._left.unpark_all()
        self._away_until = None
        if taken is not None:
            self._due[agent] = None
            await self._serve(agent, taken)

    async def _serve(self, agent: str, token: str) -> None:
        self._writing += 1
        try:
            if await self._is_over(agent, token):
                return
            try:
                job = await self._read(agent, token)
            except NonsenseError:
                await self._write(agent, token, UNREADABLE)
                return
            if job is None:
                return
            try:
                outcome = await self._outcome(agent, token, job)
            except GatewayError as error:
                outcome = Outcome(b"", as_said(error), handed_over=False)
            except Exception:  # the boundary: a defect of ours is logged, and ends the job alone
                log.exception("internal error", extra={"fields": {"request": job.request_id}})
                outcome = Outcome(b"", as_said(DEFECT), handed_over=True)
            await self._write(agent, token, outcome)
        finally:
            self._writing -= 1
            self._left.unpark_all()

    async def _read(self, agent: str, token: str) -> Submit | None:
        """A job that no other host will run: it is asked for until JetStream answers. Raises
        NonsenseError."""
        while True:
            try:
                return await self._store.job(agent, token)
            except AwayError:
                await trio.sleep(RETRY_SECONDS)

    async def _is_over(self, agent: str, token: str) -> bool:
        """Whether it was cancelled while it waited."""
        try:
            return await self._store.has_ended(agent, token)
        except AwayError:
            return False

    async def _outcome(self, agent: str, token: str, job: Submit) -> Outcome:
        """Raises GatewayError for what is not admitted."""
        # What a client is to see as a stream is kept whole, as any answer.
        call = structs.replace(call_of(job), agent=agent, stream=False)
        inputs = self._dispatcher.agent(agent).declared.inputs
        if call.method == "invoke" and inputs is not None:  # its front may know other workers
            await self._check(token, call, inputs)
        exchange = self._dispatcher.submit(call)
        assert isinstance(exchange, ForwardedExchange)
        self.open[token] = exchange
        try:
            await self._ended(exchange)
            await exchange.check_late()
        finally:
            del self.open[token]
            self._dispatcher.leave(exchange)
        if exchange.error is not None:
            return Outcome(b"", as_said(exchange.error), exchange.handed_over)
        said = exchange.take()
        lines = words(1, said) if said else b""
        lines += answer(1, call.method, exchange.result, exchange.outcome)
        return Outcome(lines, None, handed_over=True)

    async def _check(self, token: str, call: Call, inputs: InputChecker) -> None:
        """Raises GatewayError."""
        with trio.CancelScope() as scope:
            self._checking[token] = scope
            try:
                await inputs.check(call.payload, call.total)
            finally:
                del self._checking[token]
        if scope.cancel_called:  # which a check that need not wait does not notice
            raise Cancelled

    async def _ended(self, exchange: ForwardedExchange) -> None:
        changed = trio.lowlevel.ParkingLot()

        def change() -> None:
            changed.unpark_all()

        exchange.watch(change, self._see)
        while not exchange.ended:
            await changed.park()

    async def _write(self, agent: str, token: str, outcome: Outcome) -> None:
        problem = ""
        for _ in range(RETRIES):
            try:
                await self._store.finish(agent, token, outcome)
            except (AwayError, FullError) as error:
                problem = str(error)
                await trio.sleep(RETRY_SECONDS)
            else:
                return
        message = f"the answer of a background run could not be written: {problem}"
        logs.event(log, logging.ERROR, message, agent=agent)
