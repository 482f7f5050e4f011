"""Conversations: claims of hosts over a NATS server in memory, in any order of its steps."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

import msgspec
import pytest

from gateway.fleet.bus import Delivery
from gateway.fleet.conversation import Conversation, Elsewhere, State
from gateway.fleet.lookup import Lookup, digests
from gateway.fleet.messages import Claim
from gateway.fleet.ownership import PATIENCE, Claims
from gateway.fleet.subjects import Peer, Subjects, digest_of
from tests.fleet.fakes import Deliver, FakeNats, Publish

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fleet.fakes import FakeBus

SUBJECTS = Subjects()


class Host:
    """A host with an agent "a" whose pool remembers each conversation's last turn."""

    def __init__(self, nats: FakeNats, name: str, *, held: bool = True) -> None:
        self.bus = nats.bus(name, held=held)
        self.me = Peer(name, "0")
        self.turns: dict[str, int] = {}
        self.was_cut = False
        self.lost: set[str] = set()
        """Conversations that will be told that they are lost."""
        self.moved: list[str] = []
        self.results: list[Conversation | Elsewhere] = []
        self.open: list[Conversation] = []
        self.claims = Claims(
            self.me, SUBJECTS, self.bus, displaced=self._displaced, moved=self._moved
        )
        self.claims.serve(["a"])

    def _displaced(self, agent: str, session: str) -> None:
        assert agent == "a"
        self.turns.pop(session, None)
        self.lost.add(session)

    def _moved(self, agent: str, session: str) -> None:
        assert agent == "a"
        self.moved.append(session)
        for each in [each for each in self.open if each.session == session]:
            self.open.remove(each)
            self.claims.leave(each)

    def owns(self, session: str) -> bool:
        """Whether it believes so, and the server does not know better."""
        its = self.claims._agents["a"].ours.get(digest_of(session))
        return its is not None and its.state is State.OWNED and self.bus.connection is not None

    def enter(self, session: str = "c", had: str | None = None) -> None:
        def settle(result: Conversation | Elsewhere) -> None:
            self.results.append(result)
            if isinstance(result, Conversation):
                self.open.append(result)

        self.claims.enter("a", session, had, settle)

    def leave(self) -> None:
        self.claims.leave(self.open.pop())


def hosts(nats: FakeNats, count: int, *, held: bool = False) -> list[Host]:
    return [Host(nats, f"h{number}", held=held) for number in range(1, count + 1)]


def run(nats: FakeNats) -> None:
    """Everything that can happen does."""
    while moves := nats.moves():
        for move in moves:
            if move in nats.moves():
                nats.move(move)


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


def every_order(
    prepare: Callable[[FakeNats], list[Host]], check: Callable[[list[Host]], None]
) -> int:
    """Take the steps of all connections in every order that there is, each in a fleet of its own;
    returns how many there are."""
    pending: list[list[int]] = [[]]
    count = 0
    while pending:
        path = pending.pop()
        nats = FakeNats()
        all_hosts = prepare(nats)
        for choice in path:
            nats.move(nats.moves()[choice])
        while moves := nats.moves():
            pending += [[*path, other] for other in range(1, len(moves))]
            path.append(0)
            nats.move(moves[0])
            assert sum(host.owns("c") for host in all_hosts) <= 1
        check(all_hosts)
        count += 1
    return count


def test_of_two_that_claim_at_once_one_has_it_in_every_order() -> None:
    def prepare(nats: FakeNats) -> list[Host]:
        both = hosts(nats, 2, held=True)
        run(nats)
        for host in both:
            host.enter()
        return both

    def check(both: list[Host]) -> None:
        owners = [host for host in both if host.owns("c")]
        assert len(owners) == 1
        other = both[owners[0] is both[0]]
        assert other.results == [Elsewhere(owners[0].me)]
        assert not owners[0].lost

    assert every_order(prepare, check) > 100


