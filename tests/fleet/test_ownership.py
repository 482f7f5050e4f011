"""Conversations: claims of hosts over a NATS server in memory, by example."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import msgspec
import pytest

from gateway.fleet.bus import Delivery
from gateway.fleet.conversation import Conversation, Elsewhere
from gateway.fleet.lookup import MOST_ANNOUNCED, Lookup
from gateway.fleet.messages import Claim
from gateway.fleet.ownership import MOST_LOOKED_AT, PATIENCE
from gateway.fleet.subjects import Peer, digest_of
from tests.fleet.claimants import SUBJECTS, Host, hosts, run
from tests.fleet.fakes import Deliver, FakeNats


@pytest.fixture
def nats() -> FakeNats:
    return FakeNats()


def test_the_first_host_to_be_asked_has_the_conversation(nats: FakeNats) -> None:
    one, two = hosts(nats, 2, held=True)
    one.enter()
    assert one.results == []
    run(nats)
    assert one.open
    assert one.owns("c")
    two.enter()
    run(nats)
    assert two.results == [Elsewhere(one.me)]
    assert not two.owns("c")
    assert (one.claims.owned, two.claims.owned) == (1, 0)


def test_an_owner_is_not_asked_again(nats: FakeNats) -> None:
    (one,) = hosts(nats, 1, held=True)
    one.enter()
    run(nats)
    nats.published.clear()
    one.enter()
    assert len(one.open) == 2
    run(nats)
    assert nats.published == []


def test_requests_that_come_during_a_claim_have_its_outcome(nats: FakeNats) -> None:
    one, two = hosts(nats, 2, held=True)
    one.enter()
    one.enter()
    run(nats)
    assert len(one.open) == 2
    two.enter()
    two.enter()
    run(nats)
    assert two.results == [Elsewhere(one.me)] * 2


def test_of_two_that_claim_at_once_the_smaller_one_has_it(nats: FakeNats) -> None:
    one, two = hosts(nats, 2, held=True)
    one.enter()
    two.enter()
    run(nats)
    assert one.owns("c")
    assert two.results == [Elsewhere(one.me)]


def test_of_two_that_claim_at_once_the_one_that_knows_it_has_it(nats: FakeNats) -> None:
    one, two = hosts(nats, 2, held=True)
    two.enter()
    run(nats)
    two.leave()
    nats.cut(two.bus)
    run(nats)
    nats.restore(two.bus)
    run(nats)
    one.enter()
    two.enter(had=str(two.me))
    run(nats)
    assert two.owns("c")
    assert not two.lost
    assert one.results == [Elsewhere(two.me)]


def test_nobody_owns_what_a_claimant_that_stands_still_has_asked_for(nats: FakeNats) -> None:
    one, two = hosts(nats, 2, held=True)
    one.enter()
    while (one.bus, "said") in nats.moves():  # the server knows of it, and it hears nothing
        nats.move((one.bus, "said"))
    two.enter()
    for _ in range(PATIENCE + 1):
        for move in nats.moves():
            if move[0] is two.bus:
                nats.move(move)
        two.claims.tick()
    assert two.results == [Elsewhere(None)]
    while (two.bus, "said") in nats.moves():
        nats.move((two.bus, "said"))
    assert nats.listeners(SUBJECTS.conversation("a", digest_of("c"))) == [one.bus]
    nats.cut(one.bus)
    two.enter()
    run(nats)
    assert two.owns("c")
    run(nats)
    nats.restore(one.bus)
    run(nats)
    assert one.results == [Elsewhere(two.me)]


def test_a_request_that_its_agent_refuses_leaves_no_owner(nats: FakeNats) -> None:
    one, two = hosts(nats, 2, held=True)

    def refuse(result: Conversation | Elsewhere) -> None:
        assert isinstance(result, Conversation)
        one.claims.leave(result)

    one.claims.enter("a", "c", None, refuse)
    run(nats)
    assert one.claims.owned == 0
    two.enter()
    run(nats)
    assert two.owns("c")
    assert not two.lost  # nobody had it before


def test_a_conversation_whose_host_is_gone_is_lost_also_to_a_front_that_knows_nothing(
    nats: FakeNats,
) -> None:
    one, two = hosts(nats, 2, held=True)
    one.enter()
    run(nats)
    nats.cut(one.bus)
    two.enter()
    run(nats)
    assert two.owns("c")
    assert two.lost == {"c"}


def test_a_conversation_is_lost_to_a_host_that_was_not_there_if_the_front_says_so(
    nats: FakeNats,
) -> None:
    (two,) = hosts(nats, 1, held=True)
    two.enter(had="h9.0")
    run(nats)
    assert two.owns("c")
    assert two.lost == {"c"}


def test_a_host_forgets_what_another_has_had_since(nats: FakeNats) -> None:
    one, two = hosts(nats, 2, held=True)
    one.enter()
    run(nats)
    one.leave()
    one.claims.drain()
    two.enter()
    run(nats)
    assert two.owns("c")
    assert one.lost == {"c"}


@pytest.mark.parametrize(
    ("had", "lost"), [("h1.0", set()), ("h2.0", {"c"}), (None, {"c"})], ids=["it", "other", "none"]
)
def test_after_a_reconnection_the_front_has_to_know_of_this_host(
    nats: FakeNats, had: str | None, lost: set[str]
) -> None:
    (one,) = hosts(nats, 1, held=True)
    one.enter()
    run(nats)
    one.leave()
    nats.cut(one.bus)
    run(nats)
    assert one.claims.owned == 0
    nats.restore(one.bus)
    one.enter(had=had)
    run(nats)
    assert one.owns("c")
    assert one.lost == lost


def test_after_a_reconnection_requests_go_on_if_nobody_else_has_their_conversation(
    nats: FakeNats,
) -> None:
    one, two = hosts(nats, 2, held=True)
    one.enter("kept")
    one.enter("gone")
    run(nats)
    nats.cut(one.bus)
    run(nats)
    two.enter("gone")
    run(nats)
    assert two.owns("gone")
    nats.restore(one.bus)
    run(nats)
    assert one.owns("kept")
    assert one.moved == ["gone"]
    assert [each.session for each in one.open] == ["kept"]


def test_a_request_that_waits_through_a_reconnection_is_claimed_then(nats: FakeNats) -> None:
    (one,) = hosts(nats, 1, held=True)
    one.enter()
    nats.cut(one.bus)
    run(nats)
    one.claims.tick()
    assert one.results == []
    nats.restore(one.bus)
    run(nats)
    assert one.owns("c")


def test_a_host_that_drains_lets_each_conversation_go_with_its_last_request(
    nats: FakeNats,
) -> None:
    one, two = hosts(nats, 2, held=True)
    one.enter("idle")
    run(nats)
    one.leave()
    one.enter()
    one.enter()
    run(nats)
    one.leave()
    one.claims.drain()
    two.enter("idle")
    two.enter()
    run(nats)
    assert two.owns("idle")
    assert two.results[1] == Elsewhere(one.me)
    one.leave()
    two.enter()
    run(nats)
    assert two.owns("c")


def test_who_claims_what_an_ending_host_is_busy_with_waits_for_it(nats: FakeNats) -> None:
    one, two = hosts(nats, 2, held=True)
    one.enter()
    run(nats)
    one.claims.drain(ending=True)
    two.enter()
    run(nats)
    two.claims.tick()
    run(nats)
    assert two.results == []
    one.leave()
    two.claims.tick()
    run(nats)
    assert two.owns("c")
    assert two.lost == {"c"}


def test_two_that_were_both_told_nobody_agree_on_the_smaller_one() -> None:
    """Two servers of a cluster, in the moment before one has heard of the other's subscription."""
    left, right = FakeNats(), FakeNats()
    one, two = Host(left, "h1"), Host(right, "h2")
    one.enter()
    two.enter()
    run(left)
    run(right)
    assert one.owns("c")
    assert two.owns("c")
    for host, theirs, others in [(one, left, right), (two, right, left)]:
        announced = SUBJECTS.owned("a", host.me)
        assert announced in [each.subject for _, each in theirs.published]
        others.bus("bridge", held=True).publish(announced, digest_of("c"))
    run(left)
    run(right)
    assert one.owns("c")
    assert not two.owns("c")
    assert two.moved == ["c"]
    assert two.lost == {"c"}


