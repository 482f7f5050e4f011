"""Both ends of a pipe on a network that loses, repeats, delays and reorders: by example, and in any
order of events."""

from __future__ import annotations

import struct
from collections import Counter, defaultdict
from itertools import count
from typing import TYPE_CHECKING, Literal

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gateway.fleet import pipe as module
from gateway.fleet.pipe import Ended, Pipe, Why, reset

if TYPE_CHECKING:
    from collections.abc import Iterator

Side = Literal["front", "host"]
SIDES: tuple[Side, Side] = ("front", "host")

HEADER = struct.Struct(">cQQQ")
UNKNOWN = 2**64 - 1

MAX_DATA = 8
"""Bytes of a message in these tests, so that much is said with few bytes."""

WINDOW = 50


@pytest.fixture(autouse=True)
def small_messages() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_DATA_BYTES", MAX_DATA)
        patch.setattr(module, "ACK_MESSAGES", 4)
        patch.setattr(module, "ACK_BYTES", 2 * MAX_DATA)
        patch.setattr(module, "WINDOW_BYTES", WINDOW)
        yield


def other(side: Side) -> Side:
    return "host" if side == "front" else "front"


class Sent:
    """A copy of a message that has left."""

    def __init__(self, number: int, message: bytes) -> None:
        self.number = number
        self.message = message
        self.kind, self.epoch, _, self.received = HEADER.unpack_from(message)
        self.may_arrive = False
        """Whether a copy of this copy may have been received, or still be on its way."""

    def __repr__(self) -> str:
        return f"<{self.kind.decode()} {self.epoch} {self.number} {self.received}>"


