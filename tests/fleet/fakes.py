"""NATS in memory: one server, and any number of `Bus`es that are connected to it.

Theory of operation
-------------------

Each bus has two queues at the server, as a connection has two directions: what it has said
(publish, subscribe, unsubscribe) and what it is to be told (messages, "nobody", the end of the
connection). Each is in order; nothing orders the queues among one another. One step takes the first
item of one queue. When a step has been taken, it is as in a real server: subscriptions count from
the moment at which the server reads them, and who listens is decided when the server reads the
message, not when it was published.

By default, all steps are taken soon: in trio's next turn, by `run_sync_soon`, so that virtual time
does not pass meanwhile. A bus that is held takes none by itself: that is a process that was
stopped, a network that is slow, or a test that chooses the order of things with `moves` and
`move`, for which trio need not run.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import trio

from gateway import clock
from gateway.fleet.bus import MAX_MESSAGE_BYTES, Delivery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Receive = Callable[[Delivery], None]


class Publish(NamedTuple):
    subject: str
    data: bytes
    reply: str


class Subscribe(NamedTuple):
    id: int
    pattern: tuple[str, ...]
    receive: Receive


class Unsubscribe(NamedTuple):
    id: int


class Deliver(NamedTuple):
    receive: Receive
    delivery: Delivery


class Lost(NamedTuple):
    """The connection has ended."""


Move: TypeAlias = tuple["FakeBus", Literal["said", "told"]]
"""The next item of one queue is taken: the server reads it, or the bus receives it."""


def matches(pattern: Iterable[str], subject: Iterable[str]) -> bool:
    """Whether a pattern (in tokens) has a subject: `*` is one token, `>` is one or more."""
    tokens = deque(subject)
    for token in pattern:
        if not tokens:
            return False
        if token == ">":
            return True
        if token not in {"*", tokens.popleft()}:
            return False
    return not tokens


@dataclass(eq=False)
class _Connection:
    """One, as the server has it."""

    subscriptions: dict[int, Subscribe] = field(default_factory=dict)
    said: deque[Publish | Subscribe | Unsubscribe] = field(default_factory=deque)

    def listens(self, subject: list[str]) -> list[Subscribe]:
        return [each for each in self.subscriptions.values() if matches(each.pattern, subject)]


class FakeBus:
    """A `gateway.fleet.bus.Bus`; made by `FakeNats.bus`."""

    def __init__(self, server: FakeNats, name: str) -> None:
        self.name = name
        self._server = server
        self._ids = 0
        self._watchers: list[tuple[Callable[[], None], Callable[[], None]]] = []
        self._heard_at = 0.0
        self.connected = False
        """As the bus knows it: the server may have ended the connection since."""
        self.connection: _Connection | None = None
        """As the server knows it."""
        self.told: deque[Deliver | Lost] = deque()

    def __repr__(self) -> str:
        state = "connected" if self.connected else "not connected"
        return f"<FakeBus {self.name}: {state}, {len(self.told)} to be told>"

    @property
    def heard_at(self) -> float:
        """Now, but for a bus that is held or has no connection."""
        if self.connected and not self._server.holds(self):
            self._heard_at = clock.now()
        return self._heard_at

    def publish(self, subject: str, data: bytes, reply: str = "") -> None:
        if len(data) > MAX_MESSAGE_BYTES:
            raise ValueError(f"{len(data)} bytes, expected at most {MAX_MESSAGE_BYTES}")
        self._say(Publish(subject, bytes(data), reply))

    def publish_all(self, messages: Iterable[tuple[str, bytes, str]]) -> None:
        for subject, data, reply in messages:
            self.publish(subject, data, reply)

    def subscribe(self, subject: str, receive: Receive) -> int:
        self._ids += 1
        self._say(Subscribe(self._ids, tuple(subject.split(".")), receive))
        return self._ids

    def unsubscribe(self, subscription: int) -> None:
        self._say(Unsubscribe(subscription))

    def watch(self, connected: Callable[[], None], lost: Callable[[], None]) -> None:
        self._watchers.append((connected, lost))
        if self.connected:
            connected()

    def _say(self, what: Publish | Subscribe | Unsubscribe) -> None:
        if self.connected and self.connection is not None:
            self.connection.said.append(what)
            self._server.soon()

    def connect(self) -> None:
        """By the server: there is a connection from now on."""
        while self.told:  # a bus learns of the end of its connection before it makes another
            self.hear()
        self.connection = _Connection()
        self.connected = True
        for connected, _ in list(self._watchers):
            connected()

    def hear(self) -> None:
        """Receive the next item."""
        item = self.told.popleft()
        if isinstance(item, Deliver):
            item.receive(item.delivery)
            return
        self.connected = False
        for _, lost in list(self._watchers):
            lost()


class FakeNats:
    """The server. It is up from the start."""

    def __init__(self) -> None:
        self._buses: list[FakeBus] = []
        self._held: set[FakeBus] = set()
        self._down: set[FakeBus] = set()
        self._scheduled = False
        self.published: list[tuple[FakeBus, Publish]] = []
        """What the server has read, in that order. May be cleared."""

    def bus(self, name: str = "", *, held: bool = False) -> FakeBus:
        """One more that is connected. Held: it takes no step by itself; see `hold`."""
        bus = FakeBus(self, name or f"bus {len(self._buses) + 1}")
        self._buses.append(bus)
        if held:
            self._held.add(bus)
        bus.connect()
        return bus

    # The connection

    def cut(self, bus: FakeBus, *, unread: bool = True) -> None:
        """End a connection. What was on its way to the bus is lost; so is what the server has not
        read, unless it reads that first (`unread` is false). The bus is told soon."""
        if bus.connection is None:
            return
        if not unread:
            while bus.connection is not None and bus.connection.said:
                self._read(bus)
        bus.connection = None
        bus.told.clear()
        bus.told.append(Lost())
        self.soon()

    def restore(self, bus: FakeBus) -> None:
        """Give a bus its next connection, at once."""
        if bus.connection is None:
            bus.connect()

    def stop(self) -> None:
        """The server ends, and with it all connections."""
        for bus in self._buses:
            if bus.connection is not None:
                self._down.add(bus)
                self.cut(bus)

    def start(self) -> None:
        """The server is back, and those whose connection ended with it have another."""
        for bus in self._buses:
            if bus in self._down:
                self._down.discard(bus)
                self.restore(bus)

    def listeners(self, subject: str) -> list[FakeBus]:
        """Who would receive a message of a stranger now."""
        tokens = subject.split(".")
        return [bus for bus in self._buses if bus.connection and bus.connection.listens(tokens)]

    # Steps

    def hold(self, *buses: FakeBus) -> None:
        """From now on these take a step only by `move`."""
        self._held.update(buses)

    def holds(self, bus: FakeBus) -> bool:
        return bus in self._held

    def release(self, *buses: FakeBus) -> None:
        self._held.difference_update(buses)
        self.soon()

    def moves(self) -> list[Move]:
        """Every step that could be taken now, held or not; in the order of the buses."""
        found: list[Move] = []
        for bus in self._buses:
            if bus.connection is not None and bus.connection.said:
                found.append((bus, "said"))
            if bus.told:
                found.append((bus, "told"))
        return found

    def move(self, move: Move) -> None:
        """Take one of `moves`."""
        bus, queue = move
        if queue == "said":
            self._read(bus)
        else:
            bus.hear()

    def settle(self, *, most: int = 100_000) -> None:
        """Take every step of those that are not held, until there is none; without trio."""
        for _ in range(most):
            moves = self._free_moves()
            if not moves:
                return
            for move in moves:
                self._take(move)
        raise AssertionError(f"still talking after {most} rounds: {self.moves()}")

    async def settled(self) -> None:
        """Wait until there is no step to take but of those that are held. No time passes."""
        while self._free_moves():
            await trio.lowlevel.checkpoint()

    def soon(self) -> None:
        """Something may be to be done: do it in trio's next turn."""
        if not self._scheduled and self._free_moves():
            self._scheduled = True
            trio.lowlevel.current_trio_token().run_sync_soon(self._run)

    def _free_moves(self) -> list[Move]:
        return [move for move in self.moves() if move[0] not in self._held]

    def _run(self) -> None:
        # What is said meanwhile waits for the next turn: others have theirs in between.
        self._scheduled = False
        said = [(bus, len(bus.connection.said)) for bus in self._buses if bus.connection]
        for bus, count in said:
            for _ in range(count):
                self._take((bus, "said"))
        for bus, count in [(bus, len(bus.told)) for bus in self._buses]:
            for _ in range(count):
                self._take((bus, "told"))
        self.soon()

    def _take(self, move: Move) -> None:
        """Take a step if it is still there: a callback may have cut the connection, or held it."""
        if move[0] not in self._held and move in self.moves():
            self.move(move)

    # The server

    def _read(self, bus: FakeBus) -> None:
        connection = bus.connection
        assert connection is not None
        item = connection.said.popleft()
        if isinstance(item, Subscribe):
            connection.subscriptions[item.id] = item
        elif isinstance(item, Unsubscribe):
            connection.subscriptions.pop(item.id, None)
        else:
            self.published.append((bus, item))
            self._route(bus, item)
        self.soon()

    def _route(self, publisher: FakeBus, message: Publish) -> None:
        tokens = message.subject.split(".")
        delivery = Delivery(message.subject, message.data, message.reply)
        received = False
        for bus in self._buses:
            if bus is publisher or bus.connection is None:  # no_echo
                continue
            for subscription in bus.connection.listens(tokens):
                received = True
                bus.told.append(Deliver(subscription.receive, delivery))
        if received or not message.reply or publisher.connection is None:
            return
        for subscription in publisher.connection.listens(message.reply.split("."))[:1]:
            nobody = Delivery(message.reply, b"", nobody=True)
            publisher.told.append(Deliver(subscription.receive, nobody))
