"""Who is to blame for the end of a worker."""

from __future__ import annotations

import pytest

from gateway.agents.blame import Blame, blame_of
from gateway.call import Call
from gateway.config import Clocks
from gateway.errors import InvalidAgentResponse, WorkerCrashed
from gateway.exchange import Exchange
from gateway.workers.events import Ended, Reason

REQUEST = Exchange(
    Call(agent="a", method="invoke", payload=b"1", stream=False, request_id="r"), Clocks(), 0.0
)
CRASH = WorkerCrashed("", exit_status=1)
KILLED = WorkerCrashed("", signal="SIGKILL")
LEFT = WorkerCrashed("", exit_status=0)
CLOSED = WorkerCrashed("")
NONSENSE = InvalidAgentResponse("")


@pytest.mark.parametrize(
    ("end", "before_serving", "after_serving"),
    [
        (Ended(Reason.ASKED, CRASH), Blame.NOBODY, Blame.NOBODY),
        (Ended(Reason.UNRESPONSIVE, KILLED, (REQUEST,)), Blame.NOBODY, Blame.NOBODY),
        (Ended(Reason.NOT_STARTED, CLOSED), Blame.AGENT, Blame.AGENT),
        (Ended(Reason.START_TIMEOUT, CLOSED, (REQUEST,), (REQUEST,)), Blame.AGENT, Blame.AGENT),
        (Ended(Reason.EXITED, CRASH), Blame.AGENT, Blame.AGENT),
        (Ended(Reason.EXITED, KILLED), Blame.AGENT, Blame.AGENT),
        (Ended(Reason.EXITED, LEFT), Blame.AGENT, Blame.NOBODY),
        (Ended(Reason.EXITED, CRASH, (REQUEST,)), Blame.REQUEST, Blame.REQUEST),
        (Ended(Reason.EXITED, LEFT, (REQUEST,)), Blame.REQUEST, Blame.REQUEST),
        (Ended(Reason.EXITED, LEFT, (REQUEST,), (REQUEST,)), Blame.AGENT, Blame.NOBODY),
        (Ended(Reason.EXITED, CRASH, (REQUEST,), (REQUEST,)), Blame.AGENT, Blame.AGENT),
        (Ended(Reason.VIOLATION, NONSENSE), Blame.AGENT, Blame.AGENT),
        (Ended(Reason.VIOLATION, NONSENSE, (REQUEST,)), Blame.REQUEST, Blame.REQUEST),
        (Ended(Reason.STDOUT_CLOSED, CLOSED), Blame.AGENT, Blame.AGENT),
        (Ended(Reason.STDIN_CLOSED, CLOSED, (REQUEST,), (REQUEST,)), Blame.AGENT, Blame.NOBODY),
        (Ended(Reason.OVER_MEMORY, CLOSED), Blame.AGENT, Blame.NOBODY),
        (Ended(Reason.OVER_STATE, CLOSED), Blame.AGENT, Blame.NOBODY),
    ],
)
def test_a_failure_is_counted_where_it_was_caused(
    end: Ended, before_serving: Blame, after_serving: Blame
) -> None:
    assert blame_of(end, served=False) is before_serving
    assert blame_of(end, served=True) is after_serving
