"""What a request is for, read the same for every route."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import pytest

from gateway.errors import InvalidRequest, NotFound
from gateway.front.target import SERVER_WIDE, Target, read_target


def target(raw: bytes, method: str = "GET", sent: str | None = None) -> Target:
    path, _, query = raw.partition(b"?")
    scope: dict[str, Any] = {
        "type": "http",
        "method": method,
        "path": unquote(path.decode("ascii")),
        "raw_path": path,
        "query_string": query,
    }
    if sent is not None:
        scope["state"] = {"method": sent}
    return read_target(scope)


@pytest.mark.parametrize(
    ("raw", "path", "authority"),
    [
        (b"/agents", "/agents", None),
        (b"/agents?x=http://y", "/agents", None),
        (b"/%61gents", "/agents", None),
        (b"/x//agents", "/x//agents", None),
        (b"/agents/", "/agents/", None),
        (b"/x/../agents", "/x/../agents", None),
        (b"/x/%2e%2E/agents", "/x/../agents", None),
        (b"/100%", "/100%", None),
        (b"http://host/agents", "/agents", b"host"),
        (b"HTTPS://Host:8080/agents?x", "/agents", b"Host:8080"),
        (b"http://host/%61gents", "/agents", b"host"),
        (b"http://host", "/", b"host"),
        (b"http://host?x", "/", b"host"),
        (b"http:///agents", "/agents", b""),
    ],
)
def test_a_path_is_decoded_and_not_rewritten(raw: bytes, path: str, authority) -> None:
    assert target(raw) == (path, authority)


@pytest.mark.parametrize(
    "raw", [b"", b"?x", b"agents", b"*", b"localhost:443", b"ftp://host/agents", b"http:/agents"]
)
def test_what_is_neither_a_path_nor_a_url_is_a_bad_request(raw: bytes) -> None:
    with pytest.raises(InvalidRequest, match="expected a path or a URL"):
        target(raw)


@pytest.mark.parametrize("raw", [b"/agent%2Fecho", b"http://host/agent%2fecho", b"/%2f"])
def test_an_encoded_slash_separates_nothing(raw: bytes) -> None:
    with pytest.raises(NotFound, match="percent-encoded"):
        target(raw)


@pytest.mark.parametrize("raw", [b"//agents", b"///", b"http://host//agents"])
def test_two_slashes_are_not_one(raw: bytes) -> None:
    with pytest.raises(NotFound, match="begins with two slashes"):
        target(raw)


def test_the_server_as_a_whole_has_options_only() -> None:
    assert target(b"*", "OPTIONS") == (SERVER_WIDE, None)


def test_a_method_is_case_sensitive() -> None:
    assert target(b"/live", "GET", sent="GET").path == "/live"
    with pytest.raises(InvalidRequest, match="the method is 'get', expected GET"):
        target(b"/live", "GET", sent="get")
