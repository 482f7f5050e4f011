"""Both ends, connected through pipes that split their bytes anywhere, driven at random.

The model is what a reader of the specification would keep: which requests are in which state, and
what each end has still to hear. Legal actions must arrive as they were meant, in order; illegal
ones must be refused where they are made (LocalProtocolError) or named where they arrive.
"""

from __future__ import annotations

import json
from itertools import count
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from protocol import (
    Cancel,
    Chat,
    Chunk,
    End,
    Failure,
    Invoke,
    LocalProtocolError,
    Malformed,
    Ready,
    Result,
    Violation,
    on_one_line,
)
from protocol.gateway_side import GatewayConnection
from protocol.worker_side import WorkerConnection

from .helpers import request_line

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
payloads = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
picks = st.integers(0, 2**16)


class Pipe:
    """Bytes on their way, and what their reader should make of them, line by line."""

    def __init__(self) -> None:
        self.bytes = b""
        self.meanings: list[Any] = []

    def write(self, line: bytes, *meaning: Any) -> None:
        self.bytes += line
        self.meanings += meaning

    def read(self, size: int) -> bytes:
        data, self.bytes = self.bytes[:size], self.bytes[size:]
        return data


class BothEnds(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.gateway = GatewayConnection(ids=count(1))
        self.worker = WorkerConnection()
        self.down, self.up = Pipe(), Pipe()
        self.concurrency = 1
        self.ready_heard = False
        self.sent = 0
        self.waiting: set[int] = set()
        """Sent, and the gateway has not heard their end."""
        self.owed: dict[int, str] = {}
        """Arrived at the worker, and not ended there; with their method."""
        self.chunked: set[int] = set()

    @initialize(concurrency=st.none() | st.integers(1, 4))
    def start(self, concurrency: int | None) -> None:
        if concurrency is None:
            return
        line = self.worker.send_ready(handlers=["invoke", "chat"], concurrency=concurrency)
        ready = Ready(protocol=1, handlers=("invoke", "chat"), concurrency=concurrency)
        self.up.write(line, ready)

    def owed_one(self, pick: int) -> int:
        return sorted(self.owed)[pick % len(self.owed)]

    # The gateway

    @rule(value=payloads, method=st.sampled_from(["invoke", "chat"]), stream=st.booleans())
    def ask(self, value: Any, method: str, stream: bool) -> None:
        text = json.dumps(value, indent=1, ensure_ascii=False).encode()
        kind = Invoke if method == "invoke" else Chat
        if len(self.waiting) >= self.concurrency:
            with pytest.raises(LocalProtocolError):
                self.gateway.send_request(method, text, stream=stream, request_id="r")
            return
        request_id, line = request_line(self.gateway, method, text, stream=stream, request_id="r")
        self.sent += 1
        assert request_id == self.sent
        self.waiting.add(request_id)
        meaning = kind(request_id, on_one_line(text), stream=stream, context=b"{}", request_id="r")
        self.down.write(line, meaning)

    @rule(request_id=st.integers(0, 8))
    def cancel(self, request_id: int) -> None:
        if self.ready_heard and request_id in self.waiting:
            self.down.write(self.gateway.send_cancel(request_id), Cancel(request_id))
        else:
            with pytest.raises(LocalProtocolError):
                self.gateway.send_cancel(request_id)

    @rule(size=st.integers(1, 200))
    def gateway_reads(self, size: int) -> None:
        for event in self.gateway.receive_data(self.up.read(size)):
            meaning = self.up.meanings.pop(0)
            if isinstance(event, Malformed):
                assert (event.id, event.error.violation, event.error.request_id) == meaning
                continue
            assert event == meaning
            if isinstance(event, Ready):
                self.ready_heard = True
                self.concurrency = event.concurrency
            elif not isinstance(event, Chunk):
                self.waiting.remove(event.id)

    # The worker

    @rule(size=st.integers(1, 200))
    def worker_reads(self, size: int) -> None:
        for event in self.worker.receive_data(self.down.read(size)):
            assert event == self.down.meanings.pop(0)
            if not isinstance(event, Cancel):
                self.owed[event.id] = "invoke" if isinstance(event, Invoke) else "chat"

    @precondition(lambda self: self.owed)
    @rule(pick=picks, text=texts)
    def chunk(self, pick: int, text: str) -> None:
        request_id = self.owed_one(pick)
        line = self.worker.send_chunk(request_id, text)
        self.chunked.add(request_id)
        encoded = line[line.index(b'"chunk":"') + 8 : -3]
        assert json.loads(encoded) == text
        self.up.write(line, Chunk(request_id, encoded))

    @precondition(lambda self: self.owed)
    @rule(pick=picks, value=st.integers() | texts)
    def result(self, pick: int, value: int | str) -> None:
        request_id = self.owed_one(pick)
        if self.owed[request_id] == "invoke":
            send, other = self.worker.send_output, self.worker.send_message
            answer: Any = value
        else:
            send, other = self.worker.send_message, self.worker.send_output
            answer = {"role": "assistant", "content": [value]}
        with pytest.raises(LocalProtocolError):
            other(request_id, {"role": "user", "content": ""})
        if request_id in self.chunked:
            with pytest.raises(LocalProtocolError):
                send(request_id, answer)
            return
        line = send(request_id, answer)
        encoded = json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()
        event = self.gateway_would_hear(encoded, line)
        self.up.write(line, Result(request_id, event))
        del self.owed[request_id]

    @staticmethod
    def gateway_would_hear(encoded: bytes, line: bytes) -> bytes:
        """The payload of a line: everything between its key and the two braces at the end."""
        start = min(
            line.find(key) + len(key) for key in (b'"output":', b'"message":') if key in line
        )
        payload = line[start:-3]
        assert json.loads(payload) == json.loads(encoded)
        return payload

    @precondition(lambda self: self.owed)
    @rule(pick=picks)
    def end(self, pick: int) -> None:
        request_id = self.owed_one(pick)
        self.up.write(self.worker.send_end(request_id), End(request_id))
        del self.owed[request_id]

    @precondition(lambda self: self.owed)
    @rule(pick=picks, code=st.integers(-(2**40), 2**40), message=texts)
    def error(self, pick: int, code: int, message: str) -> None:
        request_id = self.owed_one(pick)
        line = self.worker.send_error(request_id, code, message)
        self.up.write(line, Failure(request_id, code, message))
        del self.owed[request_id]

    @rule(request_id=st.integers(0, 8))
    def answer_what_is_not_owed(self, request_id: int) -> None:
        if request_id in self.owed:
            return
        for send in (self.worker.send_end, lambda i: self.worker.send_chunk(i, "")):
            with pytest.raises(LocalProtocolError):
                send(request_id)

    @precondition(lambda self: self.up.bytes or self.sent)
    @rule()
    def say_ready_too_late(self) -> None:
        if self.worker_has_spoken:
            with pytest.raises(LocalProtocolError):
                self.worker.send_ready(handlers=[])

    # A worker that breaks the rules for a request that has ended: reported, and nothing else.

    @precondition(lambda self: set(range(1, self.sent + 1)) - self.waiting)
    @rule(pick=picks, late=st.sampled_from(["chunk", "result", "shape"]))
    def speak_after_the_end(self, pick: int, late: str) -> None:
        ended = sorted(set(range(1, self.sent + 1)) - self.waiting)
        request_id = ended[pick % len(ended)]
        line, violation = {
            "chunk": (
                b'{"method":"chunk","params":{"id":%d,"chunk":""}}\n',
                Violation.CHUNK_AFTER_END,
            ),
            "result": (b'{"id":%d,"result":{}}\n', Violation.SECOND_RESULT),
            "shape": (b'{"id":%d,"result":[]}\n', Violation.WRONG_SHAPE),
        }[late]
        self.up.write(line % request_id, (None, violation, request_id))

    @property
    def worker_has_spoken(self) -> bool:
        return "silent" not in repr(self.worker)

    @invariant()
    def each_end_knows_what_is_open(self) -> None:
        assert self.gateway.in_flight == self.waiting
        assert self.worker.open_requests == set(self.owed)
        assert not self.gateway.broken

    def teardown(self) -> None:
        self.worker_reads(len(self.down.bytes))
        assert not self.down.meanings
        for request_id in list(self.owed):
            self.up.write(self.worker.send_end(request_id), End(request_id))
            del self.owed[request_id]
        self.gateway_reads(len(self.up.bytes))
        assert not self.up.meanings
        assert not self.gateway.in_flight


TestBothEnds = BothEnds.TestCase
TestBothEnds.settings = settings(deadline=None, max_examples=60, stateful_step_count=40)


class BrokenWorker(RuleBasedStateMachine):
    """A worker that says anything: the gateway's end never raises, and ends each request once."""

    def __init__(self) -> None:
        super().__init__()
        self.gateway = GatewayConnection(max_line_bytes=400, ids=count(1))
        self.twin = GatewayConnection(max_line_bytes=400, ids=count(1))
        self.open: set[int] = set()

    @precondition(lambda self: not self.gateway.broken)
    @rule()
    def ask(self) -> None:
        try:
            request_id, line = request_line(
                self.gateway, "invoke", b"1", stream=False, request_id="r"
            )
        except LocalProtocolError:
            assert self.open
            return
        assert request_line(self.twin, "invoke", b"1", stream=False, request_id="r") == (
            request_id,
            line,
        )
        assert request_id not in self.open
        self.open.add(request_id)

    @rule(
        pieces=st.lists(
            st.sampled_from(
                [
                    b'{"id":', b"1", b"2", b"7", b',"result":', b"{}", b'{"output":1}', b"}",
                    b',"error":{"code":1}', b'{"method":"chunk","params":', b'{"id":1,"chunk":"a"}',
                    b'{"method":"ready","params":{"protocol":1,"handlers":[],"concurrency":3}}',
                    b'{"id":1,"result":{"output":1}}', b'{"id":2,"result":{}}', b"\n", b"\n",
                    b'{"id":1,"result":{"output":"\xff"}}', b'{"id":2,"result":0}', b" ", b"\r\n",
                    b'"\\ud800"', b"\xff", b"[" * 300,
                ]
            ),
            max_size=12,
        ),
        cut=st.integers(0, 300),
    )  # fmt: skip
    def worker_says(self, pieces: list[bytes], cut: int) -> None:
        data = b"".join(pieces)
        events = self.gateway.receive_data(data[:cut]) + self.gateway.receive_data(data[cut:])
        again = [e for i in range(len(data)) for e in self.twin.receive_data(data[i : i + 1])]
        assert list(map(repr, events)) == list(map(repr, again))
        for event in events:
            if isinstance(event, Malformed):
                if event.id is not None:
                    self.open.remove(event.id)
            elif isinstance(event, Chunk):
                assert event.id in self.open
            elif not isinstance(event, Ready):
                self.open.remove(event.id)
        if self.gateway.broken:
            self.open.clear()

    @invariant()
    def what_is_open_is_known(self) -> None:
        assert self.gateway.in_flight == self.open
        assert repr(self.gateway) == repr(self.twin)


TestBrokenWorker = BrokenWorker.TestCase
TestBrokenWorker.settings = settings(deadline=None, max_examples=150, stateful_step_count=15)
