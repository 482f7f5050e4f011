"""Where the console is, and whose pages may use it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.datastructures import Headers

from gateway.config import CallerKeys, ServerSettings
from gateway.errors import Forbidden, UnsupportedMediaType
from gateway.front.console.origin import check_change, check_origin
from gateway.front.sockets import has_console
from tests.unit.console import KEYS

SITES = [
    ({}, True),
    ({"Host": "127.0.0.1:8080", "Origin": "http://127.0.0.1:8080"}, True),
    ({"Host": "gateway.example", "Origin": "https://gateway.example"}, True),
    ({"Host": "gateway.example:443", "Origin": "https://Gateway.example"}, True),
    ({"Host": "gateway.example", "Origin": "https://gateway.example:443"}, True),
    ({"Host": "[::1]:8080", "Origin": "http://[::1]:8080"}, True),
    ({"Host": "inside:1", "Origin": "https://outside", "Sec-Fetch-Site": "same-origin"}, True),
    ({"Sec-Fetch-Site": "none"}, True),
    ({"Host": "127.0.0.1:8080", "Origin": "http://127.0.0.1:3000"}, False),
    ({"Host": "127.0.0.1:8080", "Origin": "http://evil.example"}, False),
    ({"Host": "gateway.example", "Origin": "https://gateway.example.evil"}, False),
    ({"Host": "gateway.example", "Origin": "null"}, False),
    ({"Host": "", "Origin": "://"}, False),
    ({"Host": "a", "Origin": "http://a", "Sec-Fetch-Site": "cross-site"}, False),
    ({"Host": "a", "Origin": "http://a", "Sec-Fetch-Site": "same-site"}, False),
    ({"Host": "a", "Sec-Fetch-Site": ""}, False),
]


@pytest.mark.parametrize(("fields", "own"), SITES)
def test_a_browser_says_whose_page_asks(fields: dict[str, str], own: bool) -> None:
    if own:
        check_origin(Headers(fields))
    else:
        with pytest.raises(Forbidden):
            check_origin(Headers(fields))


@given(st.text(max_size=40), st.text(max_size=40))
def test_an_origin_that_does_not_name_the_host_is_another(origin: str, host: str) -> None:
    def field(text: str) -> str:
        return text.replace("\r", "").replace("\n", "")

    if host.lower() not in origin.lower() or not host:
        with pytest.raises(Forbidden):
            check_origin(Headers({"Host": field(host) + "h", "Origin": field(origin)}))


def test_a_change_must_be_what_no_form_can_send() -> None:
    check_change(Headers({"Content-Type": "application/json; charset=utf-8"}))
    for kind in ("text/plain", "multipart/form-data; boundary=application/json", ""):
        with pytest.raises(UnsupportedMediaType):
            check_change(Headers({"Content-Type": kind}))
    with pytest.raises(Forbidden):
        check_change(Headers({"Content-Type": "application/json", "Origin": "http://x"}))


# Strangers


@pytest.mark.parametrize(
    ("setting", "keys", "address", "there"),
    [
        (None, False, "127.0.0.1", True),
        (None, False, "::1", True),
        (None, False, "0.0.0.0", False),
        (None, True, "0.0.0.0", True),
        (True, False, "0.0.0.0", True),
        (False, True, "127.0.0.1", False),
    ],
)
def test_it_is_there_by_default_where_no_stranger_sees_it(
    setting: bool | None, keys: bool, address: str, there: bool
) -> None:
    server = ServerSettings(console=setting)
    assert has_console(server, KEYS if keys else CallerKeys(), [address]) is there


@pytest.mark.parametrize(
    ("setting", "keys", "there"), [(None, False, False), (None, True, True), (True, False, True)]
)
def test_it_is_not_there_by_default_for_whom_a_proxy_on_this_machine_serves(
    setting: bool | None, keys: bool, there: bool
) -> None:
    server = ServerSettings(console=setting, hosts=["gateway.example"])
    assert has_console(server, KEYS if keys else CallerKeys(), ["127.0.0.1"]) is there
