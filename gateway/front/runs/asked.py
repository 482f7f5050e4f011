"""Requests whose bodies speak of runs, and calls in protocols in which every call is one.

What a run tells is written by the codec of the request that started it, and is shown by the codec
of the request that asks (`RunReader`), which may be the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.errors import NotFound, RunGone
from gateway.front.dialect import RUN_PREFIX, Response
from gateway.front.run_codec import RunReader
from gateway.front.runs.ids import credential_of
from gateway.front.runs.reading import RunDelivery
from gateway.front.runs.views import ListedRun, as_view, told_of

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.front.client import ClientRequest
    from gateway.front.dialect import Codec, RunRequest
    from gateway.front.runs.run import Run
    from gateway.front.runs.service import Runs
    from gateway.front.runs.wishes import Wish


async def respond_about_run(
    request: ClientRequest, runs: Runs, codec: Codec, asked: RunRequest, wish: Wish | None
) -> tuple[Call | None, Run | None]:
    """Do what is asked of a run, and respond; if that is to go on from it, return the call that
    does, and the run whose place its own is to take. `wish` is the request's. Raises GatewayError
    and ClientGoneError."""
    credential = credential_of(request.head.fields, request.caller.name)
    if (seen := request.observation) is not None and asked.does != "go_on":
        seen.handler = ""  # no agent is called
    if asked.does == "list":
        found = runs.of(credential, codec.route.dialect, codec.agent)
        await request.respond(_as_reader(codec).show_all([ListedRun(run) for run in found]))
        return None, None
    if asked.does == "rejoin":
        await _rejoin(request, runs, codec, asked.token, credential)
        return None, None
    if asked.does == "go_on" and (repeated := runs.repeated(wish, seen)) is not None:
        await respond_to_call(request, runs, _as_reader(codec), repeated)
        return None, None
    run = _find(request, runs, codec, asked.token, credential)
    if asked.does == "go_on":
        call = _as_reader(codec).go_on(told_of(run))
        await _wait_for_end(run)
        return call, run
    if asked.does == "follow":
        await _follow(request, runs, codec, run, asked.position)
    else:
        if asked.does == "cancel":
            shown = _cancel(runs, _as_reader(codec), run)
        else:
            shown = _as_reader(codec).show(told_of(run))
        await _show(request, runs, run, shown)
    return None, None


async def respond_to_call(request: ClientRequest, runs: Runs, reader: RunReader, run: Run) -> None:
    """Respond to a call that has started a run, or to its repetition, as its protocol has it.
    Raises GatewayError and ClientGoneError."""
    if reader.reads == "follow":
        await _follow(request, runs, reader, run, 0)
    elif reader.reads == "end":
        await RunDelivery(request, runs, run).tell_at_end(lambda: reader.show(told_of(run)))
    else:
        await _show(request, runs, run, reader.show(told_of(run)))


async def _wait_for_end(run: Run) -> None:
    """Let a run end that has told its last: a slow reader may hold its last event. Only what has
    ended can give its place to another one."""
    run.hurry()
    while not run.ended:
        await run.news.park()


def _find(request: ClientRequest, runs: Runs, codec: Codec, token: str, credential: bytes) -> Run:
    """The run, if the request may know of it. Raises GatewayError."""
    run = runs.find(token, credential)
    request.caller.check(run.agent)
    if run.dialect != codec.route.dialect or codec.agent not in {None, run.agent}:
        raise NotFound("what has this id is not of the kind that is asked for here")
    if (seen := request.observation) is not None:
        seen.run, seen.agent = RUN_PREFIX + run.token, run.agent
    return run


async def _rejoin(
    request: ClientRequest, runs: Runs, codec: Codec, token: str, credential: bytes
) -> None:
    """Respond with a run's stream, if its client has not got that to its end yet."""
    try:
        run = _find(request, runs, codec, token, credential) if token else None
    except (NotFound, RunGone):
        run = None
    if run is None or run.was_read:
        await request.respond(Response(204, ((b"cache-control", b"no-store"),), b""))
    else:
        await _follow(request, runs, codec, run, 0)


def _as_reader(codec: Codec) -> RunReader:
    assert isinstance(codec, RunReader), "only such a codec asks for this"
    return codec


async def _show(request: ClientRequest, runs: Runs, run: Run, shown: Response) -> None:
    await RunDelivery(request, runs, run).show(as_view(shown, run), reads=run.ended)


def _cancel(runs: Runs, reader: RunReader, run: Run) -> Response:
    if run.ended:
        runs.retell(run, *reader.withdraw(told_of(run)))
        return reader.show(told_of(run)._replace(ended=False))
    runs.cancel(run)
    return reader.show(told_of(run)._replace(ended=False))


async def _follow(
    request: ClientRequest, runs: Runs, codec: Codec, run: Run, position: int
) -> None:
    if (seen := request.observation) is not None:
        seen.stream = True
    delivery = RunDelivery(request, runs, run)
    if isinstance(codec, RunReader):
        # The telling and the number of what it covers belong together: nothing waits in between.
        await delivery.follow(codec.open(told_of(run)), run.covered, codec)
    else:
        await delivery.attach(position, as_event=False)
