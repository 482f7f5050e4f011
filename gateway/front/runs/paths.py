"""The paths of runs: what is done there, by which methods, and for whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.errors import MethodNotAllowed
from gateway.front.dialect import Response
from gateway.front.runs.ids import credential_of
from gateway.front.runs.reading import RunDelivery
from gateway.front.runs.views import PREFIX, accepted, respond
from gateway.front.runs.wishes import accepts_events, read_position

if TYPE_CHECKING:
    import trio

    from gateway.front.client import ClientRequest
    from gateway.front.runs.run import Run
    from gateway.front.runs.service import Runs
    from gateway.front.runs.wishes import Wish

MOST_BODY_BYTES = 4096
"""Of a request here, none of which needs a body; some clients send `{}`."""


class RunPath(NamedTuple):
    token: str
    cancels: bool


def match_run(path: str) -> RunPath | None:
    """`/runs/{id}` and `/runs/{id}/cancel`. Whether there is such a run is looked up later."""
    root, _, rest = path.removeprefix("/").partition("/")
    name, slash, action = rest.partition("/")
    if root != "runs" or not name or (slash and action != "cancel"):
        return None
    # An id with another prefix is no run's, nor is the empty token.
    return RunPath(name.removeprefix(PREFIX) if name.startswith(PREFIX) else "", bool(slash))


async def respond_on_path(
    request: ClientRequest, runs: Runs, method: str, path: RunPath, reading: set[trio.CancelScope]
) -> None:
    """Respond to a request on the path of a run. Raises GatewayError and ClientGoneError."""
    allow = "OPTIONS, POST" if path.cancels else "GET, HEAD, OPTIONS"
    if method not in allow.split(", "):
        raise MethodNotAllowed(f"{method} is not supported here; use {allow}", allow=allow)
    if method == "OPTIONS":
        await request.respond(Response(200, ((b"allow", allow.encode()),), b""))
        return
    if request.head.has_body:
        await request.read_body(MOST_BODY_BYTES, reading)
    run = runs.find(path.token, credential_of(request.head.fields))
    if path.cancels:
        runs.cancel(run)
    elif method == "GET" and accepts_events(request.head.fields):
        position = read_position(request.head.fields)
        await RunDelivery(request, runs, run).attach(position or 0)
        return
    await request.respond(respond(run, runs.expires_in(run)))
    if method == "GET" and run.answer is not None:
        runs.note_read(run)


async def respond_with_run(request: ClientRequest, runs: Runs, run: Run, wish: Wish | None) -> None:
    """Respond to the request that has started a run, or to its repetition.

    Raises GatewayError and ClientGoneError.
    """
    if wish is not None and wish.respond_async:
        await request.respond(accepted(run, runs.expires_in(run)))
    else:
        await RunDelivery(request, runs, run).repeat(read_position(request.head.fields))
