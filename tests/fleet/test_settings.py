"""The table `[fleet]`, and the options for it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from gateway.config import ConfigError, FleetSettings, load
from gateway.config.effective import print_settings
from tests.fleet.nats import NatsServer, needs_nats

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.config import Settings


def loaded(path: Path, table: str, **options: dict[str, Any]) -> Settings:
    path /= "gateway.toml"
    path.write_text(f'[agents.a]\ncommand = "cat"\n[fleet]\n{table}\n')
    environ = {"NATS_PASSWORD": "from the environment"}
    return load(path, environ=environ, **options)


@pytest.mark.parametrize(
    ("fleet", "message"),
    [
        ('name = "x"', "fleet: no role; expected role ="),
        ('role = "back"', "fleet.role: expected 'front', 'host', got 'back'"),
        ('role = "host"\nservers = []', "fleet.*servers is empty"),
        ('role = "host"\nservers = ["http://x"]', "servers has 'http://x', expected a URL such as"),
        ('role = "host"\nservers = ["nats://x:99999"]', "servers has"),
        ('role = "host"\nservers = ["nats://x/y"]', "servers has"),
        ('role = "host"\nservers = ["nats://u:p@x"]', r"servers has 'nats://\*\*\*@x', expected"),
        ('role = "host"\nname = "a.b"', "name is 'a.b', expected at most 64 letters"),
        ('role = "host"\nprefix = "a..b"', "prefix is 'a..b'"),
        ('role = "host"\nuser = "x"', "user and password are expected together"),
        ('role = "host"\nkey = "k.pem"', "key is set, expected cert too"),
        ('role = "host"\ntoken = "x"\nnkey = "y"', "nkey and token are set, expected one way"),
        ('role = "front"\nlink = 0.1', "fleet.link"),
        ('role = "front"\nhosts = { "a b" = ["*"] }', "hosts has 'a b', expected a name"),
        ('role = "host"\nlinks = 1', "unknown key `links`; .*link"),
    ],
)
def test_what_cannot_be_meant_is_an_error_that_names_the_setting(
    tmp_path: Path, fleet: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        loaded(tmp_path, fleet)


def test_without_the_table_a_gateway_is_alone() -> None:
    assert load(agents={"a": "cat"}).fleet == FleetSettings()
    assert load(agents={"a": "cat"}).fleet.role is None


def test_a_front_needs_no_agents_of_its_own_and_no_commands(tmp_path: Path) -> None:
    assert load(fleet={"role": "front"}).agents == {}
    path = tmp_path / "gateway.toml"
    path.write_text('[fleet]\nrole = "front"\n[agents.a]\nqueue = 3\n')
    assert load(path).agents["a"].queue == 3
    with pytest.raises(ConfigError, match=r"agents\.a: no command"):
        load(path, fleet={"role": "host"})
    with pytest.raises(ConfigError, match="no agent to serve"):
        load(fleet={"role": "host"})


def test_options_override_the_table(tmp_path: Path) -> None:
    settings = loaded(tmp_path, 'role = "host"', fleet={"role": "front", "servers": ["nats://y"]})
    assert settings.fleet == FleetSettings(role="front", servers=["nats://y"])


def test_paths_are_relative_to_the_configuration_and_secrets_are_kept_from_agents(
    tmp_path: Path,
) -> None:
    settings = loaded(tmp_path, 'role = "host"\ncredentials = "h.creds"\nca = "/etc/ca.pem"')
    assert settings.fleet.credentials == str(tmp_path / "h.creds")
    assert settings.fleet.ca == "/etc/ca.pem"
    assert str(tmp_path / "h.creds") in settings.secret_files
    assert "/etc/ca.pem" not in settings.secret_files
    (tmp_path / "password").write_text("from a file\n")
    settings = loaded(tmp_path, 'role = "host"\nuser = "h"\npassword = "file:password"')
    assert settings.fleet.password == "from a file"
    assert str(tmp_path / "password") in settings.secret_files


@pytest.mark.parametrize(
    ("secret", "shown"),
    [
        ('user = "h"\npassword = "sesame"', '"***"'),
        ('user = "h"\npassword = "${NATS_PASSWORD}"', '"${NATS_PASSWORD}"'),
        ('token = "sesame"', '"***"'),
    ],
)
def test_no_secret_is_printed(tmp_path: Path, secret: str, shown: str) -> None:
    settings = loaded(tmp_path, f'role = "host"\n{secret}\nhosts = {{ "gpu-*" = ["a", "b*"] }}')
    text = print_settings(settings)
    assert "sesame" not in text
    assert "from the environment" not in text
    assert f"{secret.rpartition(chr(10))[2].partition(' ')[0]} = {shown}" in text
    (tmp_path / "again.toml").write_text(text)
    again = load(tmp_path / "again.toml", environ={"NATS_PASSWORD": "from the environment"})
    assert again.fleet.hosts == settings.fleet.hosts


@pytest.mark.parametrize("name", ["password", "token"])
def test_no_error_shows_a_secret(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError) as raised:
        loaded(tmp_path, f'role = "host"\n{name} = ["sesame"]')
    assert f"fleet.{name}: expected" in str(raised.value)
    assert "sesame" not in str(raised.value)


def test_hosts_serve_what_a_pattern_says() -> None:
    anybody = FleetSettings(role="front")
    assert anybody.may_serve("h", "a")
    some = FleetSettings(role="front", hosts={"gpu-*": ["draw", "talk*"], "h1": ["*"]})
    assert some.may_serve("gpu-7", "draw")
    assert some.may_serve("gpu-7", "talkative")
    assert not some.may_serve("gpu-7", "cook")
    assert some.may_serve("h1", "cook")
    assert not some.may_serve("h2", "draw")
    assert not some.may_serve("xgpu-7", "draw")


def gateway(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_file_that_cannot_be_used_is_an_error_before_anything_is_served(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text('[fleet]\nrole = "front"\ncredentials = "none.creds"\n')
    ended = gateway("--config", str(path))
    assert ended.returncode == 2
    assert "fleet.credentials: " in ended.stderr
    assert "No such file" in ended.stderr


@needs_nats
def test_check_says_whether_nats_can_be_reached() -> None:
    with NatsServer() as nats:
        good = gateway("--check", "--role", "front", "--nats", nats.url)
        url = nats.url
    assert good.returncode == 0, good.stderr
    found = json.loads(good.stdout)
    assert (found["nats"], found["ok"]) == (url, True)
    assert found["version"]
    bad = gateway("--check", "--role", "front", "--nats", url)
    assert bad.returncode == 1
    found = json.loads(bad.stdout)
    assert not found["ok"]
    assert "cannot be reached (fleet.servers)" in found["error"]
