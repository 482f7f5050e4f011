"""Old and new workers and gateways in all four pairings: the text arrives in each of them."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from msgspec import Raw

from protocol import Chunk, End, Event, Invoke, Outcome
from protocol.gateway_side import GatewayConnection
from protocol.worker_side import WorkerConnection

from .helpers import request_line
from .old_ends import OldGateway, OldWorker

ROOT = Path(__file__).parents[2]
BEFORE_EVENTS = "7367f1d"
"""The last commit whose wire knew no events."""

THOUGHT = {"type": "reasoning", "text": "Need the weather. "}
CALL = {"type": "tool_call", "call": "c1", "name": "weather", "arguments": {"city": "Oslo"}}
WORDS: list[Any] = [THOUGHT, "It is ", CALL, "12 °C."]
OUTCOME = Outcome("stop", b'{"input_tokens":7}')


class NewGateway:
    """As `OldGateway`, by the code of today."""

    def __init__(self, *, events: bool) -> None:
        self._events = events
        self._connection = GatewayConnection(ids=itertools.count(1))
        self.text = ""
        self.events: list[Any] = []
        self.outcome: Outcome | None = None
        self.ended = False
        self.refused: list[object] = []

    def ask(self, payload: bytes) -> bytes:
        return request_line(
            self._connection, "invoke", payload, stream=True, request_id="r", events=self._events
        )[1]

    def hear(self, data: bytes) -> None:
        for message in self._connection.receive_data(data):
            match message:
                case Chunk(text=text):
                    self.text += json.loads(text)
                case Event(event=event):
                    self.events.append(json.loads(event))
                case End(outcome=outcome):
                    self.ended, self.outcome = True, outcome
                case _:
                    self.refused.append(message)


class NewWorker:
    """As `OldWorker`, by the code of today: it has more to say, and says it to who asks."""

    def answer(self, line: bytes, words: list[Any]) -> bytes:
        connection = WorkerConnection()
        [request] = connection.receive_data(line)
        assert isinstance(request, Invoke)
        said = b""
        for word in words:
            if isinstance(word, str):
                said += connection.send_chunk(request.id, word)
            elif request.events:
                said += connection.send_event(request.id, word)
        return said + connection.send_end(request.id, outcome=OUTCOME if request.events else None)


GATEWAYS = {
    "an old gateway": OldGateway,
    "a new gateway": lambda: NewGateway(events=False),
    "a new gateway that asks for events": lambda: NewGateway(events=True),
}


@pytest.mark.parametrize("worker", [OldWorker, NewWorker])
@pytest.mark.parametrize("name", GATEWAYS)
def test_the_text_of_an_answer_arrives_in_every_pairing(name: str, worker: Any) -> None:
    gateway = GATEWAYS[name]()
    gateway.hear(worker().answer(gateway.ask(b'"x"'), WORDS))
    assert (gateway.text, gateway.ended, gateway.refused) == ("It is 12 °C.", True, [])
    if isinstance(gateway, NewGateway):
        both = "asks" in name and worker is NewWorker
        assert gateway.events == ([THOUGHT, CALL] if both else [])
        assert gateway.outcome == (OUTCOME if both else None)


def test_whoever_does_not_ask_reads_and_writes_the_bytes_of_before() -> None:
    asked = [GATEWAYS[name]().ask(b'"x"') for name in ("an old gateway", "a new gateway")]
    assert asked[0] == asked[1]
    assert NewWorker().answer(asked[0], WORDS) == OldWorker().answer(asked[0], WORDS)


def test_the_control_an_old_gateway_refuses_what_a_worker_may_only_say_when_asked() -> None:
    asked = NewGateway(events=True).ask(b'"x"')
    gateway = OldGateway()
    gateway.hear(NewWorker().answer(asked, WORDS))
    assert len(gateway.refused) == 3, "two events and the end with an outcome"


# The old ends, held to the old code


OLD_CODE = """
import json, sys
from protocol import Chunk, End, Malformed
from protocol.gateway_side import GatewayConnection
from protocol.worker_side import WorkerConnection
said = [bytes.fromhex(line) for line in sys.stdin.read().split()]
gateway = GatewayConnection(ids=iter([1]))
_, parts = gateway.send_request("invoke", b'"x"', stream=True, request_id="r")
told = []
for line in said[1:]:
    gateway = GatewayConnection(ids=iter([1]))
    gateway.send_request("invoke", b'"x"', stream=True, request_id="r")
    told += [type(event).__name__ for event in gateway.receive_data(line)]
worker = WorkerConnection()
[request] = worker.receive_data(said[0])
answer = worker.send_chunk(1, "It is ") + worker.send_chunk(1, "12 \\u00b0C.") + worker.send_end(1)
print(json.dumps([b"".join(parts).decode(), told, request.input.decode(), answer.decode()]))
"""


def test_the_old_ends_are_what_the_old_code_was(tmp_path: Path) -> None:
    archive = b""
    if git := shutil.which("git"):
        command = [git, "-C", str(ROOT), "archive", "--format=zip", BEFORE_EVENTS, "protocol"]
        archive = subprocess.run(command, capture_output=True, check=False).stdout
    if not archive:
        pytest.skip("this clone has no history to compare the old ends with")
    ZipFile(BytesIO(archive)).extractall(tmp_path)
    asked = NewGateway(events=True).ask(b'"x"')
    lines = NewWorker().answer(asked, WORDS).splitlines(keepends=True)
    done = subprocess.run(
        [sys.executable, "-c", OLD_CODE],
        input="\n".join(line.hex() for line in (asked, *lines)),
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    wrote, told, read, answered = json.loads(done.stdout)
    old = OldGateway()
    assert wrote.encode() == old.ask(b'"x"')
    assert (read, answered.encode()) == ('"x"', OldWorker().answer(asked, WORDS))
    for line, verdict in zip(lines, told, strict=True):
        old = OldGateway()
        old.hear(line)
        assert bool(old.refused) is (verdict == "Malformed")


def test_what_one_request_said_of_itself_does_not_bind_the_next() -> None:
    """A worker answers requests with and without events on one connection."""
    worker = WorkerConnection()
    peer = GatewayConnection(ids=itertools.count(1))
    peer.receive_data(
        worker.send_ready(handlers=["invoke"], concurrency=2, tools=True, modes=["text"])
    )
    for events in (True, False):
        line = request_line(peer, "invoke", b"1", stream=True, request_id="r", events=events)[1]
        worker.receive_data(line)
    said = worker.send_event(1, Raw(b'{"type":"reasoning","text":""}'))
    said += worker.send_end(2) + worker.send_end(1, outcome=OUTCOME)
    assert [type(each) for each in peer.receive_data(said)] == [Event, End, End]
