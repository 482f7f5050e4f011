"""The dialect's one path. No request on it is a call by itself: see the package's docstring."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.front.mcp.codec import PATH
from gateway.front.mcp.errors import encode_error

if TYPE_CHECKING:
    from gateway.errors import GatewayError
    from gateway.front.dialect import Codec, Response, RunPath


class McpDialect:
    """A `Dialect` that only writes errors."""

    def match(self, path: str) -> Codec | None:
        del path
        return None

    def match_run(self, path: str) -> RunPath | None:
        del path
        return None

    def covers(self, path: str) -> bool:
        return path == PATH or path.startswith(PATH + "/")

    def encode_error(self, error: GatewayError, request_id: str) -> Response:
        """An error of a request that the SDK has not got."""
        return encode_error(error, request_id)
