"""The bytes of one response: its head, and its body in a framing that its client understands.

Pure: who responds, and with what, is not known here. The framing is decided by the head (RFC 9112,
6.3), and so is whether the connection goes on after the response:

    framing   when                                  the body's end is
    NONE      HEAD, 204, 304                        the head's
    LENGTH    the head has a Content-Length         so many bytes; with fewer, the connection's
    CHUNKED   any other response to HTTP/1.1        the last chunk
    CLOSE     any other response to HTTP/1.0        the connection's

Field values are not to be trusted to be one line: some are taken from a request or from an agent. A
head that would be read in another way than it was meant is never sent (RFC 9112, 11.1).
"""

from __future__ import annotations

from enum import Enum
from functools import lru_cache
from time import time
from typing import TYPE_CHECKING
from wsgiref.handlers import format_date_time

import h11

if TYPE_CHECKING:
    from collections.abc import Iterable

CONTINUE = b"HTTP/1.1 100 \r\n\r\n"
"""The one interim response that is sent (RFC 9110, 15.2.1)."""

_NO_CONTENT = frozenset({204, 304})

_DECIDED_HERE = frozenset({b"connection", b"date", b"keep-alive", b"transfer-encoding"})
"""The fields of which an application's are not written. `Connection` is obeyed: all that one can
ask for by it is the end of the connection."""


class Framing(Enum):
    """How the end of a body is told; see the module's docstring."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"


class HTTP1Response:
    """The response to one request. Each method returns the bytes to write.

    Raises h11.LocalProtocolError for what is not legal now. After a head that is refused another
    may follow; in a body nothing can be made good, and nothing more is written.
    """

    __slots__ = ("_framing", "_head_only", "_left", "_version", "last", "state")

    def __init__(self, method: bytes = b"", version: bytes = b"1.1") -> None:
        """Both are the request's; without arguments, there is none that could be read."""
        self.state: object = h11.SEND_RESPONSE if method else h11.IDLE
        """As h11's for a server."""
        self.last = False
        """Whether the connection ends with this response: known once it has begun."""
        self._head_only = method == b"HEAD"
        self._version = version
        self._framing = Framing.NONE
        self._left = 0

    def begin(
        self, status: int, fields: Iterable[tuple[bytes, bytes]], *, last: bool, keep_alive: bytes
    ) -> bytes:
        """The head. `last`: the connection ends with this response, whatever the fields say. If it
        does not, the head ends with the lines `keep_alive`.
        """
        if self.state not in {h11.SEND_RESPONSE, h11.IDLE}:
            self._fail(f"a response begins in {self.state}")
        lines = [b"HTTP/1.1 %d \r\n" % status]
        self._framing = Framing.CHUNKED if self._version >= b"1.1" else Framing.CLOSE
        for name, value in fields:
            if name == b"content-length":
                self._framing = Framing.LENGTH
                self._left = int(value)
            elif name in _DECIDED_HERE:
                last = last or name == b"connection"
                continue
            lines.append(b"%b: %b\r\n" % (name, value))
        if self._head_only or status in _NO_CONTENT:
            self._framing = Framing.NONE
        elif self._framing is Framing.CHUNKED:
            lines.append(b"transfer-encoding: chunked\r\n")
        self.last = last or self._framing is Framing.CLOSE
        lines.append(_date_line(int(time())))
        head = b"".join(lines)
        if not head.count(b"\n") == head.count(b"\r") == len(lines) or b"\0" in head:
            raise h11.LocalProtocolError("a field holds an end of line or a NUL")
        self.state = h11.SEND_BODY
        return b"%b%b\r\n" % (head, b"connection: close\r\n" if self.last else keep_alive)

    def data(self, data: bytes) -> bytes:
        """A part of the body."""
        self._check_in_body()
        if self._framing is Framing.CHUNKED:
            return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
        if self._framing is Framing.LENGTH:
            self._left -= len(data)
            if self._left < 0:
                self._fail("the body is longer than its Content-Length")
        return b"" if self._framing is Framing.NONE else data

    def end(self) -> bytes:
        """The end of the body."""
        self._check_in_body()
        if self._framing is Framing.LENGTH and self._left:
            self._fail("the body is shorter than its Content-Length")
        self.state = h11.DONE
        return b"0\r\n\r\n" if self._framing is Framing.CHUNKED else b""

    def _check_in_body(self) -> None:
        if self.state is not h11.SEND_BODY:
            self._fail(f"a part of a body in {self.state}")

    def _fail(self, why: str) -> None:
        self.state = h11.ERROR
        raise h11.LocalProtocolError(why)


@lru_cache(maxsize=1)
def _date_line(second: int) -> bytes:
    return b"date: %b\r\n" % format_date_time(second).encode()
