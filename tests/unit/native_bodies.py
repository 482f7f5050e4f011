"""Bodies of the native dialect, as calls of one agent."""

from __future__ import annotations

from gateway.call import Call
from gateway.front.dialect import RequestHead
from gateway.front.native.body import read_call

HEAD = RequestHead(request_id="r-1")


def read(body: bytes | str, kind: str = "invoke", head: RequestHead = HEAD) -> Call:
    return read_call("a", kind, head, body if isinstance(body, bytes) else body.encode())  # type: ignore[arg-type]
