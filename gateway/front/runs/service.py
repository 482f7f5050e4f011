"""Runs while they go on: each is pumped from its exchange into what is kept of it.

Owns the tasks of runs, whatever connections come and go, and the time after which they are
forgotten. Knows no HTTP.
"""

from __future__ import annotations

import logging
from copy import copy
from typing import TYPE_CHECKING

import trio

from gateway import clock
from gateway.errors import (
    Cancelled,
    GatewayError,
    IdempotencyKeyReused,
    InternalError,
    InvalidRequest,
    NotFound,
    RunGone,
)
from gateway.front.answers import KEEP_ALIVE_SECONDS, failure
from gateway.front.dialect import RUN_PREFIX
from gateway.front.run_codec import KeptCodec
from gateway.front.runs.ids import Ids, Origin, credential_of
from gateway.front.runs.registry import Registry
from gateway.front.runs.ring import error_event, split_events
from gateway.front.runs.run import Run
from gateway.front.runs.wishes import refuse_to_resume
from gateway.observe import logs
from gateway.observe.metrics.readings import RunsReading

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from gateway.agents.dispatcher import Dispatcher
    from gateway.call import Call
    from gateway.config import CallerKeys, RunSettings, Settings
    from gateway.exchange import Exchange
    from gateway.front.dialect import Codec, Response
    from gateway.front.limits.permits import Permit
    from gateway.front.runs.afar import Afar
    from gateway.front.runs.wishes import Wish
    from gateway.observe.observation import Observation, Tell
    from gateway.stopping import UntilStop

    Ending = tuple[Response | None, GatewayError | None]
    """The one response, if there is one (of a stream, if it failed before its first event), and
    what went wrong."""

log = logging.getLogger("gateway.runs")

EVENTS_AT_ONCE = 1024
"""How many events are added to a run before other tasks have their turn: about 2 ms."""

LARGEST_SHARE = 4
"""One stream keeps at most a quarter of the memory for all."""


