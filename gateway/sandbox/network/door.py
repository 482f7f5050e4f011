"""The door: the process through which an agent uses services whose keys it cannot have.

This module owns a request's way from an agent to a service, and the way of its answer back. What is
allowed, and what is sent instead of what came, is `rules`'; keys are taken out of answers by
`mask`; connections are `downstream`'s, towards the agent, and `upstream`'s.

# Theory of operation

*A process of its own.* An agent with services has a door, and one with a network a proxy
(`egress`): two processes, each in the same narrow sandbox (`enclosure`). The door holds keys, and
talks only to hosts that the operator has named by URL. The proxy passes on bytes of whatever host
the agent chose. Were they one process, a fault in the code of tunnels would be a way to the keys.
An agent that has services needs no network, so that few agents have both, and these pay for it.

*Keys* come over the control socket, in a file without a name (`inlets`), and nowhere else: not by
the command line, nor the environment, nor a file that this process could open. They are in no log
and no record: messages are made here, from fixed texts and what the agent itself has asked for, and
never quote an answer. The process cannot be traced, has no core, and is invisible to the agent.

*No TLS is broken open.* The agent speaks plain HTTP on its own loopback device, where nobody else
can listen, to the path `/NAME/...`. The service, and with it the host, the key and what is allowed,
is the one of that name among this agent's own: there is no other service that it could name.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import h11
import trio

from gateway.sandbox.network import inlets
from gateway.sandbox.network.audit import Record
from gateway.sandbox.network.budget import Budget, Exceeded
from gateway.sandbox.network.downstream import Downstream, Left
from gateway.sandbox.network.error_forms import encode_error
from gateway.sandbox.network.forwarding import Call, Clocks, Entry, Failed, Forwarding, connect
from gateway.sandbox.network.mask import Mask
from gateway.sandbox.network.rules import Denied, Service, Target, read_target
from gateway.sandbox.network.upstream import IDLE_SECONDS, Upstream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.config.presets import ErrorForm
    from gateway.sandbox.network.audit import Auditor

MAX_CLIENTS = 128
"""Connections of one worker at a time. Further ones wait to be accepted."""
MANY_CLIENTS = 96
"""With more than that, connections are closed after their answer: there is always a turn for one
that waits."""
ANSWER_SECONDS = 15.0
"""For an agent to read an answer of the door's own."""
PRUNE_SECONDS = 5.0
"""Between two looks for connections to services that were not used for long."""

_JSON = (b"content-type", b"application/json")
_NO_RETRY = (b"x-should-retry", b"false")
"""What the openai and anthropic clients obey: the same request would be refused again."""


