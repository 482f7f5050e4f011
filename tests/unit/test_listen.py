"""The end of a listener: whoever is connected is served, and nobody is connected any more."""

from __future__ import annotations

import errno
import select
import socket

import pytest

from gateway.front.listen import refuse_handshakes


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_after_the_last_handshake_connections_wait_and_none_is_established(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, 0), family=family)
    except OSError:
        pytest.skip(f"this machine has no {host}")
    address = listener.getsockname()
    with listener, socket.socket(family) as late:
        early = socket.create_connection(address[:2])
        refuse_handshakes(listener)
        late.setblocking(False)
        assert late.connect_ex(address) == errno.EINPROGRESS
        served = listener.accept()[0]
        early.sendall(b"what a client that is connected says")
        assert served.recv(100) == b"what a client that is connected says"
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
        # On loopback a handshake is over when connect(2) returns.
        assert select.select([], [late], [], 0) == ([], [], [])
        served.close()
        early.close()