class Network:
    """Two ends and what lies between them, with a model of what each must have received."""

    def __init__(self) -> None:
        self.epochs = count(1)
        self.pipes: dict[Side, Pipe] = {"front": Pipe(self.epochs), "host": Pipe()}
        self.air: dict[Side, list[Sent]] = {"front": [], "host": []}
        """On its way, by the one who said it."""
        self.history: dict[Side, list[Sent]] = {"front": [], "host": []}
        self.up: dict[Side, bool] = {"front": True, "host": True}
        self.said: dict[tuple[Side, int], bytearray] = defaultdict(bytearray)
        """By the one who said it, and the epoch."""
        self.heard: dict[tuple[Side, int], bytearray] = defaultdict(bytearray)
        """By the one who *said* it."""
        self.ended: dict[Side, list[Ended]] = {"front": [], "host": []}
        self.numbers: dict[Side, set[tuple[int, int]]] = {"front": set(), "host": set()}
        """Epochs and numbers of what has left."""
        self.repeats = 0
        self.bytes = count()

    def say(self, side: Side, size: int) -> int:
        pipe = self.pipes[side]
        data = bytes(next(self.bytes) % 251 for _ in range(size))
        if pipe.open:
            self.said[side, pipe.epoch] += data
        return pipe.send(data)

    def flush(self, side: Side) -> list[Sent]:
        if not self.up[side]:
            return []
        leaving = [Sent(*each) for each in self.pipes[side].flush()]
        self.repeats += sum((sent.epoch, sent.number) in self.numbers[side] for sent in leaving)
        self.numbers[side].update((sent.epoch, sent.number) for sent in leaving if sent.number)
        self.air[side] += leaving
        self.history[side] += leaving
        return leaving

    def beat(self, side: Side) -> list[Sent]:
        self.pipes[side].beat()
        return self.flush(side)

    def deliver(self, side: Side, index: int = 0) -> None:
        """To the other side; lost if that has no connection."""
        sent = self.air[side].pop(index)
        sent.may_arrive = True
        if self.up[other(side)]:
            self.arrive(side, sent.message)

    def arrive(self, side: Side, message: bytes) -> None:
        to = other(side)
        for each in self.pipes[to].receive(message):
            if isinstance(each, Ended):
                self.end(to, each)
            else:
                self.heard[side, self.pipes[to].epoch] += each

    def end(self, side: Side, ended: Ended | None) -> None:
        if ended is not None:
            assert ended.reached <= len(self.said[side, ended.epoch])
            self.ended[side].append(ended)

    def nobody(self, side: Side, index: int = 0) -> None:
        """NATS says that nobody listens."""
        sent = self.air[side].pop(index)
        assert not sent.may_arrive
        self.history[side].remove(sent)
        self.pipes[side].undelivered(sent.epoch, sent.number)

    def cut(self, side: Side) -> None:
        """The connection of one side breaks: what was on its way, to and fro, is lost."""
        self.up[side] = False
        for sent in self.air[side] + self.air[other(side)]:
            sent.may_arrive = True  # for all that anybody knows
        self.air[side].clear()
        self.air[other(side)].clear()

    def restore(self, side: Side) -> None:
        if not self.up[side]:
            self.up[side] = True
            self.pipes[side].connected()

    def quiet(self) -> None:
        """Let both sides talk, without a beat, until there is nothing more to say."""
        for _ in range(50):
            for side in SIDES:
                self.flush(side)
                while self.air[side]:
                    self.deliver(side)
                    self.flush(other(side))
            if not any(self.air.values()):
                return
        raise AssertionError("the two never come to an end")

    @property
    def agreed(self) -> bool:
        """Whether both are in the same epoch, and everything was received."""
        front, host = self.pipes["front"], self.pipes["host"]
        return (
            front.epoch == host.epoch
            and front.open
            and host.open
            and all(
                pipe.heard
                and pipe.sent == len(self.said[side, pipe.epoch])
                and self.heard[side, pipe.epoch] == self.said[side, pipe.epoch]
                for side, pipe in self.pipes.items()
            )
        )

    def heal(self, beats: int) -> None:
        """Both have a connection and nothing is lost any more: they agree after so many beats."""
        for side in SIDES:
            self.restore(side)
        for _ in range(beats):
            self.beat_both()
            if self.agreed:
                self.beat_both()
                assert all(pipe.acknowledged == pipe.sent for pipe in self.pipes.values())
                return
        raise AssertionError(f"no agreement after {beats} beats: {self.pipes}")

    def beat_both(self) -> None:
        for side in SIDES:
            self.beat(side)
        self.quiet()


# By example


def agreed() -> Network:
    """A network on which both have said something, and know it."""
    network = Network()
    network.quiet()
    network.say("front", 3)
    network.quiet()
    network.say("host", 20)
    network.heal(1)
    return network


def test_what_is_said_arrives_in_order_in_messages_of_bounded_size() -> None:
    network = agreed()
    assert network.heard["host", 1] == network.said["host", 1]
    sizes = [len(sent.message) - HEADER.size for sent in network.history["host"] if sent.number]
    assert sizes == [8, 8, 4]


def test_what_is_said_in_one_turn_leaves_in_one_message() -> None:
    network = agreed()
    for _ in range(3):
        network.say("front", 2)
    (sent,) = network.flush("front")
    assert len(sent.message) == HEADER.size + 6


def test_a_message_of_data_needs_no_beat_and_no_acknowledgement_beside_it() -> None:
    network = agreed()
    network.say("front", 1)
    assert [sent.kind for sent in network.beat("front")] == [b"D"]
    network.deliver("front")
    assert network.flush("host") == []
    network.say("host", 1)
    (sent,) = network.flush("host")
    assert (sent.kind, sent.received) == (b"D", 2)


def test_no_more_than_a_window_is_on_its_way() -> None:
    network = agreed()
    network.say("front", 3)
    network.say("front", 2 * WINDOW)
    network.say("front", 2)
    on_its_way = network.flush("front")
    assert sum(len(sent.message) - HEADER.size for sent in on_its_way) == WINDOW
    assert not network.pipes["front"].pending
    assert [sent.kind for sent in network.beat("front")] == [b"K"]
    network.quiet()
    assert network.heard["front", 1] == network.said["front", 1], "without another beat"
    assert len(network.heard["front", 1]) == 8 + 2 * WINDOW