class Door:
    """The services of one agent."""

    def __init__(self, auditor: Auditor) -> None:
        self._auditor = auditor
        self._entries: dict[str, Entry] = {}
        self._clients: Counter[int] = Counter()
        self._running: dict[trio.CancelScope, tuple[Upstream, str, str]] = {}

    def __repr__(self) -> str:
        return f"<Door {', '.join(self._entries)} {len(self._running)} running>"

    def change(self, rules: dict[str, Any]) -> None:
        """As `inlets.Handler.change`. What is running and would not be allowed now is cut."""
        ports = frozenset(rules.get("ports", ()))
        spent = rules.get("spent", {})
        before, self._entries = self._entries, {}
        for name, source in rules["services"].items():
            self._entries[name] = _entry(name, source, ports, before.get(name))
            if name not in before and name in spent:
                self._entries[name].budget.restore(*spent[name])
        kept = {entry.upstream for entry in self._entries.values()}
        for entry in before.values():
            if entry.upstream not in kept:
                entry.upstream.retire()
        for scope, (upstream, method, path) in self._running.items():
            now = self._entries.get(upstream.name)
            if (
                now is None
                or now.upstream is not upstream
                or now.service.allowed_by(method, path) is None
            ):
                scope.cancel()

    async def run(self) -> None:
        """As `inlets.Handler.run`: close the connections that are not used any more."""
        try:
            while True:
                await trio.sleep(PRUNE_SECONDS)
                for entry in self._entries.values():
                    entry.upstream.close_idle(IDLE_SECONDS)
        finally:
            for entry in self._entries.values():
                entry.upstream.close_idle(0)

    async def serve_client(self, client: trio.SocketStream, worker: int) -> None:
        """As `inlets.Handler.serve_client`."""
        self._clients[worker] += 1
        agent = Downstream(client, lambda: self._clients[worker] > MANY_CLIENTS)
        try:
            while (asked := await agent.request()) is not None:
                await self._serve(agent, asked, Call(worker))
                if not agent.may_go_on:
                    await agent.linger()
                    return
        except Left:
            pass
        finally:
            self._clients[worker] -= 1
            if not self._clients[worker]:
                del self._clients[worker]
            await agent.aclose()

    async def _serve(self, agent: Downstream, asked: h11.Request | Denied, call: Call) -> None:
        entry: Entry | None = None
        try:
            decided = self._decide(asked, call)
            if isinstance(decided, Denied):
                entry = self._entries.get(call.service)
                call.refuse(decided.rule, decided.why, decided.status)
                await self._answer(agent, entry, call, [_NO_RETRY])
                return
            assert isinstance(asked, h11.Request)
            entry, target = decided
            exceeded = entry.budget.take(trio.current_time(), time.time())
            if exceeded is not None:
                await self._answer_exceeded(agent, entry, exceeded, call)
                return
            call.verdict = "allowed"
            with self._interruptible(entry.upstream, call, target) as scope:
                await self._forward(agent, entry, asked, target, call)
            if scope.cancelled_caught:
                raise Failed(403, f"services.{call.service}", "the settings were changed meanwhile")
        except Failed as failed:
            call.fail(failed.rule, str(failed), failed.status)
            if agent.began:
                agent.abort()
                raise Left from None  # a cut, which the agent sees as one
            await self._answer(agent, entry, call, [])
        except Left as left:
            call.why = call.why or str(left)
            raise
        finally:
            self._note(call, entry)

    def _decide(self, asked: h11.Request | Denied, call: Call) -> tuple[Entry, Target] | Denied:
        """Where a request goes, or why it goes nowhere."""
        if isinstance(asked, Denied):
            return asked
        call.method = asked.method.decode("ascii")
        target = read_target(asked.target)
        if isinstance(target, Denied):
            call.path = asked.target.partition(b"?")[0].decode("ascii")
            return target
        entry = self._entries.get(target.service)
        if entry is None:
            why = f"this agent has no service {target.service!r}: agents.NAME.services names them"
            return Denied(404, "services", why)
        call.service, call.path = target.service, target.path or "/"
        rule = entry.service.allowed_by(call.method, target.path)
        if rule is None:
            rule = f"services.{target.service}.allow"
            return Denied(403, rule, f"{rule} does not have {call.method} {call.path}")
        call.rule = rule
        return entry, target

    @contextmanager
    def _interruptible(
        self, upstream: Upstream, call: Call, target: Target
    ) -> Iterator[trio.CancelScope]:
        """What a change of the rules may cut."""
        with trio.CancelScope() as scope:
            self._running[scope] = (upstream, call.method, target.path)
            try:
                yield scope
            finally:
                del self._running[scope]

    async def _forward(
        self, agent: Downstream, entry: Entry, asked: h11.Request, target: Target, call: Call
    ) -> None:
        """Send the request, and pass its answer on. Raises Failed, Left."""
        connection = await connect(entry)
        whole = False
        try:
            note = partial(self._note, call, entry)
            whole = await Forwarding(agent, entry, connection, call, note).run(asked, target)
        finally:
            if not whole:
                connection.close()
        if whole:
            entry.upstream.give_back(connection)

    async def _answer(
        self,
        agent: Downstream,
        entry: Entry | None,
        call: Call,
        headers: list[tuple[bytes, bytes]],
    ) -> None:
        """Answer as the call was refused, or has failed."""
        self._note(call, entry)
        form: ErrorForm = "openai" if entry is None else entry.errors
        body = encode_error(form, call.status, f"agent-gateway: {call.why}")
        with trio.move_on_after(ANSWER_SECONDS):
            await agent.answer(call.status, [_JSON, *headers], body)

    async def _answer_exceeded(
        self, agent: Downstream, entry: Entry, exceeded: Exceeded, call: Call
    ) -> None:
        call.refuse(exceeded.setting, exceeded.message, 429)
        headers = [(b"retry-after", str(exceeded.retry_after).encode())]
        headers += [] if exceeded.retry else [_NO_RETRY]
        await self._answer(agent, entry, call, headers)

    def _note(self, call: Call, entry: Entry | None) -> None:
        """Tell the record of a call, once: before the agent has the end of its answer, or when it
        gets none. Whoever has an answer may look for its record at once."""
        if call.noted:
            return
        call.noted = True
        tokens = call.usage and call.usage.tokens
        if entry is not None:
            call.charge(entry.budget, ended=True)
        self._auditor.note(
            Record(
                at="service",
                name=call.service,
                verdict=call.verdict,
                rule=call.rule,
                method=call.method,
                path=call.path,
                status=call.status,
                sent=call.sent,
                received=call.received,
                duration=trio.current_time() - call.began,
                tokens_in=tokens.input if tokens else None,
                tokens_out=tokens.output if tokens else None,
                charged=call.charged,
                worker=call.worker,
                why=call.why,
            )
        )


def _entry(name: str, source: dict[str, Any], ports: frozenset[int], before: Entry | None) -> Entry:
    """A service under new rules. What was used of its budget stays, and so do its connections where
    they lead to the same place."""
    service = Service(
        name=name,
        scheme=source["scheme"],
        host=source["host"],
        port=source["port"],
        base=source["base"],
        headers=source["headers"],
        mask=Mask(source["secrets"]),
        allow=source["allow"],
        allow_headers=source["allow_headers"],
        drop_query=source["drop_query"],
    )
    limits = {each: source[each] for each in ("requests_per_minute", "tokens_per_day")}
    if before is None:
        budget = Budget(name, **limits)
    else:
        budget = before.budget
        budget.change(**limits)
    if before is not None and _place(before.source) == _place(source):
        upstream = before.upstream
        upstream.own_ports = ports
    else:
        upstream = Upstream(service, own_ports=ports, ca=source["ca"])
    return Entry(service, upstream, budget, Clocks(**source["clocks"]), source["errors"], source)


def _place(source: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(source[each] for each in ("scheme", "host", "port", "base", "ca"))


def main() -> None:
    """The program that `proxy` starts."""
    inlets.main(Door, max_clients=MAX_CLIENTS)
