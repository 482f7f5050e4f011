"""The route that Prometheus scrapes, and who may read it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Literal, TypeAlias

from quart import Blueprint, Response, request

from gateway.errors import Forbidden, NotFound, Unauthorized
from gateway.front.auth import EXPECTED, NOBODY
from gateway.front.status import caller

if TYPE_CHECKING:
    from gateway.front.auth import Caller

Scrape: TypeAlias = Callable[[str], Awaitable[tuple[bytes, str]]]
"""Makes the body and the media type for a header `Accept`."""


class Readers:
    """Who may read the metrics, as `[server] metrics` has it; see there."""

    def __init__(self, allowed: bool | Literal["open"] | list[str]) -> None:
        self._allowed = allowed

    def __repr__(self) -> str:
        return f"<Readers {self._allowed}>"

    def change(self, allowed: bool | Literal["open"] | list[str]) -> None:
        """They may from now on."""
        self._allowed = allowed

    def check(self, reader: Caller) -> None:
        """Raises Unauthorized, Forbidden, and NotFound where they have been turned off."""
        if not self._allowed:
            raise NotFound("there are no metrics: [server] metrics")
        if self._allowed == "open":
            return
        if reader is NOBODY:
            raise Unauthorized(f"a key is needed to read the metrics: {EXPECTED}")
        if isinstance(self._allowed, list):
            may_read = reader.name in self._allowed
        else:
            may_read = reader.agents is None  # they tell of every agent
        if not may_read:
            raise Forbidden(f"the key {reader.name!r} may not read the metrics: [server] metrics")


def make_metrics_blueprint(scrape: Scrape, readers: Readers) -> Blueprint:
    """Make the route `/metrics`."""
    routes = Blueprint("metrics", __name__)

    @routes.get("/metrics")
    async def metrics() -> Response:
        readers.check(caller())
        body, content_type = await scrape(request.headers.get("accept", ""))
        return Response(body, content_type=content_type)

    return routes
