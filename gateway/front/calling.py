"""The steps of a call that are the same for every client protocol: admitted, read, begun.

`requests` takes them for each request that is a call by itself. A protocol whose calls come out of
machinery of its own, from inside a request (`mcp`), takes the same ones; so whatever holds for a
call (its key, its limits, its agent's input schema, runs, what is observed of it) has one place.
Knows no format, and no response.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.front.auth import ANONYMOUS, own

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.agents.dispatcher import Dispatcher
    from gateway.call import Call
    from gateway.exchange import Exchange
    from gateway.front.client import ClientRequest
    from gateway.front.dialect import Codec
    from gateway.front.limits.permits import Limits
    from gateway.front.runs.run import Run
    from gateway.front.runs.service import Runs
    from gateway.front.runs.wishes import RawRequest, Wish
    from gateway.workers.input_checker import InputChecker

MAX_BODY_SETTING = "server.max_body"


class Calling:
    """See the module's docstring. Its methods raise GatewayError, and ClientGoneError where they
    wait for the client."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        runs: Runs,
        *,
        max_body: int,
        inputs: Callable[[str], InputChecker | None],
        limits: Limits | None,
    ) -> None:
        """`inputs` gives what checks the inputs of an agent, None where no schema is declared. It
        may raise AgentNotFound."""
        self.limits = limits
        """None where no agent and no key has any."""
        self.max_body: float = max_body
        self._dispatcher = dispatcher
        self._runs = runs
        self._inputs = inputs

    async def read(
        self,
        request: ClientRequest,
        agent: str | None,
        wish: Wish | None = None,
        *,
        may_be_of_run: bool = False,
    ) -> bytes:
        """Enter the limits and read the body. `agent` is None where only the body names it. The
        permit, if there is one, is the request's, to be left when the request has ended.

        With `may_be_of_run` the body may be no call, but concern a run (or, in `mcp`, no agent):
        then no place is taken before a run begins, or the permit is told to `start`.
        """
        most, setting = self.max_body, MAX_BODY_SETTING
        if self.limits is not None:
            resumes = may_be_of_run or (wish is not None and self._runs.knows(wish))
            permit = self.limits.enter(request.caller.name, agent, resumes=resumes)
            request.permit = permit
            most, setting = permit.most_body(most, setting)
        return await request.read_body(most, self._dispatcher.until_stop, setting=setting)

    async def begin(
        self,
        request: ClientRequest,
        asked: Call,
        size: int,
        codec: Codec,
        wish: Wish | None,
        *,
        after: Run | None = None,
        raw: RawRequest | None = None,
    ) -> Exchange | Run:
        """Check a call as its caller's own and begin it: as a run if it is one (or the run that it
        repeats), else as an exchange, which must be left (`leave`).

        `size` is that of the body in bytes; `codec` encodes the answer of a run, and `after` is
        the run that it goes on from. `raw` is given for a request that prefers `respond-async`: in
        a fleet, it may outlive this process.
        """
        caller, seen = request.caller, request.observation
        if seen is not None:
            seen.stream, seen.handler = asked.stream, asked.method
            if asked.agent in self._dispatcher.agents:
                seen.agent = asked.agent
        if caller is not ANONYMOUS:
            caller.check(asked.agent)
            asked = own(asked, caller.name)
        permit = request.permit
        if permit is not None:
            permit.admit(asked.agent, size)
        if asked.method == "invoke" and (inputs := self._inputs(asked.agent)) is not None:
            await inputs.check(asked.payload, asked.total)
        if wish is not None or asked.continues or self._runs.continues(asked.agent):
            fields, afar = request.head.fields, self._runs.afar
            if (
                afar is not None
                and raw is not None
                and wish is not None
                and after is None
                and afar.takes(asked, codec)
            ):
                return await afar.begin(
                    asked, codec, request.head, raw, wish, seen=seen, permit=permit
                )
            return self._runs.begin(
                asked, codec, fields, wish, after=after, seen=seen, permit=permit
            )
        exchange = self._dispatcher.submit(asked)
        if seen is not None:
            seen.exchange = exchange
        return exchange

    def leave(self, exchange: Exchange) -> None:
        """The caller has had its answer, or has left. May be called again."""
        self._dispatcher.leave(exchange)