class Runs:
    """The runs of one gateway. `run` must be running while any is started."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        settings: RunSettings,
        tell: Tell | None = None,
    ) -> None:
        """`tell` is told of each run's end, if the request that started it is observed."""
        self.afar: Afar | None = None
        """In a fleet: the runs that outlive this process."""
        self._dispatcher = dispatcher
        self._tell = tell
        self._ids = Ids()
        self._most_bytes = settings.memory_bytes // LARGEST_SHARE
        self._registry: Registry[Run] = Registry(
            most_runs=settings.max, most_bytes=settings.memory_bytes, ttl=settings.ttl
        )
        self._nursery: trio.Nursery | None = None
        self._expires = trio.Event()

    def __repr__(self) -> str:
        return f"<Runs {self._registry!r}>"

    @property
    def reading(self) -> RunsReading:
        """What the metrics are told."""
        kept = self._registry.ended_count
        return RunsReading(going_on=len(self._registry) - kept, kept=kept, size=self._registry.size)

    @property
    def until_stop(self) -> UntilStop:
        """For readers who wait for no run."""
        return self._dispatcher.until_stop

    def change(self, settings: Settings, keys: CallerKeys | None = None) -> None:
        """Obey these settings from now on."""
        del keys
        bounds = settings.server.runs
        self._most_bytes = bounds.memory_bytes // LARGEST_SHARE
        self._registry.change(most_runs=bounds.max, most_bytes=bounds.memory_bytes, ttl=bounds.ttl)
        self._expires.set()  # there may be another time

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Pump runs and forget old ones, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            while True:
                self._registry.expire(clock.now())
                self._expires = trio.Event()
                with trio.CancelScope(deadline=clock.as_deadline(self._registry.next_expiry)):
                    await self._expires.wait()

    # What requests do

    def continues(self, name: str) -> bool:
        """Whether an agent goes on without a client, so that its every request is a run."""
        agent = self._dispatcher.agents.get(name)
        return agent is not None and agent.settings.on_disconnect == "continue"

    def begin(
        self,
        call: Call,
        codec: Codec,
        fields: Mapping[bytes, bytes],
        wish: Wish | None = None,
        *,
        after: Run | None = None,
        seen: Observation | None = None,
        permit: Permit | None = None,
    ) -> Run:
        """The run of a request: a new one, or the one that the request is a repetition of.

        `fields` are its header fields, `after` the run that it goes on from, `seen` its
        observation, and `permit` what it has taken of limits, which a new run keeps. Raises
        GatewayError.
        """
        run = self.repeated(wish, seen)
        if run is None:
            refuse_to_resume(fields, wish)
            credential = credential_of(fields, call.owner)
            return self._start(call, codec, credential, wish, after=after, seen=seen, permit=permit)
        return run

    def repeated(self, wish: Wish | None, seen: Observation | None) -> Run | None:
        """The run of which a request with that wish is a repetition, or the one that has gone on
        from it; None: of none. Raises GatewayError."""
        if wish is None or wish.key is None:
            return None
        run = self._registry.find_by_key(wish.key)
        if run is None:
            return None
        if run.fingerprints[wish.key] != wish.fingerprint:
            raise IdempotencyKeyReused(
                "this Idempotency-Key was used for another request; expected the same body, "
                "or a key of its own"
            )
        if run.gone:
            raise run.gap(0)
        if seen is not None:
            seen.run = RUN_PREFIX + run.token
        return run

    def _start(
        self,
        call: Call,
        codec: Codec,
        credential: bytes,
        wish: Wish | None,
        *,
        after: Run | None,
        seen: Observation | None,
        permit: Permit | None,
    ) -> Run:
        assert self._nursery is not None, "no service is running"
        if after is not None and self._registry.find(after.token) is not after:
            raise InvalidRequest("somebody has gone on from this run already")
        if permit is not None:
            permit.start()
        key = None if wish is None else wish.key
        self._registry.make_place(clock.now(), has_key=key is not None)
        exchange = self._dispatcher.submit(call)
        fingerprints: dict[bytes, bytes] = {}
        if after is not None:
            fingerprints = {
                each: after.fingerprints[each] for each in self._registry.keys_of(after)
            }
            self._registry.replace(after)
        if wish is not None and wish.key is not None:
            fingerprints[wish.key] = wish.fingerprint
        run = self.keep(
            self._ids.new(credential) if after is None else after.token,
            credential,
            exchange,
            codec,
            key=key,
            fingerprints=fingerprints,
            seen=seen,
            permit=permit,
        )
        if after is not None:
            after.give_way(run)
        return run

    def place(self, *, has_key: bool) -> AbstractContextManager[None]:
        """A place for one more run, which `keep` is to be called with before it is left. Raises
        Overloaded when it is entered."""
        return self._registry.place(clock.now(), has_key=has_key)

    def new_token(self, credential: bytes) -> str:
        """The id of a run that is about to begin, without its prefix."""
        return self._ids.new(credential)

    def has(self, token: str) -> bool:
        """Whether a run with this id is kept."""
        return self._registry.find(token) is not None

    def keep(
        self,
        token: str,
        credential: bytes,
        exchange: Exchange,
        codec: Codec,
        *,
        key: bytes | None,
        fingerprints: Mapping[bytes, bytes],
        seen: Observation | None = None,
        permit: Permit | None = None,
    ) -> Run:
        """Begin a run, for which there is a place."""
        assert self._nursery is not None, "no service is running"
        run = Run(
            token,
            credential,
            exchange,
            codec,
            most_bytes=self._most_bytes,
            key=key,
            fingerprints=fingerprints,
        )
        self._registry.add(run)
        if isinstance(codec, KeptCodec):
            codec.kept_as(run.token)
        of_run = None
        if seen is not None:
            seen.run = RUN_PREFIX + run.token
            of_run = seen.of_run(seen.run, exchange)
        self._nursery.start_soon(self._pump, run, exchange, codec, of_run, permit)
        if permit is not None:
            permit.keep()
        return run

    def knows(self, wish: Wish) -> bool:
        """Whether a run is kept under the wish's Idempotency-Key."""
        return wish.key is not None and self._registry.find_by_key(wish.key) is not None

    def find(self, token: str, credential: bytes) -> Run:
        """The run with that id, for whoever started it. Raises NotFound and RunGone."""
        run = self._registry.find(token)
        if run is not None and run.credential == credential:
            if run.gone:
                raise run.gap(0)
            return run
        match self._ids.origin(token, credential):
            case Origin.OURS:
                raise RunGone("this run has ended, and is not kept any more")
            case Origin.EARLIER:
                raise RunGone(
                    "this run was started before the gateway was, and did not outlive that"
                )
        raise NotFound("there is no run with this id, or it was started with another credential")

    def cancel(self, run: Run) -> None:
        """End a run. One that has ended stays as it is."""
        if run.exchange is not None:
            if self.afar is None or not self.afar.cancel(run.exchange):
                self._dispatcher.leave(run.exchange)
            run.hurry()

    def of(self, credential: bytes, dialect: str, agent: str | None) -> list[Run]:
        """The runs of a credential in one dialect and, unless that is None, of one agent, the one
        that began last first. Those are left out that keep nothing any more."""
        found = [
            run
            for run in self._registry
            if run.credential == credential
            and run.dialect == dialect
            and agent in {None, run.agent}
            and not run.gone
        ]
        return found[::-1]

    def keeps(self, run: Run) -> bool:
        """Whether a run is found by its id."""
        return self._registry.find(run.token) is run

    def retell(self, run: Run, body: bytes, event: bytes) -> None:
        """A run that has ended tells another thing from now on, and its readers that event."""
        run.retell(body, event)
        self._registry.note_cost(run)

    def expires_in(self, run: Run) -> float:
        """Seconds until a run is forgotten; infinity while it goes on."""
        return self._registry.expires_at(run) - clock.now()

    def note_read(self, run: Run) -> None:
        """Somebody has got the end of a run."""
        if run.ended:
            run.was_read = True
            self._registry.note_read(run)

    def note_left(self, run: Run) -> None:
        """A reader has left."""
        if not run.attached:
            self._registry.note_left(run)

    # The pump

    async def _pump(
        self,
        run: Run,
        exchange: Exchange,
        codec: Codec,
        seen: Observation | None,
        permit: Permit | None,
    ) -> None:
        try:
            answering = self._stream if run.stream else self._collect
            answer, error = await answering(run, exchange, codec)
        except Exception:  # the boundary: a defect of ours is logged, and ends this run alone
            log.exception("internal error", extra={"fields": {"request": run.request_id}})
            error = InternalError("a defect of the gateway; see its log")
            failed = failure(codec, exchange, error, run.request_id)
            answer = None if run.ring.next else failed
            run.ring.add(error_event(failed))
        finally:
            self._dispatcher.leave(exchange)
            exchange.forget_answer()
            if permit is not None:
                permit.release()
        run.end(clock.now(), answer, error)
        forgets = error is not None and not exchange.handed_over
        if forgets:
            # Nothing has happened. Whoever sends the request again may have it run.
            self._registry.forget_key(run)
        self._registry.ended(run)
        self._expires.set()
        self._log_end(run)
        if seen is not None and self._tell is not None:
            seen.error = error
            seen.end(run.ended_at)
            self._tell(seen)
        if forgets and self.afar is not None and run.key is not None:
            await self.afar.forget_key(run.key)

    async def _collect(self, run: Run, exchange: Exchange, codec: Codec) -> Ending:
        words = await exchange.collect()
        error = exchange.error
        if error is None:
            try:
                return codec.encode(exchange, words), None
            except GatewayError as refused:
                error = copy(refused)
        return failure(codec, exchange, error, run.request_id), error

    async def _stream(self, run: Run, exchange: Exchange, codec: Codec) -> Ending:
        encoder = codec.stream(exchange)
        run.head = encoder.headers
        while not exchange.drained:
            words = await exchange.receive(patience=KEEP_ALIVE_SECONDS)
            if words:
                await self._add(run, encoder.chunks(words))
            elif not exchange.ended:
                # Where it is more than a comment: events that open the stream, or a dialect's own.
                await self._add(run, encoder.keep_alive())
        if exchange.error is None:
            await self._add(run, encoder.end(exchange.result))
            return None, encoder.failure
        begun = run.ring.next > 0
        await self._add(run, encoder.error(exchange.error))
        failed = failure(codec, exchange, exchange.error, run.request_id)
        return None if begun else failed, exchange.error

    async def _add(self, run: Run, data: bytes) -> None:
        """Add what an encoder gave. Waits for the run's readers where that is needed."""
        for count, event in enumerate(split_events(data)):
            while run.must_wait(len(event)):
                self._publish(run)
                await run.room.park()
            if count % EVENTS_AT_ONCE == EVENTS_AT_ONCE - 1:
                self._publish(run)
                await trio.lowlevel.checkpoint()
            run.ring.add(event)
        self._publish(run)

    def _publish(self, run: Run) -> None:
        run.news.unpark_all()
        self._registry.note_cost(run)

    def _log_end(self, run: Run) -> None:
        if run.error is None or isinstance(run.error, Cancelled):
            return
        ended = "run ended" if run.attached else "request without a client ended"
        logs.event(
            log,
            logging.INFO,
            f"{ended}: {run.error.status} {run.error.type}: {run.error.message}",
            agent=run.agent,
            request=run.request_id,
            key=run.owner or None,
            clock=run.error.details.get("clock"),
            elapsed=run.error.details.get("elapsed"),
        )
