"""A front's end of the pipe to one host: requests go up, and what becomes of them comes down.

Words and answers come as lines of the worker protocol, and are read by the same connection that
reads workers: a host can do no more to a front than a worker can to a gateway.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Literal

from gateway import clock
from gateway.errors import ClientTooSlow
from gateway.fleet.front.errors import (
    broke_the_protocol,
    lost,
    made_anew,
    not_accepted,
    not_received,
)
from gateway.fleet.front.request import TELL_TAKEN
from gateway.fleet.messages import (
    Ask,
    Cancel,
    Described,
    Failed,
    Given,
    Hurry,
    Leaving,
    Left,
    Lines,
    Refused,
    Took,
)
from gateway.fleet.pipe import Why
from gateway.fleet.subjects import Peer
from gateway.observe import logs
from gateway.workers.failures import agents_error
from protocol import Burst, Chunk, End, Event, Failure, Malformed, Result
from protocol.framing import MAX_LINE_BYTES
from protocol.gateway_side import GatewayConnection

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.errors import GatewayError
    from gateway.fleet.front.hosts import At, Host
    from gateway.fleet.front.request import RemoteRequest
    from gateway.fleet.pipe import Ended
    from gateway.fleet.wire import Wire, Wires
    from protocol import FromWorker

    Answer = Callable[[bytes | None], None]
    Elsewhere = Callable[[RemoteRequest, GatewayError], None]

log = logging.getLogger("gateway.fleet")

MOST_AHEAD = MAX_LINE_BYTES + 1024 * 1024
"""Bytes of words of one stream that wait here for its client, `CHUNK_COST` included: a host sends a
window full, and beyond that one word, which may be a whole line."""

MOST_UNTAKEN = 64 * 1024 * 1024
"""Bytes that were sent to a host and that it has not acknowledged, beyond which it gets no more
requests: some of the largest, one after the other."""

MOST_LEFT = 20_000
"""Requests that nobody waits for and whose end the host has not told: 3 KB each. It has the
`cancel` clock for each."""

MOST_ASKED = 4096
"""Questions that wait for their answers at one host."""

_SESSIONS: dict[str, Literal["new", "kept", "lost"]] = {
    "new": "new",
    "kept": "kept",
    "lost": "lost",
}


class Link:
    """See the module's docstring; the `Owner` of its wire.

    `elsewhere` is called with a request that was certainly not run here, and with the error that it
    ends with if no other host takes it. `described` takes what the host says of an agent unasked.
    `unheard` is called when NATS says that the host is not there, `broken` when it broke the
    protocol.
    """

    def __init__(
        self,
        host: Host,
        wires: Wires,
        *,
        elsewhere: Elsewhere,
        described: Callable[[Peer, str, int, bytes | None], None],
        unheard: Callable[[Link], None],
        broken: Callable[[Link], None],
    ) -> None:
        self.host = host
        self.beat_at = clock.now()
        """Running time of the last beat."""
        self._elsewhere = elsewhere
        self._described = described
        self._unheard = unheard
        self._broken = broken
        self._requests: dict[int, RemoteRequest] = {}
        """Those that the host has not ended, by their ids; also those that nobody waits for."""
        self._unaccepted: deque[RemoteRequest] = deque()
        self._left: dict[int, None] = {}
        """The ids of those that nobody waits for."""
        self._hurried: dict[RemoteRequest, None] = {}
        """Streams whose workers others need: until they are left, they wait for no client."""
        self._owed: dict[RemoteRequest, None] = {}
        """Those whose clients have taken what the host was not told of."""
        self._asked: dict[int, Answer] = {}
        self._questions = 0
        self._let_left = False
        """Whether `Left` was said in this epoch."""
        self._how = ""
        """How the host was lost, where that is known here."""
        self._connection = GatewayConnection.of_host()
        self.wire: Wire = wires.open(host.peer, self)

    def __repr__(self) -> str:
        return f"<Link to {self.host.peer}: {len(self._requests)} requests>"

    @property
    def heard_at(self) -> float:
        """Running time of the last sign of life."""
        return max(self.beat_at, self.wire.heard_at)

    @property
    def open_requests(self) -> int:
        return len(self._requests)

    @property
    def full(self) -> bool:
        """Whether the host does not take what it was sent already."""
        return self.wire.unacknowledged > MOST_UNTAKEN

    # To the host

    def submit(self, request: RemoteRequest, at: At) -> None:
        """Give a request to the agent at this host."""
        call = request.exchange.call
        request.link, request.at, request.taken = self, at, 0
        request.tried.append(self.host.peer)
        request.exchange.output_begun = False
        request.id = self._connection.open_request(call.method, events=call.events)
        self._requests[request.id] = request
        at.mine += 1
        at.served += 1
        request.sent_at = clock.now()
        request.position = self.wire.send(request.message())
        self._unaccepted.append(request)

    def cancel(self, request: RemoteRequest) -> None:
        """Nobody waits for a request any more."""
        self._hurried.pop(request, None)
        if self._requests.get(request.id) is request:
            request.exchange.forget_payload()
            self.wire.send(Cancel(request.id))
            self._left[request.id] = None
            if len(self._left) > MOST_LEFT:
                self._violated(f"it has not ended {MOST_LEFT} requests that were cancelled")

    def client_took(self, request: RemoteRequest) -> None:
        """The client of a request has taken words."""
        if self._requests.get(request.id) is not request:
            return
        if request.taken < TELL_TAKEN:
            self._owed[request] = None
            return
        self._owed.pop(request, None)
        self.wire.send(Took(request.id, request.taken))
        request.taken = 0

    def ask(self, what: str, agent: str, answer: Answer) -> None:
        """Ask the host; `answer` is called once, with None if it gives none."""
        if len(self._asked) >= MOST_ASKED:
            answer(None)
            return
        self._questions += 1
        self._asked[self._questions] = answer
        self.wire.send(Ask(self._questions, what, agent))

    def tick(self) -> None:
        """Every beat: look at what has waited, and say what is owed."""
        for request in self._hurried:
            request.exchange.spill()  # its readers may have caught up, and be waited for again
        owed, self._owed = self._owed, {}
        if owed:
            self.wire.send(*(Took(each.id, each.taken) for each in owed))
            for each in owed:
                each.taken = 0
        waiting, acknowledged = self._unaccepted, self.wire.acknowledged
        while waiting and (waiting[0].position <= acknowledged or self._is_over(waiting[0])):
            waiting.popleft()

    def judge(self, at: float, accept: float) -> None:
        """End requests that the host had not acknowledged at a running time for longer than
        `accept` seconds. Called after `tick`."""
        waiting = self._unaccepted
        while waiting and at - waiting[0].sent_at > accept:
            request = waiting.popleft()
            if not self._is_over(request):
                # It may arrive still: nobody else is given it.
                self._may_have_run(request)
                request.exchange.fail(not_accepted(self.host.peer, at - request.sent_at, accept))
                self.cancel(request)

    def _is_over(self, request: RemoteRequest) -> bool:
        return request.link is not self or self._requests.get(request.id) is not request

    # From the host

    def receive(self, messages: list[Any]) -> None:
        """As `wire.Owner.receive`."""
        now, connection = clock.now(), self._connection
        for message in messages:
            if self._connection is not connection:
                return  # the epoch was ended over what came before
            if isinstance(message, Lines):
                self._read(message.data, now)
            elif isinstance(message, Given):
                self._given(message)
            elif isinstance(message, Failed | Refused):
                self._ended_badly(message)
            elif isinstance(message, Hurry):
                self._hurry(message.id)
            elif isinstance(message, Leaving):
                self._let_leave()
            elif isinstance(message, Described):
                self._described(self.host.peer, message.agent, message.revision, message.body)
            else:
                answer = self._asked.pop(message.id, None)
                if answer is not None:
                    answer(message.body)

    def _let_leave(self) -> None:
        self.host.leaves()
        if not self._let_left:  # once, however often a host says it
            self._let_left = True
            self.wire.send(Left())

    def _read(self, data: bytes, now: float) -> None:
        for event in self._connection.receive_batch(data):
            if isinstance(event, Burst):
                self._words(event.id, event.texts, now)
            elif isinstance(event, Chunk):
                self._words(event.id, [event.text], now)
            elif isinstance(event, Event):
                self._words(event.id, [event.event], now)
            else:
                self._read_end(event)
        if self._connection.broken:
            self._violated("what it said names no request")

    def _words(self, request_id: int, words: list[bytes], now: float) -> None:
        request = self._requests.get(request_id)
        if request is None:
            return
        exchange = request.exchange
        exchange.add_words(words, now)
        if exchange.call.stream and exchange.buffered_bytes > MOST_AHEAD and not exchange.ended:
            exchange.fail(broke_the_protocol(self.host.peer))
            self.cancel(request)
            self._violated("it sent more than a client was ready to take")

    def _read_end(self, event: FromWorker) -> None:
        if isinstance(event, Malformed):
            if event.id is not None and (request := self._over(event.id)) is not None:
                request.exchange.fail(broke_the_protocol(self.host.peer))
            if not self._connection.broken:
                logs.event(
                    log,
                    logging.ERROR,
                    f"a host's line is invalid: {event.error.message}",
                    host=str(self.host.peer),
                )
        elif isinstance(event, Result | End | Failure):
            request = self._over(event.id)
            if request is None:
                return
            if isinstance(event, Result):
                request.exchange.end(event.value, event.outcome)
            elif isinstance(event, End):
                request.exchange.end(outcome=event.outcome)
            else:
                request.exchange.fail(agents_error(event, lambda _: None))

    def _given(self, message: Given) -> None:
        request = self._requests.get(message.id)
        if request is not None:
            if message.session is not None:
                request.exchange.session = _SESSIONS.get(message.session)
            request.given(message.pid, message.queued)

    def _hurry(self, request_id: int) -> None:
        request = self._requests.get(request_id)
        if request is None or request.exchange.ended:
            return
        if request.exchange.spill():
            self._hurried[request] = None
        else:
            request.exchange.fail(ClientTooSlow())
            self.cancel(request)

    def _ended_badly(self, message: Failed | Refused) -> None:
        request = self._over(message.id)
        if request is None:
            return
        self._connection.close_request(message.id)
        error = made_anew(message.error, self.host.peer)
        if isinstance(message, Refused):
            if message.owner is not None:
                request.owner = Peer.parse(message.owner)
            if not request.exchange.handed_over:
                self._not_run(request, error, elsewhere=message.elsewhere)
                return
        elif message.handed_over:
            self._may_have_run(request)
        request.exchange.fail(error)

    def _not_run(
        self, request: RemoteRequest, error: GatewayError, *, elsewhere: bool = True
    ) -> None:
        """End a request with which nothing has happened here, unless another host takes it."""
        if not request.exchange.ended:
            request.exchange.output_begun = None
        if elsewhere:
            self._elsewhere(request, error)
        else:
            request.exchange.fail(error)

    def _over(self, request_id: int) -> RemoteRequest | None:
        """The request, which the host has ended."""
        request = self._requests.pop(request_id, None)
        self._left.pop(request_id, None)
        if request is not None:
            self._owed.pop(request, None)
            if request.at is not None:
                request.at.mine -= 1
        return request

    def _may_have_run(self, request: RemoteRequest) -> None:
        if not request.exchange.handed_over:
            request.given(None)

    def _violated(self, how: str) -> None:
        logs.event(
            log, logging.ERROR, f"a host broke the protocol: {how}", host=str(self.host.peer)
        )
        self._how = "broke the protocol"
        self._broken(self)
        self.wire.end(how)

    # The end of an epoch

    def give_up(self, how: str) -> None:
        """The host is gone: end what it has, and forget it. `how` is the predicate of a sentence:
        what has become of it."""
        self._how = how
        self.wire.close()

    def ended(self, ended: Ended) -> None:
        """As `wire.Owner.ended`: what was sent is answered no more."""
        requests, self._requests = self._requests, {}
        asked, self._asked = self._asked, {}
        self._unaccepted.clear()
        self._left.clear()
        self._owed.clear()
        self._let_left = False
        self._connection = GatewayConnection.of_host()
        how, self._how = self._how or "has begun anew", ""
        if ended.why is Why.VIOLATION:
            how = "broke the protocol"
            logs.event(
                log,
                logging.ERROR,
                f"a host broke the protocol: {ended.detail}",
                host=str(self.host.peer),
            )
            self._broken(self)
        for request in requests.values():
            if request.at is not None:
                request.at.mine -= 1
        peer = self.host.peer
        for request in requests.values():
            if request.position > ended.reached and not request.exchange.handed_over:
                self._not_run(request, not_received(peer, how))
                continue
            if not request.exchange.ended:
                self._may_have_run(request)
            request.exchange.fail(lost(peer, how))
        for answer in asked.values():
            answer(None)

    def unheard(self) -> None:
        """As `wire.Owner.unheard`."""
        self._unheard(self)
