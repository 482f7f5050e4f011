"""The tables `[services.NAME]`: what is wrong is named, and a key is shown nowhere."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trustme

from gateway.config import ConfigError, load
from gateway.config.services import (
    MISLEADING_HEADERS,
    OWN_HEADERS,
    ServiceSettings,
    key_files,
    key_variables,
    read_service,
)
from gateway.sandbox.network.rules import MISLEADING_REQUEST_HEADERS, NEVER_PASSED_REQUEST_HEADERS

KEY = "sk-proj-4fT9xYzABCDEFGHIJ"
LOCAL = "http://127.0.0.1:11434/v1"


def service(**settings: Any) -> ServiceSettings:
    return msgspec.convert(settings, ServiceSettings)


def read(tmp_path: Path, toml: str) -> Any:
    path = tmp_path / "gateway.toml"
    path.write_text(toml)
    return load(path)


def test_a_preset_says_where_a_service_is_and_what_clients_read(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        """
        [services.openai]
        preset = "openai"
        allow = ["POST /responses"]
        [agents.bot]
        command = "bot"
        services = ["openai"]
        """,
    )
    found = read_service("openai", settings.services["openai"], {"OPENAI_API_KEY": KEY})
    assert found.rules()["host"] == "api.openai.com"
    assert found.header == {"Authorization": f"Bearer {KEY}"}
    assert found.secrets == (KEY,)
    assert found.env == {"OPENAI_BASE_URL": "{url}", "OPENAI_API_KEY": "placeholder"}
    assert KEY not in repr(found) + repr(found.describe())


def test_a_service_without_a_preset_is_found_by_a_variable_of_its_name() -> None:
    found = read_service("my-llm", service(url=LOCAL), {})
    assert found.env == {"MY_LLM_BASE_URL": "{url}"}
    assert (found.rules()["host"], found.rules()["port"]) == ("127.0.0.1", 11434)
    assert found.rules()["base"] == "/v1"
    assert found.secrets == ()


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com",
        "example.com/v1",
        "https://",
        "https://user:pass@example.com",
        "https://@example.com",
        "https://example.com/v1?x=y",
        "https://example.com/v1?",
        "https://example.com/v1#",
        "https://example.com/../v1",
        "https://example.com/%2e%2e/v1",
        "https://example.com//v1",
        "https://example.com:0",
        "https://example.com:99999",
        "https://example.com:x",
        "https://exa mple.com",
        "https://*.example.com",
        "https://example.com\\@evil",
        "https://[::1",
        "http://169.254.169.254/latest",
        "http://[fe80::1]/",
    ],
)
def test_a_url_that_is_more_or_less_than_a_place_is_refused(url: str) -> None:
    with pytest.raises((ValueError, msgspec.ValidationError), match="url is"):
        service(url=url)


@pytest.mark.parametrize(
    "table",
    [
        f"url = 'https://user:{KEY}@example.com/v1'",
        f"url = 'https://example.com/v1?key={KEY}'",
        f"url = 'https://example.com/v1'\nheader = 'Authorization: Bearer {KEY}'",
        f"url = 'https://example.com/v1'\nheader = {{ Authorization = ['{KEY}'] }}",
        f"url = 'https://example.com/v1'\nenv = 'KEY={KEY}'",
    ],
)
def test_an_error_shows_no_key_that_stands_where_none_belongs(table: str, tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(f"[services.x]\n{table}\n[agents.a]\ncommand = 'true'\n")
    with pytest.raises(ConfigError, match=r"services\.x\.?(?:url|header|env|: url)") as raised:
        load(path)
    assert KEY not in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "url is missing"),
        ({"preset": "nobody"}, "preset is 'nobody', expected one of .*openai"),
        ({"url": LOCAL, "allow": ["chat"]}, "allow has 'chat'"),
        ({"url": LOCAL, "allow": ["post /x"]}, "allow has"),
        ({"url": LOCAL, "allow": ["GET /x?y"]}, "allow has"),
        ({"url": LOCAL, "allow": ["GET /../y"]}, "allow has"),
        ({"url": LOCAL, "header": {"Host": "x"}}, "header has 'Host'"),
        ({"url": LOCAL, "header": {"a b": "x"}}, "header has 'a b'"),
        ({"url": LOCAL, "header": {"A": "${a-b}"}}, "header.A has a reference"),
        ({"url": LOCAL, "header": {"A": "file:key"}}, "without an absolute path"),
        ({"url": LOCAL, "header": {"A": "Bearer $OPENAI_API_KEY"}}, "header.A has .* no reference"),
        ({"url": LOCAL, "header": {"A": "Bearer ${KEY"}}, "header.A has .* no reference"),
        ({"url": LOCAL, "header": {"A": "Bearer=file:/run/key"}}, "header.A has .* no reference"),
        ({"url": LOCAL, "env": {"A-B": "x"}}, "env has 'A-B'"),
        ({"url": LOCAL, "allow_headers": ["Host"]}, "allow_headers has 'Host'"),
        ({"url": LOCAL, "allow_headers": ["Range"]}, "allow_headers has 'Range'"),
        ({"url": LOCAL, "allow_headers": ["x-*-y"]}, "allow_headers has"),
        *(
            ({"url": LOCAL, "allow_headers": [each]}, "never passed on: .* host, path or method")
            for each in (
                *("X-HTTP-Method-Override", "X-Method-Override", "X-HTTP-Method", "Forwarded"),
                *("X-Forwarded-Host", "X-Forwarded-*", "X_Original_URL", "X-Rewrite-URL", "X-Host"),
            )
        ),
        ({"url": LOCAL, "clocks": {"connect": 0}}, "connect"),
        ({"url": LOCAL, "requests_per_minute": -1}, "requests_per_minute"),
        ({"url": LOCAL, "hedaer": {}}, "hedaer"),
    ],
)
def test_a_wrong_value_is_named(settings: dict[str, Any], words: str) -> None:
    with pytest.raises((ValueError, msgspec.ValidationError), match=words):
        service(**settings)


def test_a_key_may_be_in_a_file_or_a_variable(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    settings = service(
        url=LOCAL,
        header={"Authorization": f"Bearer file:{file}", "X-Two": "${A}.${B}", "X-Plain": "plain"},
    )
    found = read_service("x", settings, {"A": "secret-a", "B": "secret-b"})
    assert found.header == {
        "Authorization": f"Bearer {KEY}",
        "X-Two": "secret-a.secret-b",
        "X-Plain": "plain",
    }
    assert found.secrets == (KEY, "secret-a", "secret-b")
    assert list(key_files(settings)) == [str(file)]
    assert list(key_variables(settings)) == ["A", "B"]


def test_a_key_that_is_written_down_is_a_secret_too() -> None:
    settings = service(url=LOCAL, header={"X-Api-Key": KEY, "Api-Version": "2026-01-01"})
    assert read_service("x", settings, {}).secrets == (KEY,)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        (b" \n", "is empty"),
        (KEY.encode() + b"\nX: y", "characters of no header field"),
        (b"\xff" * 8, "no text in ASCII"),
        (b"k" * 70_000, "longer than"),
    ],
)
def test_a_file_without_a_key_is_named_and_not_shown(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    settings = service(url=LOCAL, header={"Authorization": f"file:{file}"})
    with pytest.raises(ValueError, match=words) as raised:
        read_service("x", settings, {})
    assert "services.x.header.Authorization" in str(raised.value)
    assert KEY not in str(raised.value)


def test_a_variable_that_is_not_set_is_named() -> None:
    settings = service(preset="openai")
    with pytest.raises(ValueError, match="OPENAI_API_KEY is not set in the gateway's environment"):
        read_service("openai", settings, {})


TWO = '[services.one]\npreset = "openai"\n[services.two]\npreset = "openai"\n'
AGENT = '[agents.bot]\ncommand = "bot"\n'


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        (AGENT + 'services = ["x"]', "agents.bot.services has 'x', expected one of none"),
        (f'[services."a b"]\nurl = "{LOCAL}"\n{AGENT}', "service name 'a b'"),
        (f"[services.x]\n{AGENT}", "services.x: url is missing"),
        (
            TWO + AGENT + 'services = ["one", "two"]',
            "'one' and 'two' both set OPENAI_BASE_URL",
        ),
        (
            f'[server]\nport = 11434\n[services.x]\nurl = "{LOCAL}"\n{AGENT}',
            "services.x.url is .* which is the gateway itself",
        ),
        (
            f'[server]\nport = 1\n[services.x]\nurl = "http://localhost:1"\n{AGENT}',
            "which is the gateway itself",
        ),
    ],
)
def test_what_cannot_work_is_refused_at_start(tmp_path: Path, toml: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read(tmp_path, toml)


def test_settings_name_no_field_that_the_door_keeps_to_itself() -> None:
    assert OWN_HEADERS == NEVER_PASSED_REQUEST_HEADERS
    assert MISLEADING_HEADERS == MISLEADING_REQUEST_HEADERS


def test_the_password_of_basic_is_a_secret_too() -> None:
    encoded = base64.b64encode(b"ada:long-password").decode()
    settings = service(url=LOCAL, header={"Authorization": "Basic ${BOTH}"})
    found = read_service("x", settings, {"BOTH": encoded})
    assert found.secrets == (encoded, "ada:long-password", "long-password")


def test_certificates_are_read_from_a_file_and_checked(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    authority = trustme.CA().cert_pem.bytes()
    file.write_bytes(b"# \xc3\xa9 comment\n" + authority)
    by_setting = service(url="https://a.example", ca=str(file))
    for settings, environ in (
        (by_setting, {}),
        (service(url="https://a.example"), {"SSL_CERT_FILE": str(file)}),
    ):
        assert read_service("x", settings, environ).ca == authority.decode().strip()
    for content in (b"", b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----"):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"services.x.ca: .*ca.pem holds no certificates"):
            read_service("x", by_setting, {})
    with pytest.raises(ValueError, match="No such file"):
        read_service("x", service(url="https://a.example", ca="/nothing"), {})
