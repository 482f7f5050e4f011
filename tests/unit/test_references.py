"""What values refer to: variables and files; what is shown of them; and what was nearly meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.config import ConfigError, Settings, load, read_keys, read_services
from gateway.config.effective import print_settings

ENVIRON = {"HOST": "::1", "PORT": "81", "KEY": "sk-4711", "TWO": "two words", "EMPTY": ""}
AGENT = "[agents.a]\ncommand = 'true'\n"


def read(folder: Path, toml: str, **options: Any) -> Settings:
    path = folder / "gateway.toml"
    path.write_text(toml)
    return load(path, environ=ENVIRON, **options)


def env(folder: Path, value: str) -> str:
    """What a variable of an agent's becomes that is set to this, in TOML."""
    settings = read(folder, f"{AGENT}sandbox = {{ env = {{ X = {value} }} }}")
    return str(settings.agents["a"].sandbox.env["X"])


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("'${KEY}'", "sk-4711"),
        ("'a ${KEY}, ${HOST}'", "a sk-4711, ::1"),
        ("'${EMPTY}'", ""),
        ("'$${KEY} $KEY ${KEY} {KEY}'", "${KEY} $KEY sk-4711 {KEY}"),
        ("'file:key'", "of a file"),
        ("'file:./key'", "of a file"),
        ("'a file:key'", "a file:key"),
        ("'$$file:key'", "file:key"),
        ("'$$file:${HOST}'", "file:::1"),
        ("'$$'", "$$"),
    ],
)
def test_a_text_has_what_it_refers_to(tmp_path: Path, written: str, value: str) -> None:
    (tmp_path / "key").write_text("of a file\n")
    assert env(tmp_path, written) == value


def test_what_was_looked_up_is_not_looked_into_again(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("${KEY} file:key\r\n")
    assert env(tmp_path, "'file:key'") == "${KEY} file:key"


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("'${NOWHERE}'", "NOWHERE is not set in the gateway's environment"),
        ("'${A-B}'", "expected ${NAME}"),
        ("'${'", "expected ${NAME}"),
        ("'${AGENT_GATEWAY_KEY}'", "is a caller's key"),
        ("'file:nowhere'", "nowhere: No such file or directory"),
        ("'file:large'", "is longer than 65536 bytes"),
        ("'file:binary'", "is no text in UTF-8"),
        ("'file:.'", "Is a directory"),
    ],
)
def test_what_cannot_be_looked_up_is_named_with_its_key(
    tmp_path: Path, written: str, why: str
) -> None:
    (tmp_path / "large").write_bytes(b"x" * 65537)
    (tmp_path / "binary").write_bytes(b"\xff")
    with pytest.raises(ConfigError) as raised:
        env(tmp_path, written)
    assert str(raised.value).startswith("agents.a.sandbox.env.X: ")
    assert why in str(raised.value)


def test_numbers_may_stand_in_variables(tmp_path: Path) -> None:
    settings = read(
        tmp_path, f"{AGENT}workers = {{ max = '${{PORT}}' }}\n[server]\nport='${{PORT}}'"
    )
    assert settings.server.port == settings.agents["a"].workers.max == 81


def test_errors_show_what_was_written_and_never_a_value(tmp_path: Path) -> None:
    for toml in (
        "[server]\nport = '${KEY}'\n",
        "[server]\nsandbox = '${KEY}'\n",
        "[server]\nmax_body = 'x${KEY}'\n",
        "[server]\ncors = ['${KEY}']\n",
    ):
        with pytest.raises(ConfigError) as raised:
            read(tmp_path, f"{toml}{AGENT}")
        assert "${KEY}" in str(raised.value)
        assert "4711" not in str(raised.value)


def test_a_reference_stays_within_its_word_of_a_command(tmp_path: Path) -> None:
    command = """sh -c 'x "$0"' ${TWO} file:key --key=${KEY}"""
    settings = read(tmp_path, f'[agents.a]\ncommand = """{command}"""')
    agent = settings.agents["a"]
    assert agent.argv == ("sh", "-c", 'x "$0"', "two words", "file:key", "--key=sk-4711")
    assert "4711" not in settings.shown_command("a")
    assert "${KEY}" in settings.shown_command("a")
    with pytest.raises(ConfigError, match=r"agents\.a: command has '\|', which only a shell"):
        read(tmp_path, "[agents.a]\ncommand = 'echo ${KEY} | cat'")


