"""Hosts that claim conversations over a NATS server in memory, step by step."""

from __future__ import annotations

from gateway.fleet.conversation import Conversation, Elsewhere, State
from gateway.fleet.ownership import Claims
from gateway.fleet.subjects import Peer, Subjects, digest_of
from tests.fleet.fakes import FakeNats

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
