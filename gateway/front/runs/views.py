"""A run as JSON, as `GET /runs/{id}` shows it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from gateway.front.answers import session_header
from gateway.front.dialect import RUN_PREFIX, Response

if TYPE_CHECKING:
    from gateway.front.runs.run import Run

POLL_SECONDS = 1
"""After which to look again at a run that goes on."""


def run_id(run: Run) -> str:
    return RUN_PREFIX + run.token


def run_headers(run: Run) -> list[tuple[bytes, bytes]]:
    """What every response of a run has beside its own headers."""
    return [(b"x-run-id", run_id(run).encode()), *session_header(run.session)]


def describe(run: Run, expires_in: float) -> bytes:
    """The JSON text of a run.

    `answer` is the whole response that its own request was or would have been answered with; it is
    there once the run has ended, unless that was a stream, whose `events` can be read instead.
    `expires_in` is in seconds.
    """
    members: dict[str, Any] = {
        "id": run_id(run),
        "state": run.state.value,
        "agent": run.agent,
        "request_id": run.request_id,
    }
    if run.stream:
        members["events"] = {"first": run.ring.first, "next": run.ring.next}
    if run.answer is not None:
        members["answer"] = _as_members(run.answer)
    if run.error is not None:
        members["error"] = {"type": run.error.type, "message": run.error.message}
    if expires_in < math.inf:
        members["expires_in"] = round(expires_in)
    return msgspec.json.encode(members)


def respond(run: Run, expires_in: float) -> Response:
    """The response to whoever asks for the state of a run."""
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    if not run.ended:
        headers.append((b"retry-after", b"%d" % POLL_SECONDS))
    return Response(200, [*headers, *run_headers(run)], describe(run, expires_in))


def accepted(run: Run, expires_in: float) -> Response:
    """The response to `Prefer: respond-async` (RFC 7240, 4.1)."""
    response = respond(run, expires_in)
    more = [
        (b"location", b"/runs/" + run_id(run).encode()),
        (b"preference-applied", b"respond-async"),
    ]
    return response._replace(status=202, headers=[*response.headers, *more])


def _as_members(answer: Response) -> dict[str, Any]:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in answer.headers}
    kind = headers.get("content-type", "").partition(";")[0]
    is_json = kind == "application/json" or kind.endswith("+json")
    body = Raw(answer.body) if is_json else answer.body.decode("utf-8", "replace")
    return {"status": answer.status, "headers": headers, "body": body}