def test_what_waits_for_the_window_has_certainly_not_been_received() -> None:
    network = agreed()
    before = network.pipes["front"].sent
    network.say("front", 2 * WINDOW)
    network.flush("front")
    assert reached(network) == before + WINDOW


def test_who_receives_much_acknowledges_without_waiting_for_a_beat() -> None:
    network = agreed()
    for _ in range(4):
        network.say("front", 1)
        network.flush("front")
    for _ in range(3):
        network.deliver("front")
        assert network.flush("host") == []
    network.deliver("front")
    assert [(sent.kind, sent.received) for sent in network.flush("host")] == [(b"K", 5)]


@pytest.mark.parametrize("side", SIDES)
def test_what_is_lost_comes_again_with_the_next_beat(side: Side) -> None:
    network = agreed()
    network.say(side, 1)
    network.flush(side)
    network.air[side].clear()
    network.heal(1)


def test_a_loss_is_noticed_at_once_by_what_comes_after_it() -> None:
    network = agreed()
    for _ in range(3):
        network.say("front", 1)
        network.flush("front")
    network.air["front"].pop(0)
    network.quiet()
    assert network.heard["front", 1] == network.said["front", 1]
    assert [sent.kind for sent in network.history["host"]].count(b"N") == 1


def test_an_n_that_crosses_the_repetition_asks_for_nothing() -> None:
    network = agreed()
    network.say("front", 1)
    network.flush("front")
    network.air["front"].clear()
    (beat,) = network.beat("front")
    network.arrive("front", beat.message)
    network.arrive("front", beat.message)  # a second time: as if the next beat had crossed
    (again,) = network.flush("host")
    network.arrive("host", again.message)
    assert [sent.number for sent in network.flush("front")] == [2]
    network.arrive("host", again.message)
    assert network.flush("front") == []
    network.beat("front")
    network.arrive("host", again.message)
    assert [sent.number for sent in network.flush("front")] == [2]


@pytest.mark.parametrize("first", SIDES)
def test_a_server_that_was_away_is_forgotten_in_one_exchange_of_messages(first: Side) -> None:
    network = agreed()
    for side in SIDES:
        network.say(side, 30)
        network.flush(side)
        network.cut(side)
    network.say("front", 1)
    network.restore(first)
    network.flush(first)
    network.air[first].clear()  # nobody is there yet
    network.restore(other(first))
    network.quiet()
    for side in SIDES:
        assert network.heard[side, 1] == network.said[side, 1]


def test_data_that_is_said_without_a_connection_leaves_with_the_next_one() -> None:
    network = agreed()
    network.cut("front")
    network.say("front", 1)
    assert network.flush("front") == []
    network.restore("front")
    assert [sent.kind for sent in network.flush("front")] == [b"N", b"D"]


def test_each_side_may_end_the_epoch_and_both_go_on_in_the_next_one() -> None:
    for side in SIDES:
        network = agreed()
        network.say("front", 1)
        network.end(side, network.pipes[side].end(Why.GIVEN_UP, "tired"))
        network.quiet()
        assert [ended.why for ended in network.ended[side]] == [Why.GIVEN_UP]
        assert [ended.why for ended in network.ended[other(side)]] == [Why.RESET]
        network.say("front", 2)
        network.heal(1)
        assert network.pipes["host"].epoch == 2


def test_a_front_that_closes_ends_the_epoch_at_the_host_for_good() -> None:
    network = agreed()
    network.end("front", network.pipes["front"].close(Why.GIVEN_UP, "no longer needed"))
    network.quiet()
    assert [ended.why for ended in network.ended["host"]] == [Why.RESET]
    for side in SIDES:
        assert network.beat(side) == []
        assert network.say(side, 5) == len(network.said[side, 1])


