"""The table `[agents.NAME.sandbox]`: what it takes, and how it says what is wrong."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.config.sandbox import SandboxSettings, parse_size


def decode(**table: Any) -> SandboxSettings:
    return msgspec.convert(table, SandboxSettings)


def test_the_defaults_give_no_network_no_mounts_and_no_environment() -> None:
    settings = decode()
    assert settings.network_hosts == ()
    assert settings.mounts_ro == settings.mounts_rw == settings.env_allow == ()
    assert settings.env == {}


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1", 1),
        ("64K", 64 << 10),
        ("512M", 512 << 20),
        ("1.5G", 3 << 29),
        ("2GiB", 2 << 30),
        ("2gb", 2 << 30),
        (" 1T ", 1 << 40),
        (4096, 4096),
    ],
)
def test_a_size_is_bytes_with_a_binary_unit(text: str | int, size: int) -> None:
    assert parse_size("memory", text) == size


@pytest.mark.parametrize("text", ["", "M", "-1M", "512 megabytes", "1e9", "0x10", "12Q"])
def test_what_is_not_a_size_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match=r"memory is .* expected a size such as 512M"):
        parse_size("memory", text)


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ({"memory": "lots"}, "memory is 'lots', expected a size"),
        ({"memory": "1M"}, "memory is '1M', expected 0 for no limit, or at least 16M"),
        ({"memory": -5}, "memory is -5, expected a size that is not negative"),
        ({"tmp": "0"}, "tmp is '0', expected a size above 0"),
        ({"pids": 2}, "pids is 2, expected 0 for no limit, or at least 8"),
        ({"pids": "many"}, "Expected `int`, got `str` - at `$.pids`"),
        ({"nofile": 3}, "nofile is 3, expected at least 16"),
        ({"cpu": -1.0}, "cpu is -1.0, expected a number of CPUs"),
        ({"cpu": float("nan")}, "cpu is nan, expected a number of CPUs"),
        ({"env": {"A-B": "x"}}, "env is 'A-B', expected a name"),
        ({"env": {"A": "x\0y"}}, "env.A holds a null character"),
        ({"env_allow": [""]}, "env_allow is '', expected a name"),
        ({"mounts_ro": [""]}, "mounts_ro is '', expected the path"),
        ({"network": ["example.com"]}, "network is 'example.com', expected host:port"),
        ({"network": ["example.com:0"]}, "network is 'example.com:0', expected host:port"),
        ({"network": ["https://a:80"]}, "network is 'https://a:80', expected host:port"),
        *(
            ({"network": [host]}, "agents never reach this machine")
            for host in ("127.0.0.1:80", "localhost:80", "a.LOCALHOST:80", "169.254.169.254:80")
        ),
        ({"require": ["speed"]}, "Invalid enum value 'speed' - at `$.require[0]`"),
        ({"memroy": "1G"}, "unknown field `memroy`"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(
    table: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        decode(**table)
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("network", "hosts"),
    [
        (False, ()),
        (True, ("*:*",)),
        (
            ["api.example.com:443", "*.example.org:443"],
            ("api.example.com:443", "*.example.org:443"),
        ),
    ],
)
def test_the_network_is_none_all_that_is_public_or_a_list(network: Any, hosts: Any) -> None:
    assert decode(network=network).network_hosts == hosts
