"""From a run to a response, for whoever started it, repeats its request or comes back for it."""

from __future__ import annotations

import sys
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

import trio

from gateway.errors import GatewayError, InvalidRequest, RunGone, ShuttingDown
from gateway.front.answers import KEEP_ALIVE_SECONDS, Delivery
from gateway.front.client import headers_of
from gateway.front.dialect import Response
from gateway.front.event_stream import HEADERS, KEEP_ALIVE
from gateway.front.runs.ring import error_event
from gateway.front.runs.views import as_view, describe, run_headers, told_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from gateway.front.client import ClientRequest
    from gateway.front.run_codec import RunReader
    from gateway.front.runs.run import Run
    from gateway.front.runs.service import Runs
    from gateway.front.runs.views import View

PORTION = 64 * 1024
"""Bytes of events that are sent at once, unless one event has more: enough to cost little, and few
enough for a slow client to take within its `write` clock."""

FAR_AHEAD = sys.maxsize
"""The position of one that waits for the end and reads no events: nothing waits for it."""


class RunDelivery(Delivery):
    """One response that follows a run. A client that leaves it changes nothing of the run.

    Its methods raise GatewayError before the response has begun, and ClientGoneError.
    """

    def __init__(self, request: ClientRequest, runs: Runs, run: Run) -> None:
        super().__init__(request, run.write_seconds)
        self._runs = runs
        self._run = run
        self._frame: Callable[[bytes], bytes] = _as_it_is

    async def repeat(self, position: int | None) -> None:
        """Respond as the run's own request is responded to; of a stream, from the event of that
        number on."""
        if self._run.stream:
            await self._follow(position or 0, self._events_as_asked)
        elif position is None:
            await self._send(0, self._answer)
        else:
            raise InvalidRequest("there is a Last-Event-ID, and this request is not for a stream")

    async def attach(self, position: int, *, as_event: bool) -> None:
        """Respond with the events of a stream, from the one of that number on.

        With `as_event`, the answer of a run that is no stream is one event, once it is there.
        """
        if not self._run.stream and not as_event:
            raise InvalidRequest("there is no stream here: none was asked for when it was started")
        await self._follow(position, self._events if self._run.stream else self._one_event)

    async def follow(self, opening: bytes, position: int, reader: RunReader) -> None:
        """Respond with the events `opening`, and then with those of the stream from the one of that
        number on, as `reader` frames them. There may not be as many events yet.

        Where the reader has it so, the stream goes on with the run that takes this one's place.
        """
        self._frame = reader.frame
        await self._send(position, partial(self._send_on, opening, reader))

    async def tell_at_end(self, show: Callable[[], Response]) -> None:
        """Wait for the end, and respond with what the run is then."""

        async def answering() -> bytes:
            while not self._run.ended:
                await self._run.news.park()
            view = as_view(show(), self._run)
            await self.request.send_head(view.status, view.head)
            return b"".join(view.parts)

        await self._send(FAR_AHEAD, answering)

    async def show(self, view: View, *, reads: bool) -> None:
        """Respond with what the run is now; with `reads`, that is to read it.

        A large one goes to as many at a time as may read the run, and what it shows is kept until
        they have it, or their `write` clock has run out.
        """
        with self._reading(0) if view.size > PORTION else nullcontext():
            await self.request.send_head(view.status, view.head)
            *parts, last = view.parts
            for part in parts:
                await self.send_part(part)
            await self.send_last(last)
            if reads and not self._run.stream:
                self._runs.note_read(self._run)

    async def _follow(self, position: int, answering: Callable[[], Awaitable[bytes]]) -> None:
        run = self._run
        first, end = (run.ring.first, run.ring.next) if run.stream else (0, int(run.ended))
        if position > end:
            raise InvalidRequest(
                f"Last-Event-ID is {position - 1}, and this run has had {end} events so far, "
                "the first of which is 0"
            )
        if position < first:
            raise run.gap(position)
        if run.ended and position == end > 0:
            # A client that would come back for more does not after a 204 (WHATWG HTML, 9.2.3).
            await self.request.respond(Response(204, run_headers(run), b""))
            return
        await self._send(position, answering)

    async def _send(self, position: int, answering: Callable[[], Awaitable[bytes]]) -> None:
        with self._reading(position):
            await self.send_last(await self.watched(answering, self._give_up))
            if not self.given_up:
                self._runs.note_read(self._run)

    @contextmanager
    def _reading(self, position: int) -> Iterator[None]:
        """While this is one of the run's readers. Raises Overloaded."""
        self._reader = self._run.attach(position)
        try:
            yield
        finally:
            self._run.detach(self._reader)
            self._runs.note_left(self._run)

    def _give_up(self, error: GatewayError) -> None:
        """The client does not read: the run goes on without it."""
        self._too_slow = error
        self._run.detach(self._reader)

    # What is sent. Each returns the last part.

    async def _answer(self) -> bytes:
        while not self._run.ended:
            await self._run.news.park()
        return await self._send_answer()

    async def _send_answer(self) -> bytes:
        answer = self._run.answer
        if answer is None:
            raise self._run.gap(0)
        await self.request.send_head(answer.status, headers_of(answer) + run_headers(self._run))
        return answer.body

    async def _events_as_asked(self) -> bytes:
        data = await self._next()
        if self._run.answer is not None:  # failed before its first event
            return await self._send_answer()
        return await self._send_events(data)

    async def _events(self) -> bytes:
        return await self._send_events(await self._next())

    async def _send_events(self, data: bytes) -> bytes:
        run = self._run
        await self.request.send_head(200, [*(run.head or HEADERS), *run_headers(run)])
        return await self._send_more(data)

    async def _send_more(self, data: bytes) -> bytes:
        """Send events, these first, until the end of the run; returns the last ones."""
        run = self._run
        while not (run.ended and self._reader.position >= run.ring.next):
            await self.send_part(data)
            if self.given_up:
                return self._last_words(self._too_slow)
            try:
                data = await self._next()
            except RunGone as error:
                self.request.log_error(error)
                return self._last_words(error)
        return data

    async def _send_on(self, opening: bytes, reader: RunReader) -> bytes:
        data = await self._send_events(opening)
        while not self.given_up and not self._run.gone and reader.stays(told_of(self._run)):
            if data:
                await self.send_part(data)
            try:
                await self._move_on()
            except (RunGone, ShuttingDown) as error:
                self.request.log_error(error)
                return self._last_words(error)
            data = await self._send_more(await self._next())
        return data

    async def _move_on(self) -> None:
        """Wait until there is more to read, here or in the run that takes this one's place. Raises
        RunGone and ShuttingDown."""
        run, until_stop = self._run, self._runs.until_stop
        while run.successor is None and self._reader.position >= run.ring.next:
            if not self._runs.keeps(run):
                raise RunGone("this run is not kept any more")
            with until_stop.scope(trio.current_time() + KEEP_ALIVE_SECONDS) as scope:
                await run.news.park()
            if scope.cancelled_caught:
                if until_stop.stopped:
                    raise ShuttingDown("the gateway is shutting down")
                await self.send_part(KEEP_ALIVE)
        if run.successor is not None:
            successor_reader = run.successor.attach(0)
            run.detach(self._reader)
            self._runs.note_left(run)
            self._run, self._reader = run.successor, successor_reader

    async def _next(self) -> bytes:
        """The next events, or a comment after a silence; nothing at the end. Raises RunGone."""
        run = self._run
        until = trio.current_time() + KEEP_ALIVE_SECONDS
        while not (data := run.take(self._reader, PORTION)) and not run.ended:
            with trio.CancelScope(deadline=until) as scope:
                await run.news.park()
            if scope.cancelled_caught:
                return KEEP_ALIVE
        return self._frame(data)

    async def _one_event(self) -> bytes:
        await self.request.send_head(200, [*HEADERS, *run_headers(self._run)])
        while not self._run.ended:
            with trio.move_on_after(KEEP_ALIVE_SECONDS) as scope:
                await self._run.news.park()
            if scope.cancelled_caught:
                await self.send_part(KEEP_ALIVE)
        if self._run.answer is None:
            return self._last_words(self._run.gap(0))
        parts = describe(self._run, self._runs.expires_in(self._run))
        for part in (b"id: 0\nevent: run\ndata: ", *parts):
            for at in range(0, len(part), PORTION):  # framing a chunk of HTTP copies it
                await self.send_part(part[at : at + PORTION])
        return b"\n\n"

    def _last_words(self, error: GatewayError) -> bytes:
        """The end of a stream that is cut here, and can be gone on with elsewhere or not at all."""
        response = self.request.encode_error(error, self.request.head.request_id)
        return error_event(response) + b"\n\n"


def _as_it_is(events: bytes) -> bytes:
    return events
