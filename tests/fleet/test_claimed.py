"""Sessions at both ends: a host that claims them for its agents, and a front that asks for them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec
import pytest
import trio
from trio.testing import MockClock

from gateway.config import FleetSettings
from gateway.errors import AgentUnavailable
from gateway.fleet.bus import Delivery
from gateway.fleet.conversation import Conversation, Elsewhere
from gateway.fleet.messages import (
    Cancel,
    Claim,
    Error,
    Failed,
    Given,
    Leaving,
    Left,
    Refused,
    Submit,
)
from gateway.fleet.nats_bus import NatsBus
from gateway.fleet.ownership import PATIENCE, Claims
from gateway.fleet.pipe import Ended, Why
from gateway.fleet.subjects import Peer, Subjects, digest_of
from tests.fleet.front_scene import SUBJECTS, ScriptedHost, a_call, a_scene, description
from tests.fleet.host_scene import Scene, a_front
from tests.fleet.nats import NatsServer, needs_nats

OTHER = Peer("other", "0")


async def owned_elsewhere(scene: Scene) -> None:
    """Another host owns the conversation "c"."""
    other = scene.nats.bus("other")
    subject = Subjects().conversation("a", digest_of("c"))

    def answer(claim: Delivery) -> None:
        claimant = Peer.parse(msgspec.msgpack.decode(claim.data, type=Claim).host)
        told = claimant and SUBJECTS.answer_to(claimant, claim.reply)
        assert told is not None
        other.publish(told, str(OTHER).encode())

    other.subscribe(subject, answer)
    await scene.nats.settled()


async def test_a_session_is_claimed_before_its_request_is_submitted(
    autojump_clock: MockClock,
) -> None:
    async with a_front(session="sticky") as scene:
        scene.submit(1, conversation="c")
        assert not scene.front.requests
        given, _ = await scene.said()
        assert isinstance(given, Given)
        assert given.session == "new"
        scene.submit(2, "hold", conversation="c")
        assert scene.front.requests  # at once
        scene.worker.answers(scene.exchange(2))
        given, _ = await scene.said()
        assert isinstance(given, Given)
        assert given.session == "kept"
        scene.submit(3)
        assert isinstance((await scene.said())[0], Given)
        assert scene.claims.owned == 1


async def test_a_session_that_another_host_had_is_lost(autojump_clock: MockClock) -> None:
    async with a_front(session="exclusive") as scene:
        scene.submit(1, conversation="c", had=str(OTHER))
        given, _ = await scene.said()
        assert isinstance(given, Given)
        assert given.session == "lost"


@pytest.mark.parametrize("session", ["sticky", "exclusive"])
async def test_a_session_that_another_host_has_had_since_is_lost(
    autojump_clock: MockClock, session: str
) -> None:
    async with a_front(session=session) as scene:
        scene.submit(1, conversation="c")
        await scene.said()
        scene.claims.drain()
        other = scene.nats.bus("other")
        other.publish(Subjects().owned("a", OTHER), digest_of("c"))
        await scene.said()
        scene.submit(2, conversation="c")
        given, _ = await scene.said()
        assert isinstance(given, Given)
        assert given.session == "lost"


async def test_a_request_whose_session_another_host_has_is_referred_to_it(
    autojump_clock: MockClock,
) -> None:
    async with a_front(session="sticky") as scene:
        await owned_elsewhere(scene)
        scene.submit(1, conversation="c")
        [refused] = await scene.said()
        assert isinstance(refused, Refused)
        assert (refused.owner, refused.elsewhere) == (str(OTHER), True)
        assert not scene.dispatcher.open


async def test_a_request_whose_session_nobody_answers_for_is_refused(
    autojump_clock: MockClock,
) -> None:
    async with a_front(session="sticky") as scene:
        scene.nats.bus("other").subscribe("gw.c.>", lambda _: None)
        await scene.nats.settled()
        scene.submit(1, conversation="c")
        for _ in range(PATIENCE + 1):
            assert await scene.said() == []
            scene.claims.tick()
        [refused] = await scene.said()
        assert isinstance(refused, Refused)
        assert (refused.owner, refused.elsewhere) == (None, False)
        assert refused.error.type == "agent_unavailable"


async def test_a_request_that_is_cancelled_while_its_session_is_claimed_is_not_submitted(
    autojump_clock: MockClock,
) -> None:
    async with a_front(session="sticky") as scene:
        scene.submit(1, conversation="c")
        scene.front.receive([Cancel(1)])
        scene.submit(2, conversation="d")
        scene.front.ended(Ended(1, Why.RESET, "it begins anew", 0))
        assert [type(each) for each in await scene.said()] == [Refused]
        assert not scene.dispatcher.open
        scene.claims.drain()
        assert scene.claims.owned == 0


async def test_a_host_that_ends_refuses_what_it_has_not_claimed_yet(
    autojump_clock: MockClock,
) -> None:
    async with a_front(session="sticky") as scene:
        scene.nats.hold(scene.bus)
        scene.submit(1, conversation="c")
        await scene.dispatcher.drain(1)
        scene.submit(2, conversation="d")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scene.front.take_leave)
            assert Leaving() in await scene.said()
            scene.front.receive([Left()])
            scene.nats.release(scene.bus)
        assert not scene.front.requests
        said = scene.wire.said
        assert [each.id for each in said if isinstance(each, Refused) and each.elsewhere] == [1]


async def test_a_session_of_a_host_that_is_full_stays_there(autojump_clock: MockClock) -> None:
    async with a_front(session="sticky", concurrency=1, queue=0) as scene:
        scene.submit(1, "hold", conversation="c")
        await scene.said()
        scene.submit(2, conversation="c")
        [refused] = await scene.said()
        assert isinstance(refused, Refused)
        assert not refused.elsewhere
        scene.submit(3, conversation="d")  # which this host did not have before
        [refused] = await scene.said()
        assert isinstance(refused, Refused)
        assert refused.elsewhere
        assert scene.claims.owned == 1


async def test_a_host_that_drains_gives_its_sessions_away(autojump_clock: MockClock) -> None:
    async with a_front(session="sticky") as scene:
        scene.submit(1, conversation="c")
        await scene.said()
        scene.agents.agent.drain()
        scene.submit(2, conversation="c")
        [refused] = await scene.said()
        assert isinstance(refused, Refused)
        assert refused.elsewhere
        assert scene.claims.owned == 0


async def test_a_request_ends_if_another_host_has_its_session_after_a_lost_connection(
    autojump_clock: MockClock,
) -> None:
    async with a_front(session="sticky") as scene:
        scene.submit(1, "hold", conversation="c")
        scene.submit(2, "hold", conversation="d")
        await scene.said()
        scene.nats.cut(scene.bus)
        await scene.said()
        await owned_elsewhere(scene)
        scene.nats.restore(scene.bus)
        _, failed = await scene.said()
        assert isinstance(failed, Failed)
        assert (failed.id, failed.handed_over) == (1, True)
        assert "has gone on at another" in failed.error.message
        assert list(scene.front.requests) == [2]
        assert scene.claims.owned == 1


# Fronts


def sticky(host: ScriptedHost) -> None:
    host.descriptions["echo"] = description(session="sticky")


def submitted(hosts: list[ScriptedHost]) -> list[tuple[ScriptedHost, Submit]]:
    return [(host, each) for host in hosts for each in host.submitted]


async def test_a_session_goes_where_it_was_last(autojump_clock: MockClock) -> None:
    async with a_scene("h1", "h2", "h3", before=sticky) as scene:
        for host in scene.hosts * 2:
            host.bus.publish(SUBJECTS.owned("echo", host.peer), digest_of("c"))
            await scene.settle()
            await scene.submit(a_call(conversation="c"))
            assert host.submitted[-1].had == str(host.peer)
        await scene.submit(a_call())
        assert [len(host.submitted) for host in scene.hosts].count(2) == 2


async def test_a_front_remembers_who_was_given_a_session(autojump_clock: MockClock) -> None:
    async with a_scene("h1", "h2", "h3", before=sticky) as scene:
        await scene.submit(a_call(conversation="c"))
        [(host, first)] = submitted(scene.hosts)
        assert first.had is None
        host.give(session="new")
        await scene.settle()
        await scene.submit(a_call(conversation="c"))
        assert host.submitted[-1].had == str(host.peer)
        scene.kill(host)
        await scene.settle(5)
        await scene.submit(a_call(conversation="c"))
        [again] = [said for other, said in submitted(scene.hosts) if other is not host]
        assert again.had == str(host.peer)


async def test_a_front_follows_a_host_that_says_who_has_the_session(
    autojump_clock: MockClock,
) -> None:
    async with a_scene("h1", "h2", before=sticky) as scene:
        exchange = await scene.submit(a_call(conversation="c"))
        [(host, first)] = submitted(scene.hosts)
        [owner] = [each for each in scene.hosts if each is not host]
        owner.draining = True  # it has another request of this session
        await scene.settle(2)
        error = Error("agent_unavailable", "not here")
        host.wire.send(Refused(first.id, error, elsewhere=True, owner=str(owner.peer)))
        await scene.settle()
        assert owner.submitted[0].had is None
        assert not exchange.ended


async def test_hosts_that_refer_to_each_other_are_not_asked_for_ever(
    autojump_clock: MockClock,
) -> None:
    async with a_scene("h1", "h2", before=sticky) as scene:
        exchange = await scene.submit(a_call(conversation="c"))
        error = Error("agent_unavailable", "not here")
        refused: list[Submit] = []
        while not exchange.ended:
            [(host, last)] = [
                (host, each)
                for host, each in submitted(scene.hosts)
                if id(each) not in map(id, refused)
            ]
            refused.append(last)
            [other] = [each for each in scene.hosts if each is not host]
            host.wire.send(Refused(last.id, error, elsewhere=True, owner=str(other.peer)))
            await scene.settle()
        assert isinstance(exchange.error, AgentUnavailable)
        assert len(refused) == 5


# With a real server


@needs_nats
async def test_on_a_real_server_one_of_two_that_claim_at_once_has_the_conversation() -> None:
    subjects = Subjects()
    outcomes: dict[str, dict[str, Conversation | Elsewhere]] = {"h1": {}, "h2": {}}
    done = trio.Event()

    def settle(name: str, session: str, outcome: Conversation | Elsewhere) -> None:
        outcomes[name][session] = outcome
        if sum(map(len, outcomes.values())) == 2 * len(sessions):
            done.set()

    sessions = [f"c{number}" for number in range(500)]
    with NatsServer() as nats, trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            claims: dict[str, Claims] = {}
            nothing: Callable[[str, str], None] = lambda *_: None  # noqa: E731
            for name in outcomes:
                me = Peer(name, "0")
                settings = FleetSettings(role="host", servers=[nats.url])
                bus = NatsBus(settings, name=name, inbox=f"gw.nr.{me}.j")
                await nursery.start(bus.keep)
                claims[name] = Claims(me, subjects, bus, displaced=nothing, moved=nothing)
                claims[name].serve(["a"])
            for session in sessions:
                for name, its in claims.items():
                    its.enter("a", session, None, partial(settle, name, session))
            while not done.is_set():
                with trio.move_on_after(0.2):
                    await done.wait()
                for its in claims.values():
                    its.tick()
            nursery.cancel_scope.cancel()
    for session in sessions:
        owners = [name for name in outcomes if isinstance(outcomes[name][session], Conversation)]
        assert len(owners) == 1