def test_settings_hold_plain_values(tmp_path: Path) -> None:
    toml = (
        AGENT
        + "description = '${KEY}'\nclocks = { start = '${PORT}' }\n[server]\nhosts = ['${TWO}']"
    )
    settings = read(tmp_path, toml.replace("TWO", "KEY"))
    agent = settings.agents["a"]
    assert type(agent.description) is type(settings.server.hosts[0]) is str
    assert agent.clocks.start == 81
    assert settings.written == {"agents.a.description": "${KEY}", "server.hosts.0": "${KEY}"}


def test_commands_of_the_command_line_are_left_as_they_are(tmp_path: Path) -> None:
    settings = read(tmp_path, "", agents={"a": "sh -c 'echo ${KEY}'"})
    assert settings.agents["a"].argv == ("sh", "-c", "echo ${KEY}")


def test_a_service_reads_its_keys_itself_by_the_same_rules(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("of-a-file\n")
    settings = read(
        tmp_path,
        """
        [agents.a]
        command = "true"
        services = ["x"]
        [services.x]
        url = "http://${HOST}/"
        header = { A = "Bearer file:key", B = "$${KEY} ${KEY}" }
        """.replace("${HOST}", "x"),
    )
    [service] = read_services(settings, "a", ENVIRON)
    assert service.header == {"A": "Bearer of-a-file", "B": "${KEY} sk-4711"}
    assert "4711" not in repr(settings)


@pytest.mark.parametrize(
    ("toml", "meant"),
    [
        ("[sever]\nport = 1", "server"),
        ("[server]\nprot = 1", "port"),
        ("[server]\nlog_level = 'warn'", "warning"),
        ("[server]\ndialects = ['opnai']", "openai"),
        ("[server.runs]\nmemroy = '64M'", "memory"),
        ("[defaults.workers]\nmaximum = 1\nmx = 1", "max"),
        ("[agents.a]\ncomand = 'x'", "command"),
        ("[agents.a.sandbox]\nmount_ro = []", "mounts_ro"),
        ("[agents.a]\nsession = 'Sticky'", "sticky"),
        (
            "[agents.a]\ncommand = 'x'\nservices = ['opnai']\n[services.openai]\npreset = 'openai'",
            "openai",
        ),
        ("[server.traces]\nendpont = 'x'", "endpoint"),
        ("[agents.a]\ncommand = 'x'\nstate = { siez = '1G' }", "size"),
        ("[services.x]\npreset = 'anthropik'", "anthropic"),
        ("[services.x]\nurll = 'http://x'", "url"),
        ("[services.x.clocks]\nfrist = 1", "first"),
    ],
)
def test_an_unknown_name_names_the_nearest_known_one(tmp_path: Path, toml: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean '{meant}'"):
        read(tmp_path, f"{toml}\n" + ("" if "[agents.a]" in toml else AGENT))


@pytest.mark.parametrize(
    "toml",
    [
        "services = ['x']\n[services.x]\nurl = 'https://h/${KEY} x'",
        "services = ['x']\n[services.x]\nurl = 'http://169.254.1.1/${KEY}'",
        "[services.x]\nurl = 'https://h'\nheader = { 'A: sk-4711' = 'x' }",
        "[services]\nx = 'sk-4711'",
        "[agents.a.sandbox]\nenv = { 'A=sk-4711' = 'x' }",
        "[server]\nmetrics = ['${KEY}']",
        "[server]\nlog_level = '${NUMBER}'",
        "[server]\nport = '${NUMBER}'",
        f"[keys.k]\nhash = 'sha256:{'01' * 32}'\nagents = ['${{KEY}}']",
    ],
)
def test_no_error_shows_what_was_looked_up_or_written_where_keys_stand(
    tmp_path: Path, toml: str
) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(f"{AGENT}{toml}\n")
    with pytest.raises(ConfigError) as raised:
        read_keys(load(path, environ={**ENVIRON, "NUMBER": "-4711"}), {})
    assert "4711" not in str(raised.value)


def test_what_is_printed_loads_as_what_was_read_and_shows_no_password(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        f"""
        {AGENT}
        description = "$$file:${{HOST}}"
        [server]
        traces = {{ endpoint = "http://user:sk-4711@collector:4318" }}
        [services.x]
        url = "https://h"
        env = {{ X_URL = "{{url}}/v1", X_KEY = "sk-4711" }}
        """,
    )
    printed = print_settings(settings)
    assert "4711" not in printed
    again = read(tmp_path, printed)
    assert again.agents == settings.agents
    assert again.services["x"].env == {"X_URL": "{url}/v1", "X_KEY": "***"}
