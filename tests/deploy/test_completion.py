"""The shells complete the command, as the manual says that they are told to."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest

from tests.conftest import need
from tests.deploy.conftest import BIN, PROJECT

MANUAL = (PROJECT / "gateway" / "README.md").read_text(encoding="utf-8")

# How each shell is asked what it would offer for a line, once it has run the manual's. bash and
# fish say so themselves; zsh only in a terminal, so that its own parts are replaced by ones that
# print.
PREPARE = {
    "bash": "",
    "zsh": """
        compdef() { : }
        compadd() { print -rl -- $completions }
        _describe() { print -rl -- $completions_with_descriptions }
    """,
    "fish": "",
}
ASK = {
    "bash": r"""
        COMP_WORDS=({words}) COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
        _{function}_completion {script}; printf '%s\n' "${{COMPREPLY[@]}}"; echo {end}
    """,
    "zsh": """
        words=({words}) CURRENT=${{#words}}
        _{function}_completion; echo {end}
    """,
    "fish": "\ncomplete -C '{line}'; echo {end}\n",
}
END = "that was it"


def said_in_the_manual(shell: str, script: str) -> str:
    """The line that switches completion on."""
    [line] = re.findall(rf"^# {shell}.*\n(.*)$", MANUAL, re.MULTILINE)
    variable = f"_{script.replace('-', '_').upper()}_COMPLETE"
    return str(line.replace("_GATEWAY_COMPLETE", variable).replace(" gateway", f" {script}"))


def offered(shell: str, script: str, *lines: tuple[str, ...]) -> list[set[str]]:
    """What a shell offers for each of these lines: the words after the script, the last begun."""
    need(shutil.which(shell), f"{shell} is not installed")
    program = PREPARE[shell] + said_in_the_manual(shell, script)
    for words in lines:
        program += ASK[shell].format(
            words=" ".join(repr(word) for word in (script, *words)),
            line=" ".join((script, *words)),
            script=script,
            function=script.replace("-", "_"),
            end=END,
        )
    done = subprocess.run(
        [shell, *(["-f"] if shell == "zsh" else []), "-c", program],
        env={"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": "/nonexistent", "TERM": "dumb"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *answers, _ = done.stdout.split(f"{END}\n")
    return [
        {re.split(r"[\t:]", line.strip())[0] for line in answer.splitlines()} for answer in answers
    ]


@pytest.mark.parametrize("shell", ASK)
def test_a_shell_completes_options_values_and_subcommands(shell: str) -> None:
    lines = [("--sa",), ("--sandbox", ""), ("k",), ("key", "")]
    options, values, commands, below = offered(shell, "gateway", *lines)
    assert "--sandbox" in options
    assert {"strict", "off"} <= values
    assert "key" in commands
    assert "new" in below


@pytest.mark.parametrize("shell", ASK)
def test_a_shell_completes_the_script_that_is_named_as_the_distribution(shell: str) -> None:
    [options] = offered(shell, "agent-gateway", ("--sa",))
    assert "--sandbox" in options