def test_an_r_that_was_lost_is_said_again() -> None:
    network = agreed()
    network.end("host", network.pipes["host"].end(Why.GIVEN_UP, "tired"))
    network.flush("host")
    network.air["host"].clear()
    network.heal(1)
    assert network.pipes["front"].epoch == 2


def test_a_host_that_remembers_an_epoch_takes_nothing_of_it_again() -> None:
    network = agreed()
    begun = [sent.message for sent in network.history["front"]]
    network.pipes["host"] = host = Pipe(ended=1)
    for message in begun:
        assert host.receive(message) == ()
    assert [each for _, each in host.flush()] == [HEADER.pack(b"R", 1, 0, UNKNOWN)]


@pytest.mark.parametrize("kind", [b"D", b"K", b"N"])
def test_a_host_that_hears_of_a_front_in_mid_stream_asks_it_to_begin_anew(kind: bytes) -> None:
    for number, received in ((2, 0), (0 if kind != b"D" else 1, 1)):
        host = Pipe()
        assert host.receive(HEADER.pack(kind, 7, number, received) + b"x" * (kind == b"D")) == ()
        assert not host.open
        assert [each for _, each in host.flush()] == [HEADER.pack(b"R", 7, 0, UNKNOWN)]


def test_a_message_of_a_host_that_a_front_does_not_know_is_answered_with_r() -> None:
    answer = reset(HEADER.pack(b"K", 7, 3, 4))
    assert answer is not None
    host = Pipe(ended=6)
    host.receive(HEADER.pack(b"K", 7, 0, 0))
    (ended,) = host.receive(answer)
    assert isinstance(ended, Ended)
    assert host.flush() == []
    assert reset(answer) is None
    assert reset(b"K") is None


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"D" * (HEADER.size - 1),
        HEADER.pack(b"X", 1, 1, 1),
        HEADER.pack(b"K", 1, 3, 1) + b"data",
        HEADER.pack(b"D", 1, 4, 1),
        HEADER.pack(b"D", 1, 0, 1) + b"data",
        HEADER.pack(b"D", 1, 4, 1) + b"x" * (MAX_DATA + 1),
        HEADER.pack(b"K", 1, 3, 2),
        HEADER.pack(b"D", 1, 4, UNKNOWN) + b"x",
    ],
    ids=repr,
)
def test_what_is_not_the_protocol_ends_the_epoch(message: bytes) -> None:
    network = agreed()
    network.arrive("host", message)
    (ended,) = network.ended["front"]
    assert ended.why is Why.VIOLATION
    network.say("front", 1)
    network.heal(1)


@pytest.mark.parametrize(
    "message",
    [
        HEADER.pack(b"K", 0, 3, 1),
        HEADER.pack(b"R", 0, 3, 1),
        HEADER.pack(b"R", 2, 3, 1),
        HEADER.pack(b"D", 9, 1, 1) + b"x",
        HEADER.pack(b"D", 1, 3, 1) + b"again",
        HEADER.pack(b"D", 1, 5, 1) + b"early",
        HEADER.pack(b"K", 1, 9, 1),
        HEADER.pack(b"N", 1, 3, 0),
        HEADER.pack(b"K", 1, 1, 0),
    ],
    ids=repr,
)
def test_what_is_old_early_or_of_another_epoch_harms_nobody(message: bytes) -> None:
    network = agreed()
    network.arrive("host", message)
    network.say("host", 1)
    network.say("front", 1)
    network.heal(1)
    assert network.ended["front"] == []


def test_a_peer_that_has_forgotten_what_it_acknowledged_ends_the_epoch_in_the_end() -> None:
    network = agreed()
    for number in range(module.MAX_BEHIND):
        assert network.ended["front"] == [], number
        network.arrive("host", HEADER.pack(b"N", 1, 3, 0))
    assert [ended.why for ended in network.ended["front"]] == [Why.VIOLATION]


