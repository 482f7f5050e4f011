"""What an agent does when it is cancelled, whatever language it is written in."""

from __future__ import annotations

from protocol import ErrorCode, Failure

from .driver import Worker


async def answers_at_once_while_it_waits(worker: Worker) -> None:
    """Cancel a request that waits for its turn behind another. The agent, of a concurrency of 1,
    prints `running` and its input, and then waits to be cancelled."""
    worker.ignore_declared_concurrency()
    first, second = await worker.send_invoke("first"), await worker.send_invoke("second")
    await worker.cancel(second)
    failure = await worker.next_event()
    assert isinstance(failure, Failure)
    assert (failure.id, failure.code) == (second, ErrorCode.CANCELLED)
    await worker.cancel(first)
    assert (await worker.answer(first)).failure[0] == ErrorCode.CANCELLED
    assert "running second" not in worker.stderr


async def stops_what_it_does(worker: Worker) -> None:
    """Cancel each handler of the patient agent of the examples."""
    assert (await worker.invoke(0)).value == "worked for 0 seconds"
    thinking = await worker.send_chat([])
    await worker.said_on_stderr("thinking")
    await worker.cancel(thinking)
    assert (await worker.answer(thinking)).failure[0] == ErrorCode.CANCELLED
    await worker.said_on_stderr("stopped thinking")
    working = await worker.send_invoke(3600)
    await worker.said_on_stderr("working")
    await worker.cancel(working)
    assert (await worker.answer(working)).failure[0] == ErrorCode.CANCELLED
    await worker.said_on_stderr("stopped working")
