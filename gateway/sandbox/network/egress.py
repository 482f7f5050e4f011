"""The proxy that takes an agent to the hosts that it may reach.

This module owns what the process does that carries out an agent's network policy: one per agent
that has a network, beside the gateway, so that an agent's traffic costs the gateway nothing and its
bytes are parsed elsewhere. What a request says, and what the settings allow by name, is `targets`';
which addresses may be reached is `addresses`'; how connections of workers come here is `inlets`'.

The proxy speaks HTTP CONNECT, which HTTP clients use for https: the agent names a host and a port,
and gets a tunnel or a refusal. Where the settings name `http://host:port`, it passes on requests
without TLS as well: the first of a connection is sent in the form for an origin server, and what
follows is a tunnel to that host, which is asked to close it after its answer. Each connection is
one record (`audit`): at its end, or before it is refused.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import trio

from gateway.sandbox.network import inlets
from gateway.sandbox.network.addresses import THIS_MACHINE, Unreachable, connect, why_refused
from gateway.sandbox.network.audit import Auditor, Record
from gateway.sandbox.network.targets import (
    Policy,
    ProxyRefusal,
    not_allowed,
    parse_request,
    without_wildcard,
)
from gateway.tracebacks import cut_causes

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.sandbox.network.addresses import Address
    from gateway.sandbox.network.audit import Verdict
    from gateway.sandbox.network.targets import Asked

MAX_HEAD = 8192
"""Bytes of a request's head. A CONNECT needs a few hundred."""
HEAD_TIMEOUT = 10.0
"""Seconds for a head to arrive. The client is on the same machine."""
CONNECT_TIMEOUT = 15.0
"""Seconds for resolving and connecting, fewer than clients commonly wait."""
MAX_TUNNELS = 64
"""Tunnels of one worker at a time. Further connections wait to be accepted."""
CHUNK = 65536
"""Bytes that a tunnel forwards at once."""

NOTHING = Policy(())
"""What is allowed before the gateway has said it."""


class Tunnel:
    """One connection of an agent, from its request to its record."""

    def __init__(self, worker: int = 0) -> None:
        self.scope = trio.CancelScope()
        self.asked: Asked | None = None
        """What the agent has asked for, once it has."""
        self.pattern = ""
        """The pattern of the settings that allows it by name."""
        self._address: Address | None = None
        self._policy = NOTHING
        self._worker = worker
        self._began = trio.current_time()
        self._verdict: Verdict = "failed"
        self._rule, self._status, self._why = "", 0, "the agent left before it was answered"
        self._sent = self._received = 0

    def allow(self, asked: Asked, policy: Policy) -> str | None:
        """Judge the tunnel by a policy; returns why it must not be, or None if it may."""
        self.asked, self._policy = asked, policy
        plain = bool(asked.head)
        pattern = policy.match(asked.host, asked.port, plain=plain)
        if pattern is None:
            return not_allowed(asked.host, asked.port, plain=plain)
        self.pattern = pattern
        return None if self._address is None else self.lead_to(self._address)

    def lead_to(self, address: Address) -> str | None:
        """Judge the address of the host; returns why it must not be reached, or None if it may."""
        assert self.asked is not None
        self._address = address
        named, policy = without_wildcard(self.pattern), self._policy
        why = why_refused(address, by_name=named)
        if why == THIS_MACHINE and named and policy.allow_local:
            why = "it is the gateway itself" if self.asked.port in policy.own_ports else None
        return None if why is None else f"{self.asked.host} is {address}: {why}"

    def opened(self) -> None:
        self._verdict, self._rule, self._status, self._why = "allowed", self.pattern, 200, ""

    def refused(self, refusal: ProxyRefusal) -> None:
        self._verdict = "refused" if refusal.status < 500 else "failed"
        self._rule, self._status, self._why = refusal.rule, refusal.status, str(refusal)

    def close(self, why: str) -> None:
        """End the tunnel, or the attempt to open it, since the settings have changed."""
        self._why = f"closed: {why}"
        self.scope.cancel()

    def count_sent(self, number: int) -> None:
        self._sent += number

    def count_received(self, number: int) -> None:
        self._received += number

    def record(self) -> Record:
        asked = self.asked
        return Record(
            at="network",
            name="" if asked is None else f"{asked.host}:{asked.port}",
            verdict=self._verdict,
            rule=self._rule,
            method="" if asked is None else asked.method,
            status=self._status,
            sent=self._sent,
            received=self._received,
            duration=trio.current_time() - self._began,
            worker=self._worker,
            why=self._why,
        )