def test_a_peer_cannot_have_a_window_repeated_for_each_of_its_messages() -> None:
    network = agreed()
    for _ in range(10):
        network.say("front", 1)
        network.flush("front")
    repeated = 0
    for received in range(1, 11):
        network.arrive("host", HEADER.pack(b"N", 1, 3, received))
        repeated += len(network.flush("front"))
    assert repeated == 10 + 9
    network.beat("front")
    network.arrive("host", HEADER.pack(b"N", 1, 3, 10))
    assert len(network.flush("front")) == 1


@pytest.mark.parametrize("kind", [b"R", b"X"])
def test_a_peer_cannot_end_an_epoch_with_each_of_its_messages(kind: bytes) -> None:
    network = agreed()
    for number in range(10):
        epoch = network.pipes["front"].epoch
        network.arrive("host", HEADER.pack(kind, epoch, 0, 0))
        assert len(network.ended["front"]) == min(number + 1, 4)
    network.say("front", 1)
    network.air["front"].clear()
    network.heal(1)
    assert len(network.ended["front"]) == 4


# What has certainly not been received


def reached(network: Network) -> int:
    ended = network.pipes["front"].end(Why.GIVEN_UP, "silence")
    assert ended is not None
    return ended.reached


def test_what_nobody_listened_for_has_certainly_not_been_received() -> None:
    network = agreed()
    before = network.pipes["front"].sent
    network.say("front", 1)
    network.flush("front")
    network.nobody("front")
    network.say("front", 5)
    network.flush("front")  # it may arrive, but cannot be taken without what was before it
    assert reached(network) == before


def test_what_has_not_left_has_certainly_not_been_received() -> None:
    network = agreed()
    left = network.say("front", 5)
    network.flush("front")
    network.say("front", 5)
    assert reached(network) == left


def test_what_was_sent_again_counts_once_for_each_copy() -> None:
    for answered in (1, 2):
        network = agreed()
        before = network.pipes["front"].sent
        after = network.say("front", 1)
        network.flush("front")
        network.cut("host")
        network.restore("host")
        network.quiet()  # the host asks again, and has it
        network.pipes["front"].undelivered(1, 2)
        if answered == 2:
            network.pipes["front"].undelivered(1, 2)
        assert reached(network) == (after if answered == 1 else before)


def test_an_undelivered_message_of_an_earlier_epoch_says_nothing() -> None:
    network = agreed()
    assert network.pipes["front"].undelivered(1, 0)
    network.pipes["front"].end(Why.GIVEN_UP, "silence")
    left = network.say("front", 1)
    network.flush("front")
    assert not network.pipes["front"].undelivered(1, 1)
    assert network.pipes["front"].undelivered(2, 7)
    assert reached(network) == left


def test_a_host_that_ends_the_epoch_says_what_it_has_received() -> None:
    network = agreed()
    network.say("front", 1)
    network.flush("front")
    network.say("front", 1)
    network.quiet()
    has = network.say("front", 0)
    network.pipes["host"].end(Why.GIVEN_UP, "tired")
    network.say("front", 1)
    network.quiet()
    (ended,) = network.ended["front"]
    assert ended.reached == has


# In any order

SITUATIONS = {
    "a message arrives out of order",
    "a message arrives twice",
    "a message of an epoch that is over arrives",
    "a message is lost",
    "a connection breaks with messages on their way",
    "both connections are broken",
    "nobody listens for data",
    "the front ends an epoch with data on its way",
    "the host ends an epoch with data on its way",
    "the host forgets an epoch that the front goes on with",
    "the host forgets the front",
    "data is certainly not received",
    "data that may have been received was not",
    "a window is repeated",
    "data waits for the window",
    "somebody forges a message",
}
REACHED: Counter[str] = Counter()


def situation(name: str, holds: object = True) -> None:
    assert name in SITUATIONS
    if holds:
        REACHED[name] += 1


