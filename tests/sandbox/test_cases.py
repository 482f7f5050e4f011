"""The list of cases in this folder's README names tests and attempts that there are."""

from __future__ import annotations

import re
from pathlib import Path

from tests.sandbox.escapes import ATTEMPTS

README = Path(__file__).with_name("README.md")
TESTS = README.parents[1]


def test_every_name_in_the_list_of_cases_is_one_of_a_test_or_of_an_attempt() -> None:
    files = {path: path.read_text() for path in TESTS.rglob("test_*.py")}
    tests = {name for text in files.values() for name in re.findall(r"def (test_\w+)\(", text)}
    modules = {path.stem for path in [*files, *README.parent.glob("*.py")]}
    cells = [line.split("|")[2:4] for line in README.read_text().splitlines() if "`" in line]
    named = {name for row in cells for cell in row for name in re.findall(r"`(\w+)`", cell)}
    assert len(named) > 60
    assert named <= tests | set(ATTEMPTS) | modules
