"""Both ends of a pipe on a network that loses, repeats, delays and reorders: by example."""

from __future__ import annotations

import pytest

from gateway.fleet import pipe as module
from gateway.fleet.pipe import Ended, Pipe, Why, reset
from tests.fleet.pipe_network import (
    HEADER,
    MAX_DATA,
    SIDES,
    UNKNOWN,
    WINDOW,
    Network,
    Side,
    agreed,
    keep_messages_small,
    other,
)


@pytest.fixture(autouse=True)
def small_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_messages_small(monkeypatch)


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
