"""What an agent's workers have declared of themselves, and which requests that rules out.

Every worker of an agent runs the same command, so what the last one declared counts for the next.
Where that turns out to be wrong, the worker's link says the same of its own worker.

Before the first worker has spoken nothing is known, and a request is given to it all the same: a
program without the handshake says nothing before it has read one. So the input of such a request is
checked against the declared schema when the answer has begun, and an input that does not match gets
its 400 instead of that answer.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from gateway.errors import HandlerNotImplemented
from gateway.needs import unmet_needs
from gateway.workers.input_checker import InputChecker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from gateway.call import Call
    from gateway.workers.checker_places import CheckerPlaces
    from protocol import Payload, Ready


class Declared:
    """The last declaration of one agent's workers. `run` must be running while they speak."""

    def __init__(self, agent: str = "", places: CheckerPlaces | None = None) -> None:
        """`places` are those for what checks inputs, of all agents together."""
        self.ready: Ready | None = None
        """None before the first worker has spoken, and if the last one has no handshake."""
        self.inputs: InputChecker | None = None
        """What checks the inputs of invokes; None where no schema is declared."""
        self._outputs: InputChecker | None = None
        self._new_checker = partial(InputChecker, agent, places=places)
        self._known = False
        """Whether any worker has spoken."""
        self._nursery: trio.Nursery | None = None
        self._checking: trio.CancelScope | None = None
        self._checking_outputs = trio.CancelScope()

    @property
    def known(self) -> bool:
        """Whether any worker has spoken."""
        return self._known

    @property
    def checks(self) -> InputChecker | None:
        """What checks an input before it is submitted; None: nothing, or nobody yet."""
        return self.inputs

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run what checks inputs, until cancelled. What is heard before has none checked."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def heard(self, ready: Ready | None) -> None:
        """A worker's first line has come."""
        if ready == self.ready:
            ready = self.ready  # the same object, by which others find what they made of it
        self.ready, self._known = ready, True
        if self._outputs is not None and ready is not None and self._outputs.schema != ready.output:
            self._checking_outputs.cancel()
            self._outputs = None
        schema = None if ready is None else ready.input
        if schema == (None if self.inputs is None else self.inputs.schema):
            return
        if self._checking is not None:
            self._checking.cancel()
        self.inputs = self._checking = None
        if schema is not None and self._nursery is not None:
            self.inputs, self._checking = self._new_checker(schema), trio.CancelScope()
            self._nursery.start_soon(_run_within, self._checking, self.inputs)

    def outputs(self) -> InputChecker | None:
        """What checks the outputs of invokes, for whom that matters; None where no schema is
        declared."""
        schema = None if self.ready is None else self.ready.output
        if self._outputs is None and schema is not None and self._nursery is not None:
            self._outputs = self._new_checker(schema, checks="output")
            self._checking_outputs = trio.CancelScope()
            self._nursery.start_soon(_run_within, self._checking_outputs, self._outputs)
        return self._outputs

    def check(self, call: Call) -> Callable[[], Awaitable[None]] | None:
        """Check a request before a worker has it, but for its input: that takes time, and is done
        before this is called (`inputs`).

        Returns what is to be done before the answer is given, if anything is. Raises
        HandlerNotImplemented and InvalidRequest.
        """
        if not self._known:
            return partial(self._check_late, call.payload) if call.method == "invoke" else None
        if self.ready is not None and call.method not in self.ready.handlers:
            raise HandlerNotImplemented(f"agent {call.agent!r} has no {call.method} handler")
        if call.needs:
            error = unmet_needs(call.agent, call.needs, self.ready)
            if error is not None:
                raise error
        return None

    async def _check_late(self, payload: Payload) -> None:
        if self.inputs is not None:
            await self.inputs.check(payload)

    @property
    def processes(self) -> Iterator[int]:
        """The pids of what checks inputs."""
        if self.inputs is not None and self.inputs.pid is not None:
            yield self.inputs.pid
        if self._outputs is not None and self._outputs.pid is not None:
            yield self._outputs.pid


async def _run_within(scope: trio.CancelScope, inputs: InputChecker) -> None:
    with scope:
        await inputs.run()
