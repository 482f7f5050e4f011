"""What serves a whole path by itself: a protocol that comes with machinery of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from gateway.errors import Forbidden
from gateway.front.dialect import shown

if TYPE_CHECKING:
    import trio

    from gateway.front.client import ClientRequest
    from gateway.front.cors import Cors

_OF_ORIGIN = frozenset({b"host", b"origin"})


class Mount(Protocol):
    """What serves `path`, once a request for it is admitted and its caller is known."""

    path: str

    async def respond(self, request: ClientRequest, scope: Any) -> None:
        """Respond to one request. Raises GatewayError before the response has begun, and
        ClientGoneError."""

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Do what requests need, until cancelled. Must be running while there are any."""


def check_origin(scope: Any, cors: Cors | None) -> None:
    """Raises Forbidden for a page of another origin than this one and those of `cors`.

    Such a page could not read the response, but it need not.
    """
    fields = [(name, value) for name, value in scope["headers"] if name in _OF_ORIGIN]
    hosts = {value for name, value in fields if name == b"host"}
    for origin in {value for name, value in fields if name == b"origin"}:
        shared = cors is not None and cors.allows(origin)
        if not shared and {origin.partition(b"://")[2]} != hosts:
            raise Forbidden(f"the origin {shown(origin)} is not one of [server] cors")
