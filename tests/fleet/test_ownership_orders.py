"""Claims of conversations in every order of the steps that there is, and on random walks."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from gateway.fleet.bus import Delivery
from gateway.fleet.conversation import Conversation, Elsewhere
from gateway.fleet.lookup import Lookup, digests
from gateway.fleet.subjects import Peer, digest_of
from tests.fleet.claimants import SUBJECTS, Host, hosts, run
from tests.fleet.fakes import Deliver, FakeNats, Publish

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fleet.fakes import FakeBus


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
