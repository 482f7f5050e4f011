"""The end of a listener: whoever is connected is served, and nobody is connected any more."""

from __future__ import annotations

import ctypes
import errno
import select
import socket
import struct

import pytest

from gateway.front.listen import _SO_ATTACH_FILTER, refuse_handshakes
from tests.conftest import need


def _may_filter() -> bool:
    """Whether a socket of this user may have a filter: this one passes everything on."""
    passes = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0xFFFFFFFF))
    program = struct.pack("HP", 1, ctypes.addressof(passes))
    with socket.socket() as probe:
        try:
            probe.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
        except PermissionError:
            return False
    return True


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_after_the_last_handshake_connections_wait_and_none_is_established(host: str) -> None:
    need(_may_filter(), "this kernel lets only root attach a filter to a socket")
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