def test_only_nats_can_say_that_nobody_has_a_conversation(nats: FakeNats) -> None:
    """Who is asked knows where the answer is expected, and may say anything there."""
    one, two = hosts(nats, 2, held=True)
    one.enter()
    run(nats)
    forger = nats.bus("forger", held=True)
    asked: list[Delivery] = []
    forger.subscribe("gw.c.a.*", asked.append)
    run(nats)
    nats.hold(one.bus)
    two.enter()
    nats.move((two.bus, "said"))
    nats.move((two.bus, "said"))
    nats.move((forger, "told"))
    [claim] = asked
    token = claim.reply.rpartition(".")[2]
    told = SUBJECTS.answer(two.me, f"a.{digest_of('c').hex()}.{token}")
    two.bus.told.append(Deliver(two.claims._on_answer, Delivery(told, b"", nobody=True)))
    forger.publish(claim.reply, b"")
    forger.publish(claim.reply, str(two.me).encode())
    run(nats)
    assert one.owns("c")
    assert not two.owns("c")
    assert two.results == [Elsewhere(one.me)]


def test_an_announcement_of_more_than_a_host_comes_to_own_at_once_is_none() -> None:
    lookup, one = Lookup(), Peer("h1", "0")
    each = [digest_of(str(number)) for number in range(MOST_ANNOUNCED + 1)]
    lookup.heard("a", one, b"".join(each))
    assert lookup.last("a", "0") is None
    lookup.heard("a", one, b"".join(each[1:]))
    assert lookup.last("a", "1") == one