class Egress:
    """Tunnels from an agent's workers to the hosts that its settings allow: an `inlets.Handler`."""

    def __init__(self, auditor: Auditor, policy: Policy = NOTHING) -> None:
        self._auditor = auditor
        self._policy = policy
        self._tunnels: set[Tunnel] = set()

    def change(self, rules: dict[str, Any]) -> None:
        """Obey another list of hosts, and close the tunnels that it does not allow."""
        self._policy = policy = Policy(
            tuple(rules["network"]),
            allow_local=rules.get("allow_local", False),
            own_ports=frozenset(rules.get("ports", ())),
        )
        for tunnel in self._tunnels:
            if tunnel.asked and (why := tunnel.allow(tunnel.asked, policy)) is not None:
                tunnel.close(why)

    async def run(self) -> None:
        """There is nothing to do beside the tunnels."""

    async def serve_client(self, client: trio.SocketStream, worker: int) -> None:
        """Serve one connection of an agent, from its request to the end of its tunnel.

        Raises trio.BrokenResourceError when the agent or the other end is gone before the tunnel is
        open.
        """
        tunnel = Tunnel(worker)
        refusal: ProxyRefusal | None = None
        async with client:
            self._tunnels.add(tunnel)
            try:
                with tunnel.scope:
                    refusal = await self._serve(client, tunnel)
            finally:
                self._tunnels.remove(tunnel)
                # Before the answer: whoever has that may look for the record at once.
                self._auditor.note(tunnel.record())
            if refusal is not None:
                await _answer(client, refusal.status, str(refusal))

    async def _serve(self, client: trio.SocketStream, tunnel: Tunnel) -> ProxyRefusal | None:
        """Serve the tunnel to its end; returns what to answer if there may be none."""
        try:
            with trio.fail_after(HEAD_TIMEOUT):
                head, rest = await _read_head(client)
            asked = parse_request(head)
            if (why := tunnel.allow(asked, self._policy)) is not None:
                raise ProxyRefusal(403, why, rule="network")
            with trio.fail_after(CONNECT_TIMEOUT):
                upstream = await open_upstream(tunnel)
        except (ProxyRefusal, trio.TooSlowError) as error:
            too_slow = ProxyRefusal(504, "it took too long", rule="connect")
            refusal = error if isinstance(error, ProxyRefusal) else too_slow
            tunnel.refused(refusal)
            return refusal
        async with upstream:
            tunnel.opened()
            if not asked.head:
                await client.send_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await upstream.send_all(asked.head + rest)
            tunnel.count_sent(len(rest))
            async with trio.open_nursery() as nursery:
                end = nursery.cancel_scope
                nursery.start_soon(_pass_on, client, upstream, tunnel.count_sent, end)
                nursery.start_soon(_pass_on, upstream, client, tunnel.count_received, end)
        return None


async def open_upstream(tunnel: Tunnel) -> trio.SocketStream:
    """A connection to what the agent asked for, which was allowed by name. Raises ProxyRefusal."""
    assert tunnel.asked is not None
    try:
        return await connect(tunnel.asked.host, tunnel.asked.port, tunnel.lead_to)
    except Unreachable as error:
        if error.refused:
            raise ProxyRefusal(403, str(error), rule="address") from None
        raise ProxyRefusal(502, str(error)) from None


async def _read_head(client: trio.SocketStream) -> tuple[bytes, bytes]:
    received = b""
    while b"\r\n\r\n" not in received:
        if len(received) > MAX_HEAD:
            raise ProxyRefusal(431, "the head is too long")
        more = await client.receive_some(MAX_HEAD)
        if not more:
            raise ProxyRefusal(400, "the request ended within its head")
        received += more
    head, _, rest = received.partition(b"\r\n\r\n")
    return head, rest


async def _answer(client: trio.SocketStream, status: int, reason: str) -> None:
    """Refuse a request. The reason stands in the status line too: HTTP clients show only that."""
    body = reason.encode("ascii") + b"\n"
    head = (
        f"HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    with contextlib.suppress(trio.BrokenResourceError), trio.move_on_after(HEAD_TIMEOUT):
        await client.send_all(head.encode("ascii") + body)


async def _pass_on(
    source: trio.SocketStream,
    target: trio.SocketStream,
    count: Callable[[int], None],
    tunnel: trio.CancelScope,
) -> None:
    """Forward one direction of a tunnel. Its end is passed on, its failure ends both directions."""
    try:
        while data := await source.receive_some(CHUNK):
            await target.send_all(data)
            count(len(data))
        await target.send_eof()
    except trio.BrokenResourceError as error:
        cut_causes(error)
        tunnel.cancel()


def main() -> None:
    """The program of the process; its arguments are those of `inlets.main`."""
    inlets.main(Egress, max_clients=MAX_TUNNELS)
