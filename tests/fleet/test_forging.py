"""Hosts that are not trusted, by the NATS configuration that is shipped: each has a user of its
own, whose permissions keep it from speaking, or listening, for another."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
import trio

from gateway.fleet.background import ENDED, AwayError, Outcome, Record, Store
from gateway.fleet.jetstream import PIECE
from gateway.fleet.messages import Submit
from gateway.fleet.subjects import Peer, Subjects
from tests.deploy.conftest import PROJECT, tool
from tests.fleet.buses import Heard, running, settings
from tests.fleet.fleets import a_fleet
from tests.fleet.nats import NatsServer, needs_nats

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nats.js import JetStreamContext

    from gateway.config import FleetSettings
    from gateway.fleet.nats_bus import NatsBus

pytestmark = needs_nats

DEPLOY = PROJECT / "gateway" / "deploy"

S = Subjects()
FRONT, SELF, OTHER = (Peer(name, "n1") for name in ("front", "host1", "host2"))


class Shipped:
    """A server with the shipped configuration, and how its users log in."""

    def __init__(self, nats: NatsServer, secrets: Path) -> None:
        self.nats = nats
        self._ca = secrets / "ca.pem"
        lines = (secrets / "environment").read_text().split()
        self._passwords = dict(line.split("=") for line in lines)

    def password(self, user: str) -> str:
        return self._passwords[f"{user.upper()}_PASSWORD"]

    def lines(self, user: str) -> str:
        """Of `[fleet]`."""
        return f'user = "{user}"\npassword = "{self.password(user)}"\nca = "{self._ca}"'

    def settings(self, user: str) -> FleetSettings:
        login = {"user": user, "password": self.password(user), "ca": str(self._ca)}
        return settings(self.nats.tls_url, **login)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shipped]:
    folder = tmp_path_factory.mktemp("fleet")
    subprocess.run(
        ["sh", str(DEPLOY / "fleet-secrets.sh"), "nats.example", "front", "host1", "host2"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    secrets = folder / "nats"
    text = (DEPLOY / "nats-server.conf").read_text(encoding="utf-8")
    for written, here in (
        ("/etc/nats/", f"{secrets}/"),
        ("/var/lib/nats", f"{folder}/store"),
        ('listen: "0.0.0.0:4222"', ""),
        ('http: "127.0.0.1:8222"', 'http: "127.0.0.1:-1"'),
    ):
        assert written in text
        text = text.replace(written, here)
    nats = NatsServer(text)
    shutil.copy(secrets / "passwords.conf", nats.folder)  # is included from the folder beside it
    with nats:
        yield Shipped(nats, secrets)


def refusals(log: pytest.LogCaptureFixture) -> list[str]:
    """What NATS has refused, in order."""
    return [each.getMessage() for each in log.records if "may not do" in each.getMessage()]


FORGED = {
    "an answer of another host": S.down(FRONT, OTHER),
    "a beat of another host": S.beat(OTHER),
    "a request to another host, as a front": S.up(OTHER, FRONT),
    "a request to itself, as a front": S.up(SELF, FRONT),
    "that nobody has got a message": f"{S.undelivered(FRONT, OTHER)}.1.1",
    "that nobody has a conversation that another host claims": S.asked(OTHER, "echo.x.token"),
    "that another host owns a conversation": S.owned("echo", OTHER),
    "that it owns one of an agent that it has not": S.owned("secret", SELF),
    "a claim of such a conversation": S.conversation("secret", bytes(16)),
    "anything at all": "other.subject",
    "to the server's own account": "$SYS.REQ.SERVER.PING",
    "to JetStream": "$JS.API.STREAM.LIST",
}

LISTENED = {
    "everything": ">",
    "everything of the fleet": "gw.>",
    "requests to another host": S.ups(OTHER),
    "requests to all hosts": "gw.up.*.>",
    "answers to a front": S.downs(FRONT),
    "beats of all hosts": S.beats(),
    "answers to others": "gw.nr.>",
    "what another host is answered": S.all_undelivered(OTHER),
    "conversations of an agent that it has not": S.conversation("secret", bytes(16)),
    "conversations of all agents": "gw.c.>",
    "inboxes": "_INBOX.>",
    "JetStream": "$JS.>",
}


async def test_a_host_can_neither_speak_nor_listen_for_another(
    shipped: Shipped, caplog: pytest.LogCaptureFixture
) -> None:
    users = ("host1", "host2", "front")
    async with running(*map(shipped.settings, users)) as (forger, other, front):
        by_front = await listening(
            front, FRONT, "gw.dn.>", "gw.hb.>", "gw.up.>", "gw.own.>", S.all_undelivered(FRONT)
        )
        by_other = await listening(other, OTHER, S.ups(OTHER))
        for what, subject in FORGED.items():
            before = len(refusals(caplog))
            forger.publish(subject, b"forged")
            await answered(forger, SELF)
            assert len(refusals(caplog)) == before + 1, what
        heard = Heard()
        for what, pattern in LISTENED.items():
            before = len(refusals(caplog))
            forger.subscribe(pattern, heard)
            await answered(forger, SELF)
            assert len(refusals(caplog)) == before + 1, what
        front.publish(S.up(OTHER, FRONT), b"a request")
        other.publish(S.down(FRONT, OTHER), b"an answer")
        other.publish(S.beat(OTHER), b"a beat")
        assert [each.data for each in await by_front.wait(2)] == [b"an answer", b"a beat"]
        assert [each.data for each in await by_other.wait(1)] == [b"a request"]
        await answered(forger, SELF)
        assert heard.all == []


async def test_what_jetstream_sends_for_a_host_passes_for_no_message_of_another(
    shipped: Shipped, caplog: pytest.LogCaptureFixture
) -> None:
    """JetStream answers on whatever subject it is asked to, with no look at permissions."""
    made = map(shipped.settings, ("host1", "front"))
    inboxes = ("gw.nr.host1.n1.j", "gw.nr.front.n1.j")
    async with running(*made, inboxes=inboxes) as (forger, front):
        store = Store(front, "gw", ttl=60)
        await store.prepare()
        for token in ("t1", "t2"):
            await store.announce("echo", token)
        forged = (S.down(FRONT, OTHER), S.beat(OTHER), f"{S.undelivered(FRONT, OTHER)}.1.1")
        heard = await listening(front, FRONT, *forged)
        forger.publish("gw.done.echo.x", b"forged")
        ack = "$JS.ACK.gw_QUEUE.echo.1.1.1.0.0"
        kept, queue = "$JS.API.DIRECT.GET.gw_DONE.gw.done.echo", "gw_QUEUE.echo"
        for subject in forged:
            forger.publish(f"{kept}.x", b"", subject)
            forger.publish(f"{kept}.none", b"", subject)
            forger.publish(f"$JS.API.CONSUMER.MSG.NEXT.{queue}", b'{"no_wait": true}', subject)
            forger.publish(ack, b"+NXT", subject)
            forger.publish(ack, b"+ACK", subject)
        await answered(forger, SELF)
        await front.run(_asked)  # JetStream has answered everybody before
        await answered(front, FRONT)
        assert refusals(caplog) == []
        # What is empty is ignored by everybody, and what is another's subject is nobody's.
        assert {each.data for each in heard.all} <= {b"", b"t1", b"t2"}
        assert not any(each.subject in forged for each in heard.all if each.data)
        assert not any(each.nobody for each in heard.all)
        await front.run(_forget)


async def _forget(context: JetStreamContext) -> None:
    for stream in ("gw_QUEUE", "gw_DONE"):
        await context.purge_stream(stream)


async def _asked(context: JetStreamContext) -> None:
    await context.stream_info("gw_QUEUE")
    await context.get_last_msg("gw_DONE", "gw.done.echo.x", direct=True)


async def test_a_host_can_do_all_that_a_host_does(
    shipped: Shipped, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(shipped.settings("host1"), shipped.settings("front")) as (host, front):
        heard = await listening(
            front,
            FRONT,
            *("gw.dn.>", "gw.hb.>", "gw.c.>", "gw.own.>"),
            S.answer(FRONT, "token"),
        )
        said = [
            S.down(FRONT, SELF),
            S.beat(SELF),
            S.conversation("echo", bytes(16)),
            S.owned("echo", SELF),
            S.answer(FRONT, "token"),
        ]
        for subject in said:
            host.publish(subject, b"")
        assert [each.subject for each in await heard.wait(len(said))] == said
    async with running(shipped.settings("host1"), shipped.settings("front")) as (host, front):
        heard = await listening(
            host,
            SELF,
            S.ups(SELF),
            S.all_undelivered(SELF),
            S.conversation("echo", bytes(16)),
            S.all_owned("echo"),
        )
        said = [
            S.up(SELF, FRONT),
            f"{S.undelivered(SELF, FRONT)}.1.2",
            S.conversation("echo", bytes(16)),
            S.owned("echo", OTHER),
        ]
        for subject in said:
            front.publish(subject, b"")
        assert [each.subject for each in await heard.wait(len(said))] == said
    assert refusals(caplog) == []


async def listening(bus: NatsBus, peer: Peer, *patterns: str) -> Heard:
    """Returns when the server has the subscriptions."""
    heard = Heard()
    for pattern in patterns:
        bus.subscribe(pattern, heard)
    await answered(bus, peer)
    return heard


async def answered(bus: NatsBus, peer: Peer) -> None:
    """The server has read what was said: a claim that nobody else hears is answered by it."""
    heard = Heard()
    number = bus.subscribe(S.answer(peer, "done"), heard)
    bus.publish(S.conversation("echo", b"nobody's"), b"", S.answer(peer, "done"))
    await heard.wait(1)
    bus.unsubscribe(number)


ECHO = [tool("agent-worker"), "worker.examples.echo:agent"]


async def test_a_fleet_works_with_the_permissions_that_are_shipped(
    shipped: Shipped, tmp_path: Path
) -> None:
    async with a_fleet(
        tmp_path,
        {"echo": ECHO},
        hosts=("host1", "host2"),
        nats=shipped.nats,
        fleet_of=shipped.lines,
    ) as fleet:
        for number in range(10):
            body = {"input": number, "context": {"conversation_id": f"c{number % 3}"}}
            with trio.fail_after(20):
                answer = await fleet.front.client.post("/agent/echo/invoke", json=body)
            assert answer.status_code == 200, answer.text
        log = [
            *fleet.front.log,
            *(line for host in fleet.hosts.values() for line in host.gateway.log),
        ]
    assert not [line for line in log if "may not do" in line]


def a_job() -> tuple[Record, Submit]:
    record = Record("echo", "/", {}, b"", "http", b"x", "r", "", b"c", None, b"")
    nothing = dict.fromkeys(("conversation", "user", "total", "tools", "resume", "trace"))
    job = Submit(
        id=0,
        agent="echo",
        method="invoke",
        payload=b"1" * (2 * PIECE),
        stream=False,
        context=b"{}",
        owner="",
        request_id="r",
        events=False,
        needs=[],
        continues=False,
        **nothing,
    )
    return record, job


async def test_a_host_takes_background_runs_of_its_agents_and_has_nothing_sent_to_others(
    shipped: Shipped, caplog: pytest.LogCaptureFixture
) -> None:
    record, job = a_job()
    inboxes = [f"gw.nr.{peer}.j" for peer in (FRONT, SELF)]
    users = map(shipped.settings, ("front", "host1"))
    async with running(*users, inboxes=inboxes) as (front, host):
        at_front, at_host = (Store(bus, "gw", ttl=60) for bus in (front, host))
        await at_front.prepare()
        await at_front.keep("f0", record, job)
        await at_front.announce("echo", "f0")
        heard = await listening(front, FRONT, "gw.dn.>", "gw.taken.>", "gw.done.>", "gw.hb.>")
        assert await at_host.take("echo", str(SELF)) == "f0"
        assert await at_host.job("echo", "f0") == job
        assert await at_host.outcome("echo", "f0") is None
        await at_host.finish("echo", "f0", Outcome(b"forged", None, handed_over=True))
        assert await at_front.taken_by("echo", "f0") == ENDED
        assert await at_front.find("f0") == record
        asked = "$JS.API.DIRECT.GET.gw_DONE.gw.done.echo.f0.0"
        host.publish(asked, b"", S.down(FRONT, OTHER))
        await at_host.outcome("echo", "f0")  # which is answered after that
        host.publish(S.beat(SELF), b"")
        assert [each.subject for each in await heard.wait(4)] == [
            "gw.taken.echo.f0",
            "gw.done.echo.f0.0",
            "gw.taken.echo.f0",
            S.beat(SELF),
        ]
        with pytest.raises(AwayError):
            await at_host.find("f0")
    assert "gw.key.of.f0" in refusals(caplog)[-1]
