"""Runs whose work is left to the hosts of a fleet, so that they outlive this process.

A request that prefers `respond-async` is kept with everything from which any front makes the same
codec: its path, what is used of its header fields, and its body; not what its caller proved itself
by, of which a digest is enough. A front that is asked for a run that it does not know looks for
that, and waits for the run as the front does that started it. From there on it is like any other.

Not so kept are requests whose agent binds them to a session, which only the host of that session
can serve, and those that go on from another run: these end with their front.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from gateway.call import Call, session_key
from gateway.errors import IdempotencyKeyReused, NotFound, Overloaded, RunGone
from gateway.fleet.background import ENDED, AwayError, Key, Record
from gateway.fleet.jetstream import FullError
from gateway.front.auth import own
from gateway.front.head import read_head
from gateway.front.run_codec import RunReader
from gateway.front.runs.ids import CREDENTIALS, credential_of, is_token
from gateway.front.runs.run import RunState
from gateway.front.runs.wishes import refuse_to_resume

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from gateway.agents.dispatcher import Dispatcher
    from gateway.exchange import Exchange
    from gateway.fleet.background import Store
    from gateway.front.dialect import Codec, RequestHead
    from gateway.front.limits.permits import Permit
    from gateway.front.runs.run import Run
    from gateway.front.runs.wishes import RawRequest, Wish
    from gateway.observe.observation import Observation

KEPT_OUT = {*CREDENTIALS, b"content-length", b"host", b"transfer-encoding", b"last-event-id"}
"""Header fields that a record does without."""


class Hosts(Protocol):
    """What is needed of `gateway.fleet.front.jobs.Jobs`."""

    available: bool
    store: Store

    async def submit(self, token: str, record: Record, call: Call) -> Exchange | None: ...

    async def attach(self, token: str, call: Call) -> Exchange: ...

    def cancel(self, exchange: Exchange) -> bool: ...


class Kept(Protocol):
    """What is needed of `service.Runs`."""

    def repeated(self, wish: Wish | None, seen: Observation | None) -> Run | None: ...

    def find(self, token: str, credential: bytes) -> Run: ...

    def has(self, token: str) -> bool: ...

    def new_token(self, credential: bytes) -> str: ...

    def place(self, *, has_key: bool) -> AbstractContextManager[None]: ...

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
    ) -> Run: ...


class Afar:
    """See the module's docstring. `match` gives the codec of a path."""

    def __init__(
        self,
        runs: Kept,
        hosts: Hosts,
        dispatcher: Dispatcher,
        match: Callable[[str], Codec | None],
    ) -> None:
        self._runs = runs
        self._hosts = hosts
        self._dispatcher = dispatcher
        self._match = match

    def takes(self, call: Call, codec: Codec) -> bool:
        """Whether a request that prefers `respond-async` can be left to the hosts."""
        if not self._hosts.available:
            return False
        agent = self._dispatcher.agents.get(call.agent)
        if agent is None or isinstance(codec, RunReader):
            return False
        session = agent.settings.session
        return session == "none" or session_key(call, agent.settings.session_by) is None

    async def begin(
        self,
        call: Call,
        codec: Codec,
        head: RequestHead,
        raw: RawRequest,
        wish: Wish,
        *,
        seen: Observation | None,
        permit: Permit | None,
    ) -> Run:
        """The run of a request, which may be the one that it repeats. Raises GatewayError."""
        run = self._runs.repeated(wish, seen)
        if run is not None:
            return run
        credential = credential_of(head.fields, call.owner)
        if wish.key is not None:
            used = await self._used(wish.key)
            if used is not None:
                return await self._repeated(used, wish, credential)
        refuse_to_resume(head.fields, wish)
        token = self._runs.new_token(credential)
        record = Record(
            agent=call.agent,
            path=raw.path,
            fields={name: head.fields[name] for name in head.fields.keys() - KEPT_OUT},
            query=head.query,
            scheme=head.scheme,
            body=raw.body,
            request_id=head.request_id,
            owner=call.owner,
            credential=credential,
            key=wish.key,
            fingerprint=wish.fingerprint,
        )
        with self._runs.place(has_key=wish.key is not None):
            if permit is not None:
                permit.start()
            exchange = await self._hosts.submit(token, record, call)
            if exchange is not None:
                return self._keep(token, record, exchange, codec, seen=seen, permit=permit)
        used = None if wish.key is None else await self._used(wish.key)
        if used is None:
            raise Overloaded("another request with this Idempotency-Key has failed", retry_after=1)
        return await self._repeated(used, wish, credential)

    async def _used(self, digest: bytes) -> Key | None:
        try:
            return await self._hosts.store.find_key(digest)
        except AwayError as error:
            raise Overloaded(f"JetStream does not answer: {error}", retry_after=1.0) from None

    async def _repeated(self, used: Key, wish: Wish, credential: bytes) -> Run:
        """The run that an Idempotency-Key is used for."""
        if used.fingerprint != wish.fingerprint:
            raise IdempotencyKeyReused(
                "this Idempotency-Key was used for another request; expected the same body, "
                "or a key of its own"
            )
        await self.look_for(used.token, credential)
        run = self._runs.find(used.token, credential)
        if run.state is RunState.QUEUED:
            # Its front may have gone before it could tell the hosts.
            with suppress(AwayError, FullError):
                await self._hosts.store.announce(run.agent, used.token)
        return run

    async def look_for(self, token: str, credential: bytes) -> None:
        """Wait for a run that another front has started, if there is one with this id for whoever
        has this credential. Raises GatewayError."""
        if self._runs.has(token) or not self._hosts.available or not is_token(token):
            return
        store = self._hosts.store
        try:
            record = await store.find(token)
            if record is None or record.credential != credential:
                return
            taken = await store.taken_by(record.agent, token)
            if taken == ENDED and not await store.has_ended(record.agent, token):
                raise RunGone("this run has ended, and is not kept any more")
        except AwayError as error:
            raise Overloaded(f"JetStream does not answer: {error}", retry_after=1.0) from None
        codec, call = self._again(record)
        exchange = await self._hosts.attach(token, call)
        if not self._runs.has(token):  # else somebody has looked meanwhile
            with self._runs.place(has_key=record.key is not None):
                run = self._keep(token, record, exchange, codec)
            while exchange.ended and not run.ended:  # its end is put into words
                await run.news.park()

    def _again(self, record: Record) -> tuple[Codec, Call]:
        codec = self._match(record.path)
        head = read_head(record.fields.items())
        head.request_id, head.owner = record.request_id, record.owner
        head.query, head.scheme = record.query, record.scheme
        call = None if codec is None else codec.decode(head, record.body)
        if codec is None or not isinstance(call, Call):
            raise NotFound("this run is of a protocol that is not served here")
        return codec, own(call, record.owner) if record.owner else call

    def _keep(
        self,
        token: str,
        record: Record,
        exchange: Exchange,
        codec: Codec,
        *,
        seen: Observation | None = None,
        permit: Permit | None = None,
    ) -> Run:
        fingerprints = {} if record.key is None else {record.key: record.fingerprint}
        return self._runs.keep(
            token,
            record.credential,
            exchange,
            codec,
            key=record.key,
            fingerprints=fingerprints,
            seen=seen,
            permit=permit,
        )

    def cancel(self, exchange: Exchange) -> bool:
        """End a run. Returns whether it is one of these."""
        return self._hosts.cancel(exchange)

    async def forget_key(self, key: bytes) -> None:
        """No worker has read the request under an Idempotency-Key: it may be sent again."""
        try:
            await self._hosts.store.forget_key(key)
        except (AwayError, FullError):
            return  # a repetition gets what the request got
