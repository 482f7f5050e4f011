"""A run as JSON, as `GET /runs/{id}` shows it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from gateway.errors import NotFound
from gateway.front.answers import session_header
from gateway.front.dialect import RUN_PREFIX
from gateway.front.run_codec import Told

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.front.dialect import Headers, Response
    from gateway.front.runs.run import Run

_encode = msgspec.json.encode

POLL_SECONDS = 1
"""After which to look again at a run that goes on."""


def run_id(run: Run) -> str:
    return RUN_PREFIX + run.token


def run_headers(run: Run) -> list[tuple[bytes, bytes]]:
    """What every response of a run has beside its own headers."""
    return [(b"x-run-id", run_id(run).encode()), *session_header(run.session)]


class View(NamedTuple):
    """A response whose body is the sum of its parts. One of them may be the body of a run's answer:
    many may be sent that at a time, and no copies are made of it."""

    status: int
    headers: Headers
    parts: Sequence[bytes]

    @property
    def size(self) -> int:
        return sum(map(len, self.parts))

    @property
    def head(self) -> list[tuple[bytes, bytes]]:
        """The headers, with Content-Length, in a new list."""
        return [*self.headers, (b"content-length", b"%d" % self.size)]


def describe(run: Run, expires_in: float) -> list[bytes]:
    """The JSON text of a run, in parts.

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
    more: dict[str, Any] = {}
    if run.error is not None:
        more["error"] = {"type": run.error.type, "message": run.error.message}
    if expires_in < math.inf:
        more["expires_in"] = round(expires_in)
    if run.answer is None:
        return [_encode(members | more)]
    return _with_answer(members, run.answer, more)


def _with_answer(members: dict[str, Any], answer: Response, more: dict[str, Any]) -> list[bytes]:
    """An object with some members, the answer, and more members."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in answer.headers}
    kind = headers.get("content-type", "").partition(";")[0]
    is_json = kind == "application/json" or kind.endswith("+json")
    before = _encode({**members, "answer": {"status": answer.status, "headers": headers}})
    after = b"," + _encode(more)[1:] if more else b"}"
    return [
        before.removesuffix(b"}}") + b',"body":',
        answer.body if is_json else _encode(answer.body.decode("utf-8", "replace")),
        b"}" + after,
    ]


def show(run: Run, expires_in: float) -> View:
    """The response to whoever asks for the state of a run."""
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    if not run.ended:
        headers.append((b"retry-after", b"%d" % POLL_SECONDS))
    return View(200, [*headers, *run_headers(run)], describe(run, expires_in))


def accept(run: Run, expires_in: float) -> View:
    """The response to `Prefer: respond-async` (RFC 7240, 4.1)."""
    view = show(run, expires_in)
    more = [
        (b"location", b"/runs/" + run_id(run).encode()),
        (b"preference-applied", b"respond-async"),
    ]
    return view._replace(status=202, headers=[*view.headers, *more])


def tell(run: Run) -> View | None:
    """The response with what the run is in its own protocol; None if that has nothing for it."""
    told = run.tell()
    return None if told is None else as_view(told, run)


def told_of(run: Run) -> Told:
    """What a run tells for a `RunReader`. Raises NotFound and RunGone."""
    told = run.tell()
    if told is None:
        raise run.gap(0) if run.gone else NotFound("this run has no form of its own")
    return Told(told.body, run.ended)


class ListedRun:
    """A `Listed`."""

    __slots__ = ("_run",)

    def __init__(self, run: Run) -> None:
        self._run = run

    @property
    def outline(self) -> bytes:
        return self._run.outline

    def tell(self) -> Told:
        return told_of(self._run)


def as_view(shown: Response, run: Run) -> View:
    """What a protocol shows of a run."""
    headers = [*shown.headers, (b"cache-control", b"no-store"), *run_headers(run)]
    return View(shown.status, headers, [shown.body])
