"""`gateway key new`, and subcommands beside the options of serving."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from tests.harness import (
    running_gateway,
)
from tests.http.keys import (
    ECHO,
    bearer,
    toml,
)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


async def test_a_new_key_is_printed_once_with_the_table_that_knows_it(tmp_path: Path) -> None:
    made = run("key", "new", "carol")
    key, empty, *table = made.stdout.splitlines()
    assert (made.exit_code, made.stderr, empty) == (0, "", "")
    text = toml("\n".join(table))
    assert key not in text
    async with running_gateway(toml=text, folder=tmp_path) as gateway:
        answer = await gateway.client.get("/health", headers=bearer(key))
        assert answer.status_code == 200
    assert run("key", "new", "carol").stdout.splitlines()[0] != key


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["key", "new", "not/a/name"], "letters, digits"),
        (["key", "old"], "No such command 'old'"),
        (["kee"], "No such command 'kee'"),
        ([*ECHO, "key", "new"], "options of serving"),
    ],
)
def test_a_wrong_subcommand_is_named(arguments: list[str], words: str) -> None:
    done = run(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in done.stderr


@pytest.mark.parametrize(("typed", "completed"), [("k", "key"), ("--sand", "--sandbox")])
def test_a_shell_completes_subcommands_and_options(typed: str, completed: str) -> None:
    environ = {"COMP_WORDS": f"gateway {typed}", "COMP_CWORD": "1"}
    environ["_GATEWAY_COMPLETE"] = "bash_complete"
    done = CliRunner().invoke(main, env=environ, prog_name="gateway")
    assert f"plain,{completed}" in done.stdout.splitlines()


def test_serving_imports_no_subcommand() -> None:
    program = (
        "import sys, gateway.cli, gateway.commands as all\n"
        "print([name for name in sys.modules if name.startswith('gateway.commands.')])\n"
        "print(all.NAMES)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    found, names = done.stdout.splitlines()
    assert found == "[]"
    assert "'key'" in names