def test_what_an_owner_lets_go_while_another_claims_it_has_one_owner_in_every_order() -> None:
    def prepare(nats: FakeNats) -> list[Host]:
        both = hosts(nats, 2, held=True)
        both[0].enter()
        run(nats)
        both[0].leave()
        both[0].claims.drain()
        both[1].enter()
        return both

    def check(both: list[Host]) -> None:
        assert not both[0].owns("c")
        assert both[1].owns("c")
        assert both[1].lost == {"c"}

    assert every_order(prepare, check) > 3


class Front:
    def __init__(self, nats: FakeNats, name: str) -> None:
        self.bus = nats.bus(name, held=True)
        self.me = Peer(name, "0")
        self.lookup = Lookup()
        self.open: dict[int, tuple[str, int]] = {}
        """The session of each request, and how often it was refused."""
        self.bus.watch(self._connected, lambda: None)

    def _connected(self) -> None:
        self.bus.subscribe(SUBJECTS.all_owned("a"), self._on_owned)

    def _on_owned(self, delivery: Delivery) -> None:
        host = SUBJECTS.peer_at_end(delivery.subject)
        assert host is not None
        self.lookup.heard("a", host, delivery.data)

    def hears_of(self, session: str) -> bool:
        """Whether something about a conversation is on its way to it."""
        return any(said_of(each, session) for each in self.bus.told)


def said_of(item: object, session: str) -> bool:
    """Whether an item of a queue says who has come to own a conversation."""
    message = item.delivery if isinstance(item, Deliver) else item
    if not isinstance(message, Delivery | Publish):
        return False
    return message.subject.startswith("gw.own.") and digest_of(session) in digests(message.data)


SESSIONS = ("c", "d")


