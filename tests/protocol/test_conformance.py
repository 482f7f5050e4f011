"""The data of the conformance suite. `tests/worker` runs it against workers."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

import protocol
from protocol.conformance.cases import answers_expected, lines_to_send, load_cases
from protocol.conformance.conversation import is_same

README = Path(protocol.__file__).with_name("README.md").read_text(encoding="utf-8")
CASES = list(load_cases())


def test_cases_name_sections_of_the_specification_and_are_named_once() -> None:
    headings = {
        heading.replace("`", "") for heading in re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    }
    assert {case.header.see for case in CASES} <= headings
    names = [case.header.case for case in CASES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("file", sorted({case.file for case in CASES}))
def test_what_the_cases_send_is_what_a_gateway_would(file: str) -> None:
    """Lines in one piece for every reader, under ids that increase."""
    last = 0
    for case in CASES:
        for step in case.steps if case.file == file else []:
            if step.send is msgspec.UNSET:
                continue
            for line in lines_to_send(step, agent_input='"hello"'):
                assert protocol.is_one_line(line)
                assert len(line) < protocol.MAX_LINE_BYTES
                assert protocol.is_utf8(line)
                if found := re.search(rb'"id":(\d+),"method"|"method":"invoke","id":(\d+)', line):
                    assert int(found[1] or found[2]) > last
                    last = int(found[1] or found[2])


def test_every_file_of_cases_is_read() -> None:
    folder = Path(protocol.__file__).with_name("conformance")
    assert {case.file for case in CASES} == {path.name for path in folder.glob("*.jsonl")}
    for case in CASES:
        for step in case.steps:
            if step.expect is not msgspec.UNSET:
                assert answers_expected(step, agent_input="1")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (1, 1.0, True),
        (1, True, False),
        ([1, {"a": None}], [1.0, {"a": None}], True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ("1", 1, False),
        ([0], [False], False),
    ],
)
def test_values_are_compared_as_json(one: object, other: object, same: bool) -> None:
    assert is_same(one, other) is same
