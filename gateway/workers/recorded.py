"""A worker whose connection is recorded: `Worker` and its wire, and nothing else, with a tape."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from gateway.workers.worker import Worker
from protocol.gateway_side import GatewayConnection

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.observe.recording import Recorder, Tape
    from protocol import FromWorker, Method, Payload
    from protocol.messages import Burst


def kind_of_worker(
    recorder: Recorder | None, agent: str, command: Sequence[str]
) -> Callable[..., Worker]:
    """What makes the workers of an agent: recorded ones, if there is a recorder."""
    if recorder is None:
        return Worker
    return partial(RecordedWorker, new_tape=partial(recorder.tape, agent, command))


class RecordedConnection(GatewayConnection):
    """Puts every byte on a tape that goes over the connection."""

    def __init__(self, tape: Tape) -> None:
        super().__init__()
        self._tape = tape

    def send_request(
        self, method: Method, payload: Payload, *, request_id: str, **options: Any
    ) -> tuple[int, Sequence[Payload]]:
        wire_id, line = super().send_request(method, payload, request_id=request_id, **options)
        # A copy: the payload may be a view of a body that is given up once the worker has it.
        self._tape.asked(wire_id, request_id, b"".join(line).rstrip(b"\n"))
        return wire_id, line

    def send_cancel(self, request_id: int) -> bytes:
        line = super().send_cancel(request_id)
        self._tape.told(request_id, line.rstrip(b"\n"))
        return line

    def receive_batch(self, data: bytes) -> list[FromWorker | Burst]:
        self._tape.said(data)
        return super().receive_batch(data)


class RecordedWorker(Worker):
    """As `Worker`, on a tape of its own from `new_tape`."""

    def __init__(self, *arguments: Any, new_tape: Callable[[], Tape], **options: Any) -> None:
        self._tape = new_tape()
        connect = partial(RecordedConnection, self._tape)
        super().__init__(*arguments, connect=connect, **options)

    async def run(self) -> None:
        try:
            await super().run()
        finally:
            self._tape.close()
