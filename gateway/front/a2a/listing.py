"""ListTasks: which of a caller's tasks are shown, in which order, and on how many pages.

The latest come first (A2A 1.0, 3.1.4). A page's token is where the page before it ended, and not a
count: tasks that begin or change meanwhile move none of the others. Tasks are chosen by their
summaries, and only those of the page are read and written, until it has `MOST_PAGE_BYTES`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta, Struct

from gateway.front.a2a.errors import invalid
from gateway.front.a2a.rpc import decode_params
from gateway.front.a2a.task import STATES, Record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.front.run_codec import Listed

PAGE = 50

MOST_PAGE_BYTES = 4 * 1024 * 1024
"""Of the tasks of a page; one task is always on it, and may have as many by itself."""

_TIME = re.compile(
    r"([0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9])(?:\.([0-9]{1,9}))?Z\Z"
)
_TOKEN = re.compile(r"[0-9TZ:.-]{24}~[A-Za-z0-9_]{1,128}\Z")

_encode = msgspec.json.encode


class ListParams(Struct, gc=False, rename="camel"):
    context_id: str | None = None
    status: str | None = None
    page_size: Annotated[int, Meta(ge=1, le=100)] | None = None
    page_token: str | None = None
    history_length: Annotated[int, Meta(ge=0)] | None = None
    status_timestamp_after: str | None = None
    include_artifacts: bool | None = None


_decode_list = msgspec.json.Decoder(ListParams).decode


def read_list(params: bytes) -> ListParams:
    """Check the parameters. Raises InvalidRequest."""
    asked: ListParams = decode_params(_decode_list, params)
    if asked.status not in {None, "", "TASK_STATE_UNSPECIFIED", *STATES}:
        raise invalid(f"status is {str(asked.status)[:80]!r}, expected a TASK_STATE_…", "status")
    if asked.page_token and _TOKEN.match(asked.page_token) is None:
        raise invalid("pageToken is none that was given out here", "pageToken")
    if asked.status_timestamp_after:
        _as_sortable(asked.status_timestamp_after)
    return asked


def _as_sortable(text: str) -> str:
    """A time as `clock.utc_text` has it. Raises InvalidRequest."""
    match = _TIME.match(text)
    if match is None:
        raise invalid(
            f"statusTimestampAfter is {text[:80]!r}, expected UTC, as 2026-10-27T10:00:00Z",
            "statusTimestampAfter",
        )
    return f"{match[1]}.{(match[2] or '').ljust(3, '0')[:3]}Z"


def list_tasks(asked: ListParams, runs: Sequence[Listed]) -> bytes:
    """The result, a JSON text."""
    status = None if asked.status in {None, "", "TASK_STATE_UNSPECIFIED"} else asked.status
    after = _as_sortable(asked.status_timestamp_after) if asked.status_timestamp_after else ""
    found = []
    for run in runs:
        task = Record.summary_of(run.outline)
        if asked.context_id and task.context != asked.context_id:
            continue
        if status not in {None, task.state} or task.timestamp < after:
            continue
        found.append((f"{task.timestamp}~{task.id}", run))
    found.sort(key=lambda each: each[0], reverse=True)
    rest = [each for each in found if not asked.page_token or each[0] < asked.page_token]
    size = asked.page_size or PAGE
    tasks = _page(asked, [run for _, run in rest[:size]])
    return b'{"tasks":[%b],"nextPageToken":%b,"pageSize":%d,"totalSize":%d}' % (
        b",".join(tasks),
        _encode(rest[len(tasks) - 1][0] if len(rest) > len(tasks) else ""),
        size,
        len(found),
    )


def _page(asked: ListParams, runs: Sequence[Listed]) -> list[bytes]:
    """The tasks of a page: of these, as many as it has room for."""
    tasks: list[bytes] = []
    left = MOST_PAGE_BYTES
    for run in runs:
        record = Record.read(run.tell().body)
        task = record.show(messages=asked.history_length, artifacts=bool(asked.include_artifacts))
        left -= len(task)
        if left < 0 and tasks:
            break
        tasks.append(task)
    return tasks
