"""The paths of runs: what is done there, by which methods, and for whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.errors import MethodNotAllowed, NotFound
from gateway.front.dialect import RUN_PREFIX, Response
from gateway.front.run_codec import RunReader
from gateway.front.runs.asked import respond_to_call
from gateway.front.runs.ids import credential_of
from gateway.front.runs.reading import RunDelivery
from gateway.front.runs.views import accept, show, tell
from gateway.front.runs.wishes import accepts_events, read_position, read_query

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.front.client import ClientRequest
    from gateway.front.dialect import Codec, RunPath
    from gateway.front.runs.run import Run
    from gateway.front.runs.service import Runs
    from gateway.front.runs.wishes import Wish
    from gateway.stopping import UntilStop

MOST_BODY_BYTES = 4096
"""Of a request here, none of which needs a body; some clients send `{}`."""


class Visit(NamedTuple):
    """A request on the path of a run."""

    method: str
    path: RunPath
    query: bytes
    """What follows the `?`, as it was sent: some protocols ask for a stream there."""


async def respond_on_path(
    request: ClientRequest, runs: Runs, visit: Visit, until_stop: UntilStop
) -> None:
    """Respond to a request on the path of a run. Raises GatewayError and ClientGoneError."""
    method, path, fields = visit.method, visit.path, request.head.fields
    allow = "OPTIONS, POST" if path.cancels else "GET, HEAD, OPTIONS"
    if method not in allow.split(", "):
        raise MethodNotAllowed(f"{method} is not supported here; use {allow}", allow=allow)
    if method == "OPTIONS":
        await request.respond(Response(200, ((b"allow", allow.encode()),), b""))
        return
    if request.head.has_body:
        await request.read_body(MOST_BODY_BYTES, until_stop)
    credential = credential_of(fields, request.caller.name)
    if runs.afar is not None:
        await runs.afar.look_for(path.token, credential)
    run = runs.find(path.token, credential)
    request.caller.check(run.agent)
    if (seen := request.observation) is not None:
        seen.run, seen.agent, seen.stream = RUN_PREFIX + run.token, run.agent, run.stream
    if path.dialect and not (run.can_be_told and run.dialect == path.dialect):
        raise NotFound("what has this id is not of the kind that is asked for here")
    delivery = RunDelivery(request, runs, run)
    if path.cancels:
        runs.cancel(run)
    elif method == "GET" and (position := _asked_position(visit, fields)) is not None:
        await delivery.attach(position, as_event=not path.dialect)
        return
    told = tell(run) if path.dialect else None
    await delivery.show(told or show(run, runs.expires_in(run)), reads=method == "GET")


def _asked_position(visit: Visit, fields: Mapping[bytes, bytes]) -> int | None:
    """The event from which on a stream is asked for; None: none is. Raises InvalidRequest."""
    if visit.path.dialect:
        return read_query(visit.query, fields)
    return (read_position(fields) or 0) if accepts_events(fields) else None


async def respond_with_run(
    request: ClientRequest,
    runs: Runs,
    run: Run,
    wish: Wish | None,
    codec: Codec,
    *,
    in_background: bool,
) -> None:
    """Respond to the request that has started a run, or to its repetition.

    With `in_background` its own protocol says that nobody waits for the answer. Raises GatewayError
    and ClientGoneError.
    """
    if isinstance(codec, RunReader):
        await respond_to_call(request, runs, codec, run)
        return
    delivery = RunDelivery(request, runs, run)
    if in_background and (told := tell(run)) is not None:
        await delivery.show(told, reads=False)
    elif in_background or (wish is not None and wish.respond_async):
        await delivery.show(accept(run, runs.expires_in(run)), reads=False)
    else:
        await delivery.repeat(read_position(request.head.fields))
