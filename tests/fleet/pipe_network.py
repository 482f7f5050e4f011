"""Two ends of a pipe, and a network between them that loses, repeats, delays and reorders."""

from __future__ import annotations

import struct
from collections import defaultdict
from itertools import count
from typing import Literal

import pytest

from gateway.fleet import pipe as module
from gateway.fleet.pipe import Ended, Pipe

Side = Literal["front", "host"]
SIDES: tuple[Side, Side] = ("front", "host")

HEADER = struct.Struct(">cQQQ")
UNKNOWN = 2**64 - 1

MAX_DATA = 8
"""Bytes of a message in these tests, so that much is said with few bytes."""

WINDOW = 50


def keep_messages_small(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(module, "MAX_DATA_BYTES", MAX_DATA)
    patch.setattr(module, "ACK_MESSAGES", 4)
    patch.setattr(module, "ACK_BYTES", 2 * MAX_DATA)
    patch.setattr(module, "WINDOW_BYTES", WINDOW)


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


def agreed() -> Network:
    """A network on which both have said something, and know it."""
    network = Network()
    network.quiet()
    network.say("front", 3)
    network.quiet()
    network.say("host", 20)
    network.heal(1)
    return network
