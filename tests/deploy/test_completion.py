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

# How each shell is asked what it would offer, once it has run the manual's line. bash and fish say
# so themselves; zsh only in a terminal, so that its own parts are replaced by ones that print.
ASK = {
    "bash": r"""
        {source}
        COMP_WORDS=({words}) COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
        _{function}_completion {script}; printf '%s\n' "${{COMPREPLY[@]}}"
    """,
    "zsh": r"""
        compdef() {{ : }}
        compadd() {{ print -rl -- $completions }}
        _describe() {{ print -rl -- $completions_with_descriptions }}
        {source}
        words=({words}) CURRENT=${{#words}}
        _{function}_completion
    """,
    "fish": "{source}\ncomplete -C '{line}'",
}


def said_in_the_manual(shell: str, script: str) -> str:
    """The line that switches completion on."""
    [line] = re.findall(rf"^# {shell}.*\n(.*)$", MANUAL, re.MULTILINE)
    variable = f"_{script.replace('-', '_').upper()}_COMPLETE"
    return str(line.replace("_GATEWAY_COMPLETE", variable).replace(" gateway", f" {script}"))


def offered(shell: str, script: str, *words: str) -> set[str]:
    need(shutil.which(shell), f"{shell} is not installed")
    quoted = " ".join(repr(word) for word in (script, *words))
    program = ASK[shell].format(
        source=said_in_the_manual(shell, script),
        words=quoted,
        line=" ".join((script, *words)),
        script=script,
        function=script.replace("-", "_"),
    )
    done = subprocess.run(
        [shell, *(["-f"] if shell == "zsh" else []), "-c", program],
        env={"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": "/nonexistent", "TERM": "dumb"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {re.split(r"[\t:]", line.strip())[0] for line in done.stdout.splitlines() if line}


@pytest.mark.parametrize("shell", ASK)
def test_a_shell_completes_options_values_and_subcommands(shell: str) -> None:
    assert "--sandbox" in offered(shell, "gateway", "--sa")
    assert {"strict", "off"} <= offered(shell, "gateway", "--sandbox", "")
    assert "key" in offered(shell, "gateway", "k")
    assert "new" in offered(shell, "gateway", "key", "")


@pytest.mark.parametrize("shell", ASK)
def test_a_shell_completes_the_script_that_is_named_as_the_distribution(shell: str) -> None:
    assert "--sandbox" in offered(shell, "agent-gateway", "--sa")
