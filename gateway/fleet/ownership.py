"""Which host has a conversation: hosts claim them. Fronts look them up (`lookup`).

No tasks, no time. "Conversation" is short for the session of `gateway.call.session_key`,
whatever it keeps together.

Theory of operation
-------------------

A conversation is owned by the host whose connection has the one subscription to its subject. A
host *claims* it so: it subscribes, and then asks on the same subject who else has it. Its own
subscription does not count (`no_echo`), so NATS says "nobody" if and only if there is no other.

    AWAY ── enter ──> CLAIMING ── "nobody" ──> OWNED ── left while draining, forgotten ──> AWAY
      ^                │     ^                   │
      └── an owner ────┘     └── reconnected <───┴── the connection is lost ──> AWAY
          answers                 with requests                without

**Never two.** Only "nobody" makes an owner, and only while the subscription that came before the
question stands, on the same connection. The server takes all subscriptions and questions in some
order. Of two owners, one has subscribed first; it still did when the other asked, and the other was
not told "nobody". Answers make no owner, however many there are: a third one may be silent. And
only NATS can say "nobody": it does so on a subject of its own (`Subjects.asked`), on which no host
may publish, while answers have another.

**Progress.** Whoever is asked and owns the conversation says so, and the one who asks gives up. Of
two that claim at once each is asked by the other, or one of them has asked before the other
subscribed. Ranks decide: the lower one says that it goes on; the other takes its subscription back
*and then* answers "not me", upon which the first asks again. Nothing hangs on any one answer: who
gets none asks again with the next beat (`tick`), and gives up after `PATIENCE` of them. The one
thing that does not pass by itself is an owner that does not run: its conversations wait until NATS
ends its connection, which is what `ping_interval` is for.

**No lease.** Ownership ends with the connection, as the server sees it. A host that was cut off
learns it later, and meanwhile nothing that it is sent arrives. What had arrived before may still be
given to a worker: the front of that request has given the host up before anybody else could claim.
A request that is under way when the connection is lost goes on if the host can claim its
conversation again; if it cannot, another has it, and the request is ended (`moved`).

**What was known.** A host says what it has come to own (`Subjects.owned`). Whoever hears of another
host forgets what it knew of the conversation itself (`displaced`): it will be told that its worker
is lost. A host that has been without a connection may have missed that. Then what it knows counts
only if the front says that this host had the conversation last (`Submit.had`); and it says nothing
of what it has come to own by a claim for requests that go on, which might make fronts forget.

In a cluster of NATS servers a subscription takes a moment to be known to the others, and two hosts
at two servers may both be told "nobody" in that moment. Then each hears of the other by
`Subjects.owned`, and the one with the greater id gives the conversation up.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import msgspec

from gateway.fleet.conversation import Agent, Conversation, Elsewhere, State
from gateway.fleet.lookup import REMEMBERED, digests
from gateway.fleet.messages import NO_MESSAGE, Claim
from gateway.fleet.subjects import Peer, digest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from gateway.fleet.bus import Bus, Delivery
    from gateway.fleet.subjects import Subjects

PATIENCE = 8
"""Beats until a claim is given up to which there is no answer: 1.6 s. The front waits for 2."""

MOST_AT_ONCE = 4
"""Questions of one claim in one beat: each "not me" is followed by another, and an owner at the
same agent that is not honest must not keep two hosts busy."""

MOST_LOOKED_AT = 8
"""Conversations that are looked at to forget one, for each that is new: those that have requests
stay, and there may be thousands of them."""

_claim_decoder = msgspec.msgpack.Decoder(Claim)


class Claims:
    """The conversations of one host. `tick` is to be called with each beat.

    It must watch the bus before whatever receives requests does: what a front says of the past is
    of use only if everything that follows is heard.

    `displaced(agent, session)`: whatever the agent's pool knows of it counts no more, and it is to
    be told "lost" when it goes on here. `moved(agent, session)`: another host has it now, and its
    requests here must end. Both are called from within any method and any delivery.
    """

    def __init__(
        self,
        me: Peer,
        subjects: Subjects,
        bus: Bus,
        *,
        displaced: Callable[[str, str], None],
        moved: Callable[[str, str], None],
    ) -> None:
        self._me = me
        self._subjects = subjects
        self._bus = bus
        self._displaced = displaced
        self._moved = moved
        self._agents: dict[str, Agent] = {}
        self._claiming: dict[Conversation, None] = {}
        self._draining = False
        self._ending = False
        self._connected = False
        self.owned = 0
        """How many this host has."""
        bus.watch(self._on_connected, self._on_lost)

    def __repr__(self) -> str:
        return f"<Claims of {self._me}: {self.owned} owned, {len(self._claiming)} claimed>"

    # What the host does

    def serve(self, agents: Collection[str]) -> None:
        """These are the host's agents now: hear of their conversations."""
        for agent in agents:
            if agent not in self._agents:
                self._add(agent)
        if len(self._agents) > len(agents):
            for agent in self._agents.keys() - agents:
                self._remove(agent)

    def _add(self, agent: str) -> Agent:
        its = self._agents[agent] = Agent()
        if self._connected:
            self._listen(agent, its)
        return its

    def _remove(self, agent: str) -> None:
        its = self._agents.pop(agent)
        if self._connected:
            self._bus.unsubscribe(its.subscription)
        for each in list(its.ours.values()):
            self._let_go(each)
            self._settle(each, Elsewhere(None))

    def enter(
        self,
        agent: str,
        session: str,
        had: str | None,
        settle: Callable[[Conversation | Elsewhere], None],
    ) -> None:
        """A request of a conversation has come, for which the front has said `had`.

        `settle` is called once, now or later: with the Conversation, if the host has it, and then
        `leave` has to be called when the request ends; otherwise with who has it.
        """
        its = self._agents.get(agent) or self._add(agent)
        digest = digest_of(session)
        conversation = its.ours.get(digest)
        is_new = conversation is None
        if conversation is None:
            conversation = its.ours[digest] = Conversation(agent, session, digest)
        else:
            its.ours.move_to_end(digest)
        conversation.had = had or conversation.had
        if conversation.state is State.OWNED:
            if not conversation.sure:
                self._recall(its, conversation)
                self._announce(conversation)
            conversation.users += 1
            settle(conversation)
            return
        conversation.waiters.append(settle)
        if conversation.state is State.AWAY:
            self._claim(conversation)
        if is_new:
            self._bound(its)

    def leave(self, conversation: Conversation, *, release: bool = False) -> bool:
        """A request that was told that the host has the conversation has ended. `release`: this
        host cannot serve it, and another may. Returns whether this host still has it, be it for
        other requests."""
        conversation.users -= 1
        if conversation.state is not State.OWNED:
            return False
        if conversation.users or (conversation.known and not release and not self._draining):
            return True
        self._let_go(conversation)
        return False

    def drain(self, *, ending: bool = False) -> None:
        """Let others have every conversation as soon as it has no request here. `ending`: and take
        no request of it before."""
        self._ending = self._ending or ending
        if self._draining:
            return
        self._draining = True
        for its in self._agents.values():
            for conversation in its.ours.values():
                if conversation.state is State.OWNED and not conversation.users:
                    self._let_go(conversation)

    def tick(self) -> None:
        """Ask again where there was no answer."""
        if not self._connected:
            return
        for conversation in list(self._claiming):
            conversation.beats += 1
            conversation.asked = 0
            if conversation.beats <= PATIENCE:
                self._ask(conversation)
            elif conversation.users:  # its requests go on, and nobody has said that it is theirs
                self._ask(conversation)
                self._settle(conversation, Elsewhere(None))
            else:
                self._withdraw(conversation, Elsewhere(None))

    # The connection

    def _on_connected(self) -> None:
        self._connected = True
        self._bus.subscribe(self._subjects.all_asked(self._me), self._on_nobody)
        self._bus.subscribe(self._subjects.answers(self._me), self._on_answer)
        for agent, its in self._agents.items():
            self._listen(agent, its)
        for conversation in self._claiming:
            self._start(conversation)

    def _on_lost(self) -> None:
        self._connected = False
        for its in self._agents.values():
            for conversation in its.ours.values():
                conversation.sure = False
                conversation.had = None  # another may have it before there is a connection again
                if conversation.state is State.OWNED:
                    self.owned -= 1
                    conversation.state = State.AWAY
                    if conversation.users:
                        self._claim(conversation)

    def _listen(self, agent: str, its: Agent) -> None:
        its.subscription = self._bus.subscribe(self._subjects.all_owned(agent), self._on_owned)

    # A claim

    def _claim(self, conversation: Conversation) -> None:
        conversation.state = State.CLAIMING
        self._claiming[conversation] = None
        if self._connected:
            self._start(conversation)

    def _start(self, conversation: Conversation) -> None:
        conversation.token = secrets.token_hex(8)
        # Who has requests of it, or knows it, is to have it before one that does not.
        conversation.rank = 0 if conversation.users else 1 if conversation.known else 2
        conversation.asked = conversation.beats = 0
        conversation.subscription = self._bus.subscribe(
            self._subjects.conversation(conversation.agent, conversation.digest), self._on_claim
        )
        self._ask(conversation)

    def _ask(self, conversation: Conversation) -> None:
        conversation.asked += 1
        self._bus.publish(
            self._subjects.conversation(conversation.agent, conversation.digest),
            msgspec.msgpack.encode(Claim(conversation.rank, str(self._me))),
            self._subjects.asked(
                self._me,
                f"{conversation.agent}.{conversation.digest.hex()}.{conversation.token}",
            ),
        )

    def _on_nobody(self, delivery: Delivery) -> None:
        """NATS has found nobody to ask."""
        conversation = self._claimed(delivery)
        if conversation is not None and delivery.nobody:
            self._win(conversation)

    def _on_answer(self, delivery: Delivery) -> None:
        """One who was asked has answered."""
        conversation = self._claimed(delivery)
        if conversation is None:
            return
        if not delivery.data:
            if conversation.asked < MOST_AT_ONCE:
                self._ask(conversation)
        else:
            owner = Peer.parse(delivery.data.decode("ascii", "replace"))
            if owner is not None:
                self._lose(conversation, owner)

    def _win(self, conversation: Conversation) -> None:
        its = self._agents[conversation.agent]
        del self._claiming[conversation]
        conversation.state = State.OWNED
        self.owned += 1
        if conversation.waiters or not conversation.users or conversation.digest in its.elsewhere:
            self._recall(its, conversation)
        # Else it was claimed for requests that go on: the next one says what its front knows.
        self._settle(conversation, conversation)
        conversation.known = conversation.known or conversation.users > 0
        if not conversation.known:
            # Refused by the agent: whoever gets it instead is not to be told that it was lost.
            self._let_go(conversation)
            its.ours.pop(conversation.digest, None)
        elif conversation.sure and conversation.state is State.OWNED:
            self._announce(conversation)
            if self._draining and not conversation.users:
                self._let_go(conversation)

    def _recall(self, its: Agent, conversation: Conversation) -> None:
        """Decide whether what the pool knows of a conversation that is owned counts."""
        had, conversation.had = conversation.had, None
        displaced = its.elsewhere.pop(conversation.digest, None) is not None
        if not conversation.sure and not displaced:
            displaced = conversation.known if had is None else had != str(self._me)
        conversation.sure = True
        if displaced:
            if conversation.users:
                self._moved(conversation.agent, conversation.session)
            self._displaced(conversation.agent, conversation.session)

    def _lose(self, conversation: Conversation, owner: Peer) -> None:
        """Another has the conversation, or the better claim."""
        self._withdraw(conversation, Elsewhere(owner))

    def _withdraw(self, conversation: Conversation, why: Elsewhere) -> None:
        del self._claiming[conversation]
        conversation.state = State.AWAY
        if self._connected:
            self._bus.unsubscribe(conversation.subscription)
        if why.owner is not None:
            self._had_by(conversation.agent, conversation.digest, why.owner)
        elif not conversation.known:
            self._agents[conversation.agent].ours.pop(conversation.digest, None)
        self._settle(conversation, why)

    def _settle(self, conversation: Conversation, what: Conversation | Elsewhere) -> None:
        waiters, conversation.waiters = conversation.waiters, []
        if what is conversation:
            conversation.users += len(waiters)
        for settle in waiters:
            settle(what)

    # What others say

    def _on_claim(self, delivery: Delivery) -> None:
        """Another host claims a conversation that this one has, had a moment ago, or claims."""
        try:
            claim = _claim_decoder.decode(delivery.data)
        except NO_MESSAGE:
            return
        other = Peer.parse(claim.host)
        # It is answered as this host, and so only where it can be a claimant's.
        reply = None if other is None else self._subjects.answer_to(other, delivery.reply)
        if other is None or reply is None:
            return
        conversation = self._find(*delivery.subject.rsplit(".", 2)[1:])
        if conversation is not None and conversation.state is State.CLAIMING:
            if (claim.rank, other) < (conversation.rank, self._me):
                self._lose(conversation, other)
            else:
                self._bus.publish(reply, str(self._me).encode())
                return
        mine = conversation is not None and conversation.state is State.OWNED
        if mine and self._ending:
            return  # it can be asked again when the last request here has ended
        self._bus.publish(reply, str(self._me).encode() if mine else b"")

    def _on_owned(self, delivery: Delivery) -> None:
        """Another host has come to own conversations."""
        host = self._subjects.peer_at_end(delivery.subject)
        agent = delivery.subject.rsplit(".", 3)[1]
        if host is None or agent not in self._agents:
            return
        if delivery.subject != self._subjects.owned(agent, host):
            return  # a fleet's whose prefix begins with this one's
        for digest in digests(delivery.data):
            conversation = self._agents[agent].ours.get(digest)
            if conversation is not None and conversation.state is State.OWNED:
                # Only in a cluster: both were told "nobody".
                if self._me < host:
                    self._announce(conversation)
                    continue
                self._let_go(conversation)
            self._had_by(agent, digest, host)

    def _had_by(self, agent: str, digest: bytes, host: Peer) -> None:
        """Another host has had a conversation after this one."""
        its = self._agents[agent]
        its.elsewhere[digest] = host
        its.elsewhere.move_to_end(digest)
        if len(its.elsewhere) > REMEMBERED:
            its.elsewhere.popitem(last=False)
        conversation = its.ours.get(digest)
        if conversation is None or conversation.state is State.CLAIMING:
            return  # the claim will be answered
        del its.ours[digest]
        if conversation.users:
            self._moved(agent, conversation.session)
        if conversation.known:
            self._displaced(agent, conversation.session)

    def _announce(self, conversation: Conversation) -> None:
        subject = self._subjects.owned(conversation.agent, self._me)
        self._bus.publish(subject, conversation.digest)

    # Small things

    def _claimed(self, delivery: Delivery) -> Conversation | None:
        """What this host claims and was told of; None: it claims that no more."""
        agent, digest, token = delivery.subject.rsplit(".", 3)[1:]
        its = self._find(agent, digest)
        if its is None or its.token != token or its.state is not State.CLAIMING:
            return None
        return its

    def _find(self, agent: str, digest: str) -> Conversation | None:
        its = self._agents.get(agent)
        try:
            return None if its is None else its.ours.get(bytes.fromhex(digest))
        except ValueError:
            return None

    def _let_go(self, conversation: Conversation) -> None:
        """Own it no more, or give up the claim. What is known of it stays."""
        if conversation.state is State.OWNED:
            self.owned -= 1
        self._claiming.pop(conversation, None)
        if conversation.state is not State.AWAY and self._connected:
            self._bus.unsubscribe(conversation.subscription)
        conversation.state = State.AWAY

    def _bound(self, its: Agent) -> None:
        """Forget the longest unused, if there are too many."""
        for _ in range(MOST_LOOKED_AT):
            if len(its.ours) <= REMEMBERED:
                break
            digest, oldest = next(iter(its.ours.items()))
            if oldest.users or oldest.waiters or oldest.state is State.CLAIMING:
                its.ours.move_to_end(digest)
                continue
            self._let_go(oldest)
            del its.ours[digest]
            if oldest.known:
                self._displaced(oldest.agent, oldest.session)
