"""What the README says of the settings is what the settings are."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from gateway.config import AgentSettings, ServerSettings, load

README = Path(__file__).resolve().parents[2] / "README.md"

SHOWN_OTHERWISE = {
    ("command",),
    ("description",),
    ("max_rss",),
    ("sandbox", "cwd"),
    ("sandbox", "env"),
}
"""Set in the README's example to something else than the default, which would show nothing."""


def settings_in_readme() -> str:
    found = re.search(r"```toml\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    return found[1]


def flat(table: dict[str, Any], path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    values: dict[tuple[str, ...], Any] = {}
    for key, value in table.items():
        where = (*path, key)
        values |= flat(value, where) if isinstance(value, dict) and key != "env" else {where: value}
    return values


def test_the_settings_in_the_readme_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(settings_in_readme())
    assert load(path).agents["echo"].argv == ("python", "-m", "worker.examples.echo")


def test_every_setting_stands_in_the_readme_with_its_default() -> None:
    tables = tomllib.loads(settings_in_readme())
    agent = flat(tables["agents"]["echo"])
    defaults = flat(msgspec.json.decode(msgspec.json.encode(AgentSettings(command="x"))))
    for where, default in defaults.items():
        assert where in agent, f"{'.'.join(where)} is not in the README"
        if where not in SHOWN_OTHERWISE:
            assert agent[where] == default, ".".join(where)
    assert agent.keys() == defaults.keys()


def test_every_setting_of_the_server_stands_in_the_readme_with_its_default() -> None:
    shown = tomllib.loads(settings_in_readme())["server"]
    # A default that depends on where it listens; the other one is said beside it.
    elsewhere = {"lame_duck": ServerSettings().lame_duck_seconds(loopback=False)}
    assert shown == msgspec.to_builtins(ServerSettings()) | elsewhere
