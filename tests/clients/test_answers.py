"""What the clients of five protocols put together from the streams of one answer is what is told of
it whole: with their own code, whatever an agent says."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings

from tests.clients.clients import NODE, RUN_SECONDS, RUNNERS
from tests.javascript import MODULES, need_package, need_runtime
from tests.unit.answers import ANSWERS, Said
from tests.unit.conftest import unhurried
from tests.unit.told import (
    STREAMS,
    WITHOUT_FILES,
    Told,
    alike,
    decoded,
    told_by_completion,
    with_examples,
)

PROGRAM = "read_answers.mjs"


def answers() -> list[Said]:
    """Made at random, and those that were hard once."""
    made: list[Said] = []

    @given(ANSWERS.filter(alike))
    @settings(unhurried, max_examples=40, phases=[Phase.explicit, Phase.generate], database=None)
    @with_examples(*WITHOUT_FILES)
    def make(said: Said) -> None:
        made.append(said)

    make()
    return made


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[Said, Any]]]:
    """Answers with what the clients have learned of them, by the protocol."""
    for package in ("openai", "@anthropic-ai/sdk", "@ag-ui/client", "ai"):
        need_package(package)
    folder = tmp_path_factory.mktemp("answers")
    (folder / "node_modules").symlink_to(MODULES)
    shutil.copy(Path(RUNNERS, PROGRAM), folder)
    asked = [(protocol, said) for said in answers() for protocol in STREAMS]
    lines = [
        json.dumps({"protocol": protocol, "stream": STREAMS[protocol](said).data.decode()})
        for protocol, said in asked
    ]
    # All at once: two processes that wait for one another for each answer take long under load.
    client = subprocess.run(
        [need_runtime(NODE), str(folder / PROGRAM)],
        input="".join(f"{line}\n" for line in lines),
        stdout=subprocess.PIPE,
        text=True,
        timeout=RUN_SECONDS,
        check=True,
    )
    told = [json.loads(line) for line in client.stdout.split("\n")[:-1]]
    found: dict[str, list[tuple[Said, Any]]] = {protocol: [] for protocol in STREAMS}
    for (protocol, said), each in zip(asked, told, strict=True):
        found[protocol].append((said, each))
    return found


@pytest.mark.parametrize("protocol", STREAMS)
def test_a_client_puts_together_what_is_told_whole(
    learned: dict[str, list[tuple[Said, Any]]], protocol: str
) -> None:
    reached = set()
    for said, found in learned[protocol]:
        told = decoded(told_by_completion(said))
        if told is None:
            assert set(found) == {"error"}, said
            reached.add("error")
            continue
        assert isinstance(found, list), (said, found)
        text, thoughts, calls = found
        assert Told(text, thoughts, [tuple(call) for call in calls]) == told, said
        reached |= {name for name, part in zip(Told._fields, told, strict=True) if part}
    assert reached == {"error", *Told._fields}
