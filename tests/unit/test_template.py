"""What `gateway init` writes, and what `gateway --print-config` prints: each loads, and has every
setting."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec import Struct

from gateway.config import AgentSettings, Settings, load
from gateway.config.effective import print_settings
from gateway.config.fleet import FleetSettings
from gateway.config.keys import KeySettings, hash_key
from gateway.config.limits import LimitSettings
from gateway.config.sandbox import SandboxSettings
from gateway.config.services import ServiceClocks, ServiceSettings
from gateway.config.settings import (
    Clocks,
    Restart,
    RunSettings,
    ServerSettings,
    StateSettings,
    TraceSettings,
    Workers,
)
from gateway.config.template import meanings_of, template

TABLES: tuple[type[Struct], ...] = (
    *(ServerSettings, RunSettings, TraceSettings, AgentSettings, Workers, Clocks, Restart),
    *(StateSettings, SandboxSettings, LimitSettings, ServiceSettings, ServiceClocks, KeySettings),
    FleetSettings,
)
"""All that a configuration is checked by."""

_SETTING = re.compile(r"# (\w+ = .*?)(  # an example)?")
_TABLE = re.compile(r"# (\[[\w.]+\])")


def loaded(folder: Path, text: str) -> Settings:
    path = folder / "gateway.toml"
    path.write_text(text)
    return load(path, environ={"KEY": "sk-4711"})


def test_it_loads_and_changes_nothing(tmp_path: Path) -> None:
    settings = loaded(tmp_path, template())
    command = settings.agents["echo"].command
    assert settings.server == ServerSettings()
    assert settings.agents == {"echo": AgentSettings(command=command)}
    assert not settings.keys
    assert not settings.services


def test_what_is_commented_out_is_what_holds_without_it(tmp_path: Path) -> None:
    lines, count, off = template().splitlines(), 0, False
    for number, line in enumerate(lines):
        if line.startswith("[") or _TABLE.fullmatch(line):
            off = not line.startswith("[")
        match = _SETTING.fullmatch(line)
        if match and not match[2] and not off:
            lines[number] = match[1]
            count += 1
    assert count > 60
    assert loaded(tmp_path, "\n".join(lines)) == loaded(tmp_path, template())


def test_all_of_it_can_be_said(tmp_path: Path) -> None:
    """The examples, too; but for what is said in two ways."""
    lines = []
    for line in template().splitlines():
        match = _SETTING.fullmatch(line) or _TABLE.fullmatch(line)
        twice = line.startswith(("# traces = ", "# state = "))
        lines.append(match[1] if match and not twice else line)
    settings = loaded(tmp_path, "\n".join(lines))
    assert settings.services["openai"].preset == "openai"
    assert settings.keys["someone"].expires is not None
    assert settings.server.lame_duck == 5


@pytest.mark.parametrize("kind", TABLES, ids=lambda kind: kind.__name__)
def test_every_setting_is_there_with_its_meaning(kind: type[Struct]) -> None:
    words = re.sub(r"\n# ", " ", template())
    for name, meaning in meanings_of(kind).items():
        table = re.search(rf"^(# )?\[[\w.]*\b{name}\]", template(), re.MULTILINE)
        if table is None:
            assert re.search(rf"^(# )?{name} = ", template(), re.MULTILINE), name
            assert meaning, f"{kind.__name__}.{name} has no docstring"
            plain = re.sub(r"\s+", " ", meaning.replace("`", ""))
            assert plain in words, name


def test_what_is_printed_loads_again_and_shows_no_secret(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("of-a-file\n")
    text = f"""
        [server]
        port = 0
        hosts = ["$${{x}}"]
        [defaults]
        queue = 7
        [agents.a]
        command = ["sh", "-c", "echo $${{X}} 'file:y' é\\u007f\\n", "${{KEY}}"]
        description = "file:token"
        services = ["x"]
        sandbox = {{ env = {{ A = "${{KEY}}", B = "literal-secret", "C" = "$$file:x" }} }}
        [services.x]
        url = "http://x/"
        header = {{ A = "Bearer ${{KEY}}", B = "Bearer literal-secret", C = "file:token" }}
        [keys.k]
        hash = "{hash_key(b"k" * 40)}"
        expires = 2031-01-01
    """.replace('hosts = ["$${x}"]', 'hosts = ["*.example.org"]')
    settings = loaded(tmp_path, text)
    printed = print_settings(settings)
    assert "4711" not in printed
    assert "of-a-file" not in printed
    assert "literal-secret" not in printed
    assert settings.keys["k"].hashes[0] not in printed
    (tmp_path / "elsewhere").mkdir()
    again = loaded(tmp_path / "elsewhere", printed)
    assert again.server == settings.server
    for name in ("argv", "description", "queue", "services"):
        assert getattr(again.agents["a"], name) == getattr(settings.agents["a"], name)
    assert again.agents["a"].sandbox.env == {"A": "sk-4711", "B": "***", "C": "***"}
    headers = {"A": "Bearer ${KEY}", "B": "***", "C": f"file:{tmp_path}/token"}
    assert again.services["x"].header == headers
    assert again.keys["k"].expires == settings.keys["k"].expires
    assert again.agents["a"].clocks == settings.agents["a"].clocks


def test_the_command_writes_it_once_and_prints_what_is_in_force(tmp_path: Path) -> None:
    def gateway(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "gateway", *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert gateway("init").returncode == 0
    assert (tmp_path / "gateway.toml").read_text() == template()
    os.truncate(tmp_path / "gateway.toml", 10)
    again = gateway("init")
    assert again.returncode == 1
    assert "gateway.toml exists, and is left as it is" in again.stderr
    assert (tmp_path / "gateway.toml").read_text() == template()[:10]
    printed = gateway("--agent", "a=true", "--port", "0", "--print-config")
    assert printed.returncode == 0
    assert 'command = "true"' in printed.stdout
    assert "port = 0" in printed.stdout