sides = st.sampled_from(SIDES)
somewhere = st.integers(0, 1000)


class PipeMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.network = Network()
        self.forgotten: set[int] = set()
        """Epochs in which a host that has forgotten them may take what it took before."""

    @property
    def some_air(self) -> bool:
        return any(self.network.air.values())

    def air(self, side: Side) -> list[Sent]:
        return self.network.air[side]

    @rule(
        side=sides,
        size=st.sampled_from([1, 2, MAX_DATA, MAX_DATA + 1, 5 * MAX_DATA]),
        leaves=st.booleans(),
    )
    def say(self, side: Side, size: int, leaves: bool) -> None:
        self.network.say(side, size)
        if leaves:
            self.network.flush(side)
            situation("data waits for the window", self.network.pipes[side]._queue)

    @rule(side=sides)
    def beat(self, side: Side) -> None:
        self.network.beat(side)

    @precondition(lambda self: self.some_air)
    @rule(side=sides, most=st.integers(1, 10))
    def deliver(self, side: Side, most: int) -> None:
        for _ in range(min(most, len(self.air(side)))):
            self.arriving(side, self.air(side)[0])
            self.network.deliver(side)
            self.network.flush(other(side))

    @precondition(lambda self: self.some_air)
    @rule(side=sides, where=somewhere)
    def deliver_out_of_order(self, side: Side, where: int) -> None:
        if len(self.air(side)) > 1:
            index = 1 + where % (len(self.air(side)) - 1)
            self.arriving(side, self.air(side)[index])
            situation("a message arrives out of order")
            self.network.deliver(side, index)

    def arriving(self, side: Side, sent: Sent) -> None:
        to = self.network.pipes[other(side)]
        situation("a message of an epoch that is over arrives", sent.epoch < to.epoch)

    @precondition(lambda self: self.some_air)
    @rule(side=sides, where=somewhere)
    def lose(self, side: Side, where: int) -> None:
        if self.air(side):
            sent = self.air(side).pop(where % len(self.air(side)))
            sent.may_arrive = True
            situation("a message is lost", sent.number)

    @rule(side=sides, where=somewhere)
    def repeat(self, side: Side, where: int) -> None:
        if history := self.network.history[side]:
            sent = history[where % len(history)]
            sent.may_arrive = True
            situation("a message arrives twice", sent.number)
            if self.network.up[other(side)]:
                self.arriving(side, sent)
                self.network.arrive(side, sent.message)

    @precondition(lambda self: self.some_air)
    @rule(side=sides, where=somewhere)
    def nobody(self, side: Side, where: int) -> None:
        if self.air(side):
            index = where % len(self.air(side))
            sent = self.air(side)[index]
            if not sent.may_arrive:
                situation("nobody listens for data", sent.number)
                self.network.nobody(side, index)

    @precondition(lambda self: self.some_air and all(self.network.up.values()))
    @rule(side=sides, both=st.booleans())
    def cut(self, side: Side, both: bool) -> None:
        situation("a connection breaks with messages on their way", self.air(side))
        self.network.cut(side)
        if both:
            self.network.cut(other(side))
        situation("both connections are broken", not any(self.network.up.values()))

    @precondition(lambda self: not all(self.network.up.values()))
    @rule(side=sides)
    def restore(self, side: Side) -> None:
        self.network.restore(side)
        self.network.flush(side)

    @precondition(lambda self: any(pipe.heard for pipe in self.network.pipes.values()))
    @rule(side=sides)
    def end(self, side: Side) -> None:
        pipe = self.network.pipes[side]
        situation(f"the {side} ends an epoch with data on its way", any(self.air(side)))
        self.network.end(side, pipe.end(Why.GIVEN_UP, "enough"))

    @rule()
    def forget_with_a_trace(self) -> None:
        """What a process does with the pipe of a front that it has not heard for long."""
        host = self.network.pipes["host"]
        host.close(Why.GIVEN_UP, "silence")
        if host.epoch:
            front = self.network.pipes["front"]
            situation(
                "the host forgets an epoch that the front goes on with", host.epoch == front.epoch
            )
            self.network.pipes["host"] = Pipe(ended=host.epoch)

    @precondition(lambda self: self.network.pipes["host"].epoch > 1)
    @rule()
    def forget(self) -> None:
        """What a process does with the oldest traces."""
        host = self.network.pipes["host"]
        if host.epoch:
            situation("the host forgets the front")
            self.network.pipes["host"] = Pipe()
            self.forgotten.update(range(host.epoch + 1))
            for epoch in range(host.epoch + 1):
                self.network.heard.pop(("front", epoch), None)
                self.network.heard.pop(("host", epoch), None)
                self.network.said.pop(("host", epoch), None)

    @precondition(lambda self: any(pipe.heard for pipe in self.network.pipes.values()))
    @rule(
        side=sides,
        kind=st.sampled_from([b"K", b"K", b"N", b"N", b"D", b"D", b"R", b"X"]),
        number=st.integers(0, 9),
    )
    def forge(self, side: Side, kind: bytes, number: int) -> None:
        """Nobody can forge data of the expected number, nor an acknowledgement: that is as good as
        being the peer."""
        to = self.network.pipes[other(side)]
        if not self.network.up[other(side)] or not to.open:
            return
        data = b"forged" if kind == b"D" else b""
        number += 1000 if kind == b"D" else 0
        situation("somebody forges a message")
        received = UNKNOWN if kind == b"R" else 0
        self.network.arrive(side, HEADER.pack(kind, to.epoch, number, received) + data)

    @precondition(lambda self: not self.forgotten)
    @rule()
    def heal(self) -> None:
        """Whatever was, one beat on a good network is enough."""
        repeats = self.network.repeats
        self.network.heal(1)
        situation("a window is repeated", self.network.repeats > repeats)

    @invariant()
    def what_is_received_is_the_beginning_of_what_was_said(self) -> None:
        for (side, epoch), heard in self.network.heard.items():
            if epoch not in self.forgotten:
                assert self.network.said[side, epoch].startswith(heard)

    @invariant()
    def what_is_acknowledged_was_received(self) -> None:
        for side, pipe in self.network.pipes.items():
            if pipe.epoch not in self.forgotten:
                assert pipe.acknowledged <= len(self.network.heard[side, pipe.epoch])

    @invariant()
    def what_was_certainly_not_received_never_is(self) -> None:
        for side in SIDES:
            for ended in self.network.ended[side]:
                if ended.epoch in self.forgotten:
                    continue
                received = len(self.network.heard[side, ended.epoch])
                assert received <= ended.reached
                said = len(self.network.said[side, ended.epoch])
                situation("data is certainly not received", ended.reached < said)
                situation("data that may have been received was not", received < ended.reached)

    @invariant()
    def no_more_is_held_than_what_is_not_acknowledged(self) -> None:
        for pipe in self.network.pipes.values():
            window = pipe._window
            held = sum(len(message.data) - HEADER.size for message in window)
            assert held <= WINDOW
            assert held + sum(map(len, pipe._queue)) <= pipe.sent - pipe.acknowledged

    def teardown(self) -> None:
        """Whatever it was, the two come to terms."""
        if not hasattr(self, "network"):
            return
        self.network.heal(2 * module.MAX_BEHIND)
        self.network.say("front", 3)
        self.network.say("host", 3)
        self.network.heal(1)


@pytest.mark.timeout(400)  # a failure is shrunk for up to five minutes, and is worth it
def test_a_pipe_whatever_happens_to_it_in_any_order() -> None:
    REACHED.clear()
    run_state_machine_as_test(
        PipeMachine,
        settings=settings(
            derandomize=True,
            deadline=None,
            max_examples=400,
            stateful_step_count=40,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert not SITUATIONS - REACHED.keys(), "the machine never came to these"
