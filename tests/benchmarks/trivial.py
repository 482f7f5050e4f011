"""A server that does nothing but send: it shows the most that the load generators can take.

    python -m tests.benchmarks.trivial

Every request gets the same prepared bytes: a stream of 1,000 chunks if its body says `stream`, else
one small answer. The server reads no header and creates no object for a request.
"""

from __future__ import annotations

import selectors
import socket

from tests.benchmarks.agents.words import WORD

CHUNKS = 1000
BODY = b'{"output":{"question":"What is the answer to everything?","limit":42}}'
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
    len(BODY),
    BODY,
)
EVENTS = b'data: {"chunk":"%b"}\n\n' % WORD.encode() * CHUNKS + b"data: [DONE]\n\n"
STREAM = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    b"%x\r\n%b\r\n0\r\n\r\n" % (len(EVENTS), EVENTS)
)


def serve(listener: socket.socket) -> None:
    """Answer until the process is ended. A request must arrive in one piece, as small ones do."""
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is listener:
                    selector.register(listener.accept()[0], selectors.EVENT_READ)
                    continue
                connection = key.fileobj
                assert isinstance(connection, socket.socket)
                try:
                    data = connection.recv(65536)
                    connection.sendall(STREAM if b'"stream"' in data else ANSWER if data else b"")
                except OSError:
                    data = b""
                if not data:
                    selector.unregister(connection)
                    connection.close()


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", 0), backlog=128) as it:
        print(f"listening on http://127.0.0.1:{it.getsockname()[1]}", flush=True)
        serve(it)