class Fleet:
    """Two fronts and three hosts. Fronts send requests, which hosts claim conversations for; every
    step of every connection is taken in an order that is chosen, connections end and come back, and
    whoever's steps are not chosen stands still."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.seen: Counter[str] = Counter()
        """What has happened, and how often."""
        self.nats = FakeNats()
        self.hosts = [Host(self.nats, f"h{number}") for number in range(3)]
        self.fronts = [Front(self.nats, f"f{number}") for number in range(2)]
        self.turns: Counter[str] = Counter()
        """The requests of each conversation that were given to workers."""
        self.unheard: set[str] = set()
        """Conversations of which it was never heard who came to own them: a connection ended in
        the moment in which that was said. Then it may be taken for kept, or for new."""
        self.born = 0
        self.stopped: FakeBus | None = None
        run(self.nats)

    # What requests go through; what is between fronts and hosts keeps no order here

    @property
    def host(self) -> Host:
        return self.rng.choice(self.hosts)

    def send(self) -> None:
        """To the host that had it, or to any: what a front believes cannot make two owners."""
        front, session = self.rng.choice(self.fronts), self.rng.choice(SESSIONS)
        last = front.lookup.last("a", session)
        hosts = [host for host in self.hosts if host.me == last]
        self._send(front, hosts[0] if hosts and self.rng.random() < 0.5 else self.host, session)

    def _send(self, front: Front, host: Host, session: str) -> None:
        listens = host.bus in self.nats.listeners(SUBJECTS.owned("a", front.me))
        if not listens or host.claims._draining:
            return
        if front.hears_of(session):
            self.unheard.add(session)
        had = front.lookup.last("a", session)

        def settle(result: Conversation | Elsewhere) -> None:
            if isinstance(result, Conversation):
                self._give(front, host, result)
            else:
                self.seen["refused" if result.owner else "unanswered"] += 1

        host.claims.enter("a", session, None if had is None else str(had), settle)

    def _give(self, front: Front, host: Host, conversation: Conversation) -> None:
        session = conversation.session
        host.open.append(conversation)
        told = "lost" if session in host.lost else "kept" if session in host.turns else "new"
        if host.bus.connection is None:
            self.seen["given unknowingly"] += 1
            return  # and its front has given up the host
        self.seen[told] += 1
        if session not in self.unheard:
            self.seen[f"{told}, and checked"] += 1
            if told == "kept":
                assert host.turns[session] == self.turns[session]
            if told == "new" and not host.was_cut:
                assert self.turns[session] == 0
        host.lost.discard(session)
        self.turns[session] += 1
        host.turns[session] = self.turns[session]
        front.lookup.note("a", session, host.me)

    def end(self) -> None:
        host = self.host
        if host.open:
            host.open.append(host.open.pop(0))
            host.leave()

    def tick(self) -> None:
        for host in self.hosts:
            if host.bus is not self.stopped:
                host.claims.tick()

    # NATS

    def move(self) -> None:
        for _ in range(self.rng.randrange(1, 4)):
            moves = [move for move in self.nats.moves() if move[0] is not self.stopped]
            if moves:
                self.nats.move(self.rng.choice(moves))

    def stop(self) -> None:
        """One host at a time reads nothing, and nothing that it said is read."""
        self.stopped = self.rng.choice([None, self.host.bus])

    def quiet(self) -> None:
        self.stopped = None
        run(self.nats)

    def _note_unheard(self, bus: FakeBus) -> None:
        said = [*bus.told, *(bus.connection.said if bus.connection else ())]
        self.unheard.update(s for s in SESSIONS if any(said_of(each, s) for each in said))

    def cut(self) -> None:
        """What the server has sent may have arrived, and is then read before the end is."""
        host = self.host
        if host.bus.connection is None:
            return
        host.was_cut = True
        self._note_unheard(host.bus)
        arrived = list(host.bus.told)
        self.nats.cut(host.bus)
        if self.rng.random() < 0.5:
            host.bus.told.extendleft(reversed(arrived))

    def restore(self) -> None:
        self.nats.restore(self.host.bus)

    def restart_nats(self) -> None:
        for bus in [each.bus for each in self.hosts] + [each.bus for each in self.fronts]:
            self._note_unheard(bus)
        for host in self.hosts:
            host.was_cut = True
        self.nats.stop()
        self.nats.start()

    def restart_host(self) -> None:
        index = self.rng.randrange(len(self.hosts))
        self._note_unheard(self.hosts[index].bus)
        self.nats.cut(self.hosts[index].bus)
        run(self.nats)
        self.born += 1
        self.hosts[index] = Host(self.nats, f"h{index}n{self.born}")
        self.hosts[index].was_cut = True  # it has missed what was said before

    def drain(self) -> None:
        self.host.claims.drain()

    STEPS = (
        (move, 60),
        (send, 15),
        (end, 12),
        (tick, 8),
        (cut, 2),
        (restore, 4),
        (stop, 2),
        (quiet, 1),
        (restart_nats, 0.2),
        (restart_host, 0.3),
        (drain, 0.2),
    )

    def walk(self, count: int) -> None:
        steps, weights = zip(*self.STEPS, strict=True)
        for step in self.rng.choices(steps, weights, k=count):
            step(self)
            for session in SESSIONS:
                owners = [host for host in self.hosts if host.owns(session)]
                assert len(owners) <= 1, owners
        self.finish()

    def finish(self) -> None:
        """When nobody stands still, every request is given to a worker, or told who has it."""
        for host in self.hosts:
            self.nats.restore(host.bus)
        for _ in range(2):
            run(self.nats)
            for host in self.hosts:
                host.claims.tick()
        run(self.nats)
        for host in self.hosts:
            assert not host.claims._claiming
            assert sum(host.owns(session) for session in SESSIONS) == host.claims.owned
            self.seen["moved"] += len(host.moved)


def test_a_conversation_never_has_two_owners_whatever_comes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.fleet.ownership.PATIENCE", 2)
    seen: Counter[str] = Counter()
    for seed in range(200):
        fleet = Fleet(random.Random(seed))
        try:
            fleet.walk(200)
        except AssertionError as error:
            raise AssertionError(f"with seed {seed}") from error
        seen += fleet.seen
    for what in (
        "new, and checked",
        "kept, and checked",
        "lost, and checked",
        "refused",
        "unanswered",
        "moved",
        "given unknowingly",
    ):
        assert seen[what] > 2, (what, seen)
