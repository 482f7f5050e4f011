"""What the READMEs say of settings, commands and places is so."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.config import AgentSettings, RunSettings, ServerSettings, load
from gateway.errors import GatewayError
from gateway.exchange import MAX_BUFFERED_BYTES, MAX_HELD_PER_REQUEST
from gateway.front.connections import MAX_HELD_PER_CONNECTION
from gateway.front.runs.run import MAX_READERS, RunState
from gateway.front.runs.wishes import MOST_KEY_BYTES
from gateway.workers.process import MAX_HELD_PER_WORKER
from tests.test_architecture import ENTRANCE, GROUND, MADE_BY_TOOLS, ROOMS, ROOT, TOP_LEVEL

README = ROOT / "README.md"
FOR_CHANGERS = ROOT / "tests" / "README.md"
BENCHMARKS = ROOT / "tests" / "benchmarks" / "README.md"
RUNS = ROOT / "gateway" / "front" / "runs" / "README.md"
NATIVE = ROOT / "gateway" / "front" / "native" / "README.md"
OPERATING = ROOT / "gateway" / "README.md"


def readmes(folder: Path) -> Iterator[Path]:
    for name, folders, files in os.walk(folder):
        folders[:] = sorted({*folders} - MADE_BY_TOOLS)
        if "README.md" in files:
            yield Path(name) / "README.md"


READMES = [README, *(path for top in sorted(TOP_LEVEL) for path in readmes(ROOT / top))]

SHOWN_OTHERWISE = {
    ("command",),
    ("description",),
    ("max_rss",),
    ("sandbox", "cwd"),
    ("sandbox", "env"),
}
"""Set in the manual's table to something else than the default, which would show nothing."""


def tables_in(path: Path) -> list[str]:
    return re.findall(r"```toml\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)


def settings_in_the_manual() -> str:
    """The table with everything that can be set."""
    [found] = tables_in(OPERATING)
    return found


def flat(table: dict[str, Any], path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    values: dict[tuple[str, ...], Any] = {}
    for key, value in table.items():
        where = (*path, key)
        values |= flat(value, where) if isinstance(value, dict) and key != "env" else {where: value}
    return values


def test_the_settings_in_the_readmes_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    service, example = tables_in(README)
    for table in (example, service, settings_in_the_manual()):
        path.write_text(table)
        assert load(path).agents
    for table in (example, settings_in_the_manual()):
        path.write_text(table)
        assert load(path).agents["echo"].argv == ("agent-worker", "worker.examples.echo:agent")


def test_every_setting_stands_in_the_manual_with_its_default() -> None:
    tables = tomllib.loads(settings_in_the_manual())
    agent = flat(tables["agents"]["echo"])
    defaults = flat(msgspec.json.decode(msgspec.json.encode(AgentSettings(command="x"))))
    for where, default in defaults.items():
        assert where in agent, f"{'.'.join(where)} is not in the manual"
        if where not in SHOWN_OTHERWISE:
            assert agent[where] == default, ".".join(where)
    assert agent.keys() == defaults.keys()


def test_every_setting_of_the_server_stands_in_the_manual_with_its_default() -> None:
    shown = tomllib.loads(settings_in_the_manual())["server"]
    # A default that depends on where it listens; the other one is said beside it.
    elsewhere = {
        "lame_duck": ServerSettings().lame_duck_seconds(loopback=False),
        "console": True,
    }
    assert shown == msgspec.to_builtins(ServerSettings()) | elsewhere


def test_what_is_said_of_runs_is_so() -> None:
    text = RUNS.read_text(encoding="utf-8")
    [table] = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    assert tomllib.loads(table)["server"]["runs"] == msgspec.to_builtins(RunSettings())
    assert f"1 to {MOST_KEY_BYTES} visible ASCII" in text
    assert f"Several may read at once ({MAX_READERS})" in text
    assert all(f"`{state.value}`" in text for state in RunState)


def kinds_of(error: type[GatewayError]) -> Iterator[type[GatewayError]]:
    yield error
    for kind in error.__subclasses__():
        yield from kinds_of(kind)


def test_the_table_of_errors_has_each_type_with_its_status() -> None:
    text = NATIVE.read_text(encoding="utf-8")
    shown = re.findall(r"^\| (\d{3}) \| `(\w+)` \|", text, re.MULTILINE)
    assert {*shown} == {(str(kind.status), kind.type) for kind in kinds_of(GatewayError)}
    assert len({*shown}) == len(shown)


def test_the_memory_that_the_readme_promises_is_what_the_code_says() -> None:
    readme = " ".join(README.read_text(encoding="utf-8").split())
    request, worker, connection, waiting = (
        f"{most // 1024**2} MiB"
        for most in (
            MAX_HELD_PER_REQUEST,
            MAX_HELD_PER_WORKER,
            MAX_HELD_PER_CONNECTION,
            MAX_BUFFERED_BYTES,
        )
    )
    assert f"at most {request} for a request" in readme
    assert f"{worker} for a worker and {connection} for a connection" in readme
    assert f"({waiting} per stream" in readme


def command(name: str, path: Path) -> str:
    """The fenced block below the line `<!-- command: NAME -->`."""
    text = path.read_text(encoding="utf-8")
    found = re.search(rf"<!-- command: {name} -->\n *```sh\n(.*?)\n *```", text, re.DOTALL)
    assert found, f"{path.name} has no command {name!r}"
    return found[1]


def anchors(path: Path) -> set[str]:
    """What a link can name in a file: its headings, in lower case and with hyphens."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "path",
    READMES,
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_every_place_that_a_readme_names_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https:)([^)]+)\)", text):
        name, _, anchor = target.partition("#")
        there = path.parent / name if name else path
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target
    tops = "|".join(re.escape(name) for name in (*TOP_LEVEL, ".ci"))
    for name in re.findall(rf"(?<![\w./-])(?:{tops})/[\w./*-]*", text):
        assert [*ROOT.glob(name.rstrip("./"))], name


def test_the_readme_names_every_room_and_module_at_the_top_of_the_gateway() -> None:
    layout = README.read_text(encoding="utf-8").partition("## How the code is laid out")[2]
    named = set(re.findall(r"`(\w+)/?`", layout.partition("\n## ")[0]))
    assert GROUND | set(ROOMS) | ENTRANCE - {"__main__"} <= named


def test_both_readmes_name_the_same_commands() -> None:
    for_changers = FOR_CHANGERS.read_text(encoding="utf-8")
    assert f"`{command('fast', README)}`" in for_changers
    setup, tests = command("test", README).rsplit(" && ", 1)
    assert command("setup", FOR_CHANGERS) == setup
    assert tests == ".venv/bin/pytest -n 3"


def test_the_test_command_installs_what_tests_would_be_skipped_without() -> None:
    packages = {"bubblewrap", "uidmap", "iproute2", "jq", "nodejs", "wrk", "nginx", "haproxy"}
    packages |= {"default-jdk-headless", "mono-mcs"}  # readers of lines
    packages |= {"chromium"}  # reads /docs
    installed = re.findall(r"apt-get install -qq -y ([^&]+)", command("test", README))
    assert packages <= set(installed[0].split())
