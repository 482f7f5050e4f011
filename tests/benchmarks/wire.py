"""A raw-socket HTTP/1.1 client: single requests with their times, and counters of streams.

It reads as much at once as there is and searches only for what it counts, so that it is faster than
any server here; the measure `ceiling` shows by how much.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

READ_BYTES = 1 << 20
EVENT = b"data: {"
"""The beginning of every chunk, of ours and of the peers'; the last event, `[DONE]`, begins
otherwise."""
NUMBER = b"@NUMBER@"
"""A placeholder in a request's body for a number that no other request of the same load has."""
DONE = b"[DONE]"
END_OF_BODY = b"0\r\n\r\n"
"""The end of a chunked body. An event ends with a newline, so no event looks like it."""

SECONDS = 60.0
"""Timeout of any socket operation: far longer than anything that is measured."""


@dataclass(frozen=True)
class Request:
    """A POST request: its path, body and headers."""

    path: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),)
    last: bytes = DONE
    """What the end of a whole stream contains."""
    counted: bytes = EVENT
    """What is counted in a stream."""

    def encode(self) -> bytes:
        body = self.body.replace(NUMBER, b"1")
        lines = [f"POST {self.path} HTTP/1.1", "Host: 127.0.0.1"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        lines += [f"Content-Length: {len(body)}", "", ""]
        return "\r\n".join(lines).encode() + body


class BadAnswerError(Exception):
    """A server did not answer as it should have."""


class Client:
    """One keep-alive connection. `post` and `get` return status and body.

    Only a body with a Content-Length is read; after any other, the connection cannot be used again.
    """

    def __init__(self, port: int, *, address: str = "127.0.0.1") -> None:
        self._address = address
        self.headers: dict[str, str] = {}
        """The headers of the last answer, by lower-case name."""
        self._socket = connect(port, address)
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def post(self, request: Request) -> tuple[int, bytes]:
        return self._exchange(request.encode())

    def get(self, path: str) -> tuple[int, bytes]:
        return self._exchange(f"GET {path} HTTP/1.1\r\nHost: {self._address}\r\n\r\n".encode())

    def timed(self, request: Request) -> float:
        """Seconds from sending a request to its 200. Raises BadAnswerError for another status."""
        data = request.encode()
        start = time.perf_counter()
        status, body = self._exchange(data)
        seconds = time.perf_counter() - start
        if status != 200:
            raise BadAnswerError(f"{request.path}: {status} {body[:500]!r}")
        return seconds

    def _exchange(self, data: bytes) -> tuple[int, bytes]:
        self._socket.sendall(data)
        words = self._file.readline().split()
        if len(words) < 2:
            raise BadAnswerError("the server closed the connection")
        self.headers = {}
        while (line := self._file.readline()) not in {b"\r\n", b""}:
            name, _, value = line.decode("latin-1").partition(":")
            self.headers[name.lower()] = value.strip()
        return int(words[1]), self._file.read(int(self.headers.get("content-length", "0")))


class Stream:
    """One open stream. Counts its events, and passes each piece of data to `on_data`."""

    def __init__(
        self, port: int, request: Request, on_data: Callable[[bytes], object] | None = None
    ) -> None:
        self._port = port
        self.socket = connect(port)
        self.socket.sendall(request.encode())
        self.events = 0
        self.ended = False
        self._on_data = on_data
        self._tail = b""
        self._begun = self._done = self._closing = False
        self._last = request.last
        self._counted = request.counted

    def read(self) -> None:
        """Read once. Raises BadAnswerError if the response is no stream, or is cut."""
        data = self.socket.recv(READ_BYTES)
        if not data:
            raise BadAnswerError(f"a stream was cut after {self.events} events")
        if self._on_data is not None:
            self._on_data(data)
        text = self._tail + data
        if not self._begun:
            if b"\r\n" not in text:
                self._tail = text
                return
            if b" 200" not in text[:16] or b"event: error" in text:
                raise BadAnswerError(f"no stream: {text[:500]!r}")
            self._begun = True
            self._closing = b"connection: close" in text[:1024].lower()
        self.events += text.count(self._counted)
        # From the end, where it is: what comes before would take longer than the rest of this.
        self._done = self._done or text.rfind(self._last) >= 0
        self.ended = text.endswith(END_OF_BODY)
        if self.ended and not self._done:
            raise BadAnswerError(f"a stream ended without {self._last!r}: {text[-500:]!r}")
        # Keep what may be the beginning of an event, but too little to count an event twice.
        self._tail = text[-len(self._counted) + 1 :]

    def again(self, request: Request) -> None:
        """Send another request after the end, on a new connection if the server closes this one."""
        if self._closing:
            self.close()
            self.socket = connect(self._port)
        self.ended = self._begun = self._done = False
        self._last = request.last
        self._tail = b""
        self.socket.sendall(request.encode())

    def close(self) -> None:
        self.socket.close()


def connect(port: int, address: str = "127.0.0.1") -> socket.socket:
    connection = socket.create_connection((address, port), timeout=SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def count_events(port: int, request: Request, *, connections: int, seconds: float) -> float:
    """Request stream after stream on `connections` for `seconds`; returns events per second."""
    streams = [Stream(port, request) for _ in range(connections)]
    start = time.perf_counter()
    end = start
    until = start + seconds
    with selectors.DefaultSelector() as selector:
        for stream in streams:
            selector.register(stream.socket, selectors.EVENT_READ, stream)
        running = connections
        while running:
            for key, _ in selector.select(SECONDS):
                stream = key.data
                stream.read()
                if stream.ended:
                    end = time.perf_counter()
                    selector.unregister(stream.socket)
                    if end < until:
                        stream.again(request)
                        selector.register(stream.socket, selectors.EVENT_READ, stream)
                    else:
                        running -= 1
    for stream in streams:
        stream.close()
    return sum(stream.events for stream in streams) / (end - start)


def watch(streams: Sequence[Stream], *, seconds: float) -> None:
    """Read the open streams for `seconds`, or until all have ended."""
    until = time.perf_counter() + seconds
    with selectors.DefaultSelector() as selector:
        for stream in streams:
            selector.register(stream.socket, selectors.EVENT_READ, stream)
        running = len(streams)
        while running and (left := until - time.perf_counter()) > 0:
            for key, _ in selector.select(left):
                key.data.read()
                if key.data.ended:
                    selector.unregister(key.data.socket)
                    running -= 1