def test_what_is_not_the_protocol_changes_nothing(nats: FakeNats) -> None:
    (one,) = hosts(nats, 1, held=True)
    one.enter()
    run(nats)
    stranger = nats.bus("x", held=True)
    subject = SUBJECTS.conversation("a", digest_of("c"))
    for data in (b"", b"\xff", b"\x92\x01\xa1.", b"\x91" * 10_000):
        stranger.publish(subject, data, "reply")
        claim = msgspec.msgpack.encode(Claim(0, "h0.0"))
        stranger.publish(subject, claim, SUBJECTS.down(Peer("f", "0"), one.me))
        stranger.publish(SUBJECTS.owned("a", Peer("h0", "0")), data + b"x")
        stranger.publish(SUBJECTS.owned("b", Peer("h0", "0")), digest_of("c"))
        stranger.publish(SUBJECTS.answer(one.me, "a.zz.t"), data)
        stranger.publish(SUBJECTS.answer(one.me, "t"), data)
        stranger.publish(SUBJECTS.asked(one.me, "t"), data)
    run(nats)
    assert one.owns("c")
    assert not one.lost
    assert not [each for bus, each in nats.published if each.subject.startswith("gw.dn.")]


def test_a_host_has_ten_thousand_conversations_of_an_agent_and_forgets_the_longest_unused(
    nats: FakeNats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.fleet.ownership.REMEMBERED", 3)
    (one,) = hosts(nats, 1, held=True)
    for session in "abcd":
        one.enter(session)
        run(nats)
        if session != "a":  # which has a request
            one.leave()
    one.enter("e")
    run(nats)
    assert one.claims.owned == 3
    assert one.owns("a")
    assert one.owns("e")
    assert one.lost == {"b", "c"}


def test_a_new_conversation_takes_no_longer_where_thousands_have_requests(
    nats: FakeNats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.fleet.ownership.REMEMBERED", 3)
    (one,) = hosts(nats, 1, held=True)
    for number in range(200):
        one.enter(f"busy{number}")
        run(nats)
    looks = 0

    class Counting(OrderedDict[bytes, Any]):
        def move_to_end(self, key: bytes, last: bool = True) -> None:
            nonlocal looks
            looks += 1
            super().move_to_end(key, last)

    its = one.claims._agents["a"]
    its.ours = Counting(its.ours)
    for number in range(10):
        one.enter(f"new{number}")
        run(nats)
    assert looks <= 10 * MOST_LOOKED_AT
    for _ in range(210):
        one.leave()
    for number in range(60):  # those that are free now are forgotten a few at a time
        one.enter(f"more{number}")
        run(nats)
        one.leave()
    assert one.claims.owned <= 3 + MOST_LOOKED_AT


def test_a_front_remembers_what_it_hears_and_the_longest_silent_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.fleet.lookup.REMEMBERED", 2)
    lookup, one, two = Lookup(), Peer("h1", "0"), Peer("h2", "0")
    lookup.heard("a", one, digest_of("c") + digest_of("d"))
    lookup.note("a", "c", two)
    lookup.heard("a", two, digest_of("e"))
    lookup.heard("a", two, b"not whole digests")
    assert [lookup.last("a", each) for each in "cde"] == [two, None, two]
    assert lookup.last("b", "c") is None
    lookup.forget("a")
    assert lookup.last("a", "c") is None
