"""Requests that outlive their front: what a front leaves in JetStream, and what a host makes of it.

Theory of operation
-------------------

    front ── job, record ──> RUNS                              RUNS ── record ──> any front
          ── token ────────> QUEUE ── one per free slot ──> host          │
                                                             └─ taken ──> TAKEN
          <── outcome ─────────────────────────────────────────────────── DONE

A *job* is the request for a host (`Submit`). A *record* is the request as it came to a front: what
any other one needs to make the same codec, and the credential that it belongs to. An *outcome* is
what the host made of it: lines of the worker protocol, or an error.

**At most once.** A host that gets a token writes that it has *taken* the job, which succeeds once
for each; only then is the job acknowledged and given to a worker. So what is delivered twice, or
taken by a host that is gone a moment later, is never run again: whoever waits for it sees that the
host is not there any more, and writes the outcome. An outcome, too, is written once: the first one
counts, be it the host's, that of a cancel, or of a front that gave the host up.

**Room.** What was left of a request that has ended is taken away by the front that waits for it;
its record is kept beside the outcome, for as long. Which requests are taken is in a stream of its
own: where there is no room for another request, hosts take those that wait all the same.

**Bounds.** The streams hold so many bytes and messages, and for so long (`TTL`, and that of
[server.runs] for outcomes). Beyond them, a front refuses a request with 503.

Hosts need for each of their agents, beside what `README.md` says:

    publish    $JS.API.CONSUMER.MSG.NEXT.<P>_QUEUE.AGENT   $JS.ACK.<P>_QUEUE.AGENT.>
               $JS.API.DIRECT.GET.<P>_RUNS.gw.job.AGENT.>
               $JS.API.DIRECT.GET.<P>_DONE.gw.done.AGENT.>
               gw.taken.AGENT.*   gw.done.AGENT.>
    subscribe  gw.run.AGENT  gw.stop.AGENT
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec
from msgspec import Struct

from gateway.fleet.jetstream import (
    NonsenseError,
    TakenError,
    get,
    last,
    make_stream,
    publish,
    publish_once,
    put,
)
from gateway.fleet.messages import NO_MESSAGE, Error, Submit
from gateway.observe import logs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nats.js import JetStreamContext

    T = TypeVar("T")

log = logging.getLogger("gateway.fleet")

TTL = 24 * 3600.0
"""Seconds for which a request may wait and run."""

MOST_BYTES = 256 * 1024 * 1024
"""Bytes of all requests that are kept, and as many of all outcomes."""

MOST_WAITING = 10_000
"""Requests that no host has taken."""

ENDED = "ended"
"""Stands for the host that took a request once there was an outcome, which may be gone by now."""

FETCH_SECONDS = 0.5
"""For which a host waits for a token."""


class Record(Struct, array_like=True, frozen=True):
    """A request as it came to a front, without what its caller proved itself by."""

    agent: str
    path: str
    fields: dict[bytes, bytes]
    query: bytes
    scheme: str
    body: bytes
    request_id: str
    owner: str
    credential: bytes
    """A digest."""
    key: bytes | None
    """A digest of the Idempotency-Key, and of what was asked under it."""
    fingerprint: bytes


class Outcome(Struct, array_like=True, frozen=True):
    """How a request has ended. It has the id 1 in its lines."""

    lines: bytes
    error: Error | None
    handed_over: bool
    """Whether a worker may have read it."""


NONSENSE = Outcome(b"", None, handed_over=True)
"""Stands for an outcome that cannot be read: it ends nothing, which is a breach of the protocol."""


class Key(Struct, array_like=True, frozen=True):
    """What an Idempotency-Key was used for."""

    token: str
    fingerprint: bytes


class AwayError(Exception):
    """There is no connection, no JetStream, or no answer."""


class Runner(Protocol):
    """What a `Store` needs of `nats_bus.NatsBus`."""

    async def run(self, function: Callable[[JetStreamContext], Awaitable[T]]) -> T: ...


class Store:
    """Background runs in JetStream. Every method raises AwayError, and what its docstring names.
    Tokens are hexadecimal, and names of agents were checked."""

    def __init__(self, bus: Runner, prefix: str, *, ttl: float) -> None:
        self._bus = bus
        self._prefix = prefix
        self._ttl = ttl
        name = prefix.replace(".", "=")  # which no prefix has
        self.queue, self._runs, self._done = f"{name}_QUEUE", f"{name}_RUNS", f"{name}_DONE"
        self._taken = f"{name}_TAKEN"

    def __repr__(self) -> str:
        return f"<Store {self._runs}>"

    async def _run(self, function: Callable[[JetStreamContext], Awaitable[T]]) -> T:
        from nats.errors import Error as NatsError  # noqa: PLC0415 - of an extra

        from gateway.fleet.nats_bus import NotConnectedError  # noqa: PLC0415 - the same

        try:
            return await self._bus.run(function)
        except (NatsError, NotConnectedError, OSError, TimeoutError) as error:
            raise AwayError(str(error) or type(error).__name__) from error

    # Subjects

    def hint(self, agent: str) -> str:
        """A front publishes a token here, which JetStream keeps."""
        return f"{self._prefix}.run.{agent}"

    def stop(self, agent: str) -> str:
        """A front publishes the token of a request here that nobody wants any more."""
        return f"{self._prefix}.stop.{agent}"

    @property
    def news(self) -> tuple[str, str]:
        """A host says here which request it has taken, and which has ended."""
        return f"{self._prefix}.taken.*.*", f"{self._prefix}.done.*.*.0"

    def _at(self, kind: str, agent: str, token: str) -> str:
        return f"{self._prefix}.{kind}.{agent}.{token}"

    # The front's part

    async def prepare(self) -> None:
        """Make the streams, if there are none. Raises FullError."""
        prefix = self._prefix

        async def make(js: JetStreamContext) -> None:
            from nats.js.api import DiscardPolicy, RetentionPolicy, StreamConfig  # noqa: PLC0415

            kinds = ("job", "record", "key")
            for config in (
                StreamConfig(
                    name=self.queue,
                    subjects=[f"{prefix}.run.*"],
                    retention=RetentionPolicy.WORK_QUEUE,
                    max_msgs=MOST_WAITING,
                    max_age=TTL,
                    discard=DiscardPolicy.NEW,
                ),
                StreamConfig(
                    name=self._runs,
                    subjects=[f"{prefix}.{kind}.>" for kind in kinds],
                    max_age=TTL,
                    max_bytes=MOST_BYTES,
                    discard=DiscardPolicy.NEW,
                    allow_direct=True,
                ),
                StreamConfig(
                    name=self._done,
                    subjects=[f"{prefix}.done.>", f"{prefix}.kept.>"],
                    max_age=self._ttl,
                    max_bytes=MOST_BYTES,
                    allow_direct=True,
                ),
                StreamConfig(
                    name=self._taken,
                    subjects=[f"{prefix}.taken.>"],
                    max_age=TTL,
                    max_bytes=MOST_BYTES,
                    max_msgs_per_subject=1,
                    discard=DiscardPolicy.NEW,
                    allow_direct=True,
                ),
            ):
                await make_stream(js, config)

        await self._run(make)

    async def find_key(self, digest: bytes) -> Key | None:
        """What an Idempotency-Key is used for."""
        subject = f"{self._prefix}.key.{digest.hex()}"
        found = await self._run(lambda js: last(js, self._runs, subject))
        return None if found is None else msgspec.msgpack.decode(found, type=Key)

    async def keep_key(self, digest: bytes, key: Key) -> bool:
        """Use an Idempotency-Key; whether it was not used. Raises FullError."""
        subject = f"{self._prefix}.key.{digest.hex()}"
        try:
            await self._write_once(self._runs, subject, msgspec.msgpack.encode(key))
        except TakenError:
            return False
        return True

    async def forget_key(self, digest: bytes) -> None:
        """The request under an Idempotency-Key was read by no worker."""
        subject = f"{self._prefix}.key.{digest.hex()}"
        await self._run(lambda js: js.purge_stream(self._runs, subject=subject))

    async def keep(self, token: str, record: Record, job: Submit) -> None:
        """Keep a request that hosts are to be told of (`announce`). Raises FullError."""
        agent, encode = record.agent, msgspec.msgpack.encode

        async def write(js: JetStreamContext) -> None:
            await publish(js, self._runs, f"{self._prefix}.key.of.{token}", agent.encode())
            for kind, what in (("job", encode(job)), ("record", encode(record))):
                await put(js, self._runs, self._at(kind, agent, token), what)

        await self._run(write)

    async def announce(self, agent: str, token: str) -> None:
        """Let a host take a request. May be done again: it is taken once. Raises FullError."""

        async def write(js: JetStreamContext) -> None:
            from nats.js.api import AckPolicy, ConsumerConfig  # noqa: PLC0415 - of an extra

            await js.add_consumer(
                self.queue,
                ConsumerConfig(
                    durable_name=agent,
                    filter_subject=self.hint(agent),
                    ack_policy=AckPolicy.EXPLICIT,
                ),
            )
            await publish(js, self.queue, self.hint(agent), token.encode())

        await self._run(write)

    async def has(self, token: str) -> bool:
        """Whether a request is kept."""
        of = f"{self._prefix}.key.of.{token}"
        return await self._run(lambda js: last(js, self._runs, of)) is not None

    async def find(self, token: str) -> Record | None:
        """The record of a request; None: it is not kept."""
        return await self._run(lambda js: self._find(js, token))

    async def _find(self, js: JetStreamContext, token: str) -> Record | None:
        # Only the token is known: the record's own subject says of which agent it is.
        agent = await last(js, self._runs, f"{self._prefix}.key.of.{token}")
        if agent is None:
            return None
        try:
            data = await get(js, self._runs, self._at("record", agent.decode(), token))
            if data is None:  # it has ended
                data = await get(js, self._done, self._at("kept", agent.decode(), token))
            return None if data is None else msgspec.msgpack.decode(data, type=Record)
        except (*NO_MESSAGE, NonsenseError) as error:
            logs.event(log, logging.ERROR, f"a background run cannot be read: {error}")
            return None

    async def tidy(self, agent: str, token: str) -> None:
        """Take away what was left of a request that has ended."""
        record, kept = self._at("record", agent, token), self._at("kept", agent, token)

        async def move(js: JetStreamContext) -> None:
            with suppress(NonsenseError):
                data = await get(js, self._runs, record)
                if data is not None:
                    await put(js, self._done, kept, data)
            for subject in (record, self._at("job", agent, token)):
                await js.purge_stream(self._runs, subject=f"{subject}.*")

        await self._run(move)

    async def outcome(self, agent: str, token: str) -> Outcome | None:
        """How a request has ended; None: it has not."""
        subject = self._at("done", agent, token)
        try:
            data = await self._run(lambda js: get(js, self._done, subject))
            return None if data is None else msgspec.msgpack.decode(data, type=Outcome)
        except (*NO_MESSAGE, NonsenseError) as error:
            message = f"a host has not written how a background run has ended, but: {error}"
            logs.event(log, logging.ERROR, message, agent=agent)
            return NONSENSE

    async def has_ended(self, agent: str, token: str) -> bool:
        """Whether there is an outcome."""
        subject = self._at("done", agent, token)
        return await self._run(lambda js: last(js, self._done, f"{subject}.0")) is not None

    async def taken_by(self, agent: str, token: str) -> str | None:
        """The host that has taken a request, or `ENDED`; None: it waits."""
        subject = self._at("taken", agent, token)
        found = await self._run(lambda js: last(js, self._taken, subject))
        return None if found is None else found.decode("ascii", "replace")

    # The host's part

    async def take(self, agent: str, host: str) -> str | None:
        """The token of a request that no other host has, or will have. None: there is none at the
        moment."""

        async def fetch(js: JetStreamContext) -> str | None:
            from nats.errors import TimeoutError as NoneInTimeError  # noqa: PLC0415

            subscription = await js.pull_subscribe_bind(agent, self.queue)
            try:
                while True:
                    try:
                        [message] = await subscription.fetch(1, timeout=FETCH_SECONDS)
                    except NoneInTimeError:
                        return None
                    token = message.data.decode("ascii", "replace")
                    try:
                        taken = self._at("taken", agent, token)
                        await publish_once(js, self._taken, taken, host.encode())
                    except TakenError:  # or it has ended while it waited
                        await message.ack()
                        continue
                    await message.ack()
                    return token
            finally:
                await subscription.unsubscribe()

        return await self._run(fetch)

    async def job(self, agent: str, token: str) -> Submit | None:
        """A request that was taken; None: it has ended, and is not kept. Raises NonsenseError."""
        data = await self._run(lambda js: get(js, self._runs, self._at("job", agent, token)))
        try:
            return None if data is None else msgspec.msgpack.decode(data, type=Submit)
        except NO_MESSAGE as error:
            raise NonsenseError(str(error)) from None

    async def finish(self, agent: str, token: str, outcome: Outcome) -> None:
        """Write an outcome, if there is none."""
        data, subject = msgspec.msgpack.encode(outcome), self._at("done", agent, token)

        async def write(js: JetStreamContext) -> None:
            with suppress(TakenError):
                await put(js, self._done, subject, data, once=True)
            await publish(js, self._taken, self._at("taken", agent, token), ENDED.encode())

        await self._run(write)

    async def _write_once(self, stream: str, subject: str, data: bytes) -> None:
        await self._run(lambda js: publish_once(js, stream, subject, data))
