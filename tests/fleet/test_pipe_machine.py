"""Both ends of a pipe on a network that loses, repeats, delays and reorders: in any order."""

from __future__ import annotations

from collections import Counter

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
from gateway.fleet.pipe import Pipe, Why
from tests.fleet.pipe_network import (
    HEADER,
    MAX_DATA,
    SIDES,
    UNKNOWN,
    WINDOW,
    Network,
    Sent,
    Side,
    keep_messages_small,
    other,
)

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


@pytest.fixture(autouse=True)
def small_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_messages_small(monkeypatch)


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
