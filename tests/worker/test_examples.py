"""The agents that are shown to readers do what they say, with the SDK and without it."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from protocol import Chunk, ErrorCode

from ..conftest import need
from . import cancelling, driver

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "worker" / "examples"

ECHOES = {
    "SDK, as a module": [sys.executable, "-m", "worker.examples.echo"],
    "SDK, as a file": [sys.executable, str(EXAMPLES / "echo.py")],
    "SDK, by name": driver.sdk(f"{EXAMPLES / 'echo.py'}:agent", backend="trio"),
    "standard library": [sys.executable, str(EXAMPLES / "plain.py")],
    "Node": ["node", str(EXAMPLES / "echo.mjs")],
    "shell": ["sh", str(EXAMPLES / "echo.sh")],
    "dash": ["dash", str(EXAMPLES / "echo.sh")],
}
NEEDS = {"Node": ["node"], "shell": ["jq"], "dash": ["dash", "jq"], "one-liner": ["jq"]}
SENDS_NO_READY = {"shell", "dash"}


def need_programs(kind: str) -> None:
    for program in NEEDS.get(kind, ()):
        need(shutil.which(program), f"the program {program}")


@pytest.mark.parametrize("kind", ECHOES)
async def test_every_echo_is_the_same_agent(kind: str) -> None:
    need_programs(kind)
    async with driver.start(ECHOES[kind], handshake=kind not in SENDS_NO_READY) as worker:
        value = {"a": [1, 2.5, None, True, 'ü \u2028 \U0001f600 \\ " \n \t'], "b": {}}
        assert (await worker.invoke(value)).value == value
        assert (await worker.invoke("x", stream=True)).value == "x"
        said = [
            {"role": "system", "content": "repeat"},
            {"role": "user", "content": "first\nline"},
            {"role": "user", "content": [{"type": "text", "text": "last"}]},
            {"role": "assistant", "content": "hm"},
        ]
        assert (await worker.chat(said)).value == {
            "role": "assistant",
            "content": said[2]["content"],
        }
        assert (await worker.chat(said[:2])).value["content"] == "first\nline"
        assert (await worker.chat(said[:1])).failure == (
            ErrorCode.INVALID_INPUT,
            "there is no message of the user's to repeat",
        )
        assert await worker.finish() == 0
        assert worker.stderr == ""


@pytest.mark.parametrize("kind", ECHOES)
async def test_every_echo_takes_an_input_longer_than_a_pipe(kind: str) -> None:
    need_programs(kind)
    async with driver.start(ECHOES[kind], handshake=kind not in SENDS_NO_READY) as worker:
        value = "x\u2028\n" * 100_000
        assert (await worker.invoke(value)).value == value


async def test_one_line_of_jq_is_an_agent() -> None:
    need_programs("one-liner")
    (line,) = re.findall(r"^jq .*$", (ROOT / "protocol/README.md").read_text(), re.MULTILINE)
    async with driver.start(shlex.split(line), handshake=False) as worker:
        assert (await worker.invoke("hello")).value == "HELLO"
        refused = await worker.invoke({"an": "object"})
        assert refused.failure == (ErrorCode.INVALID_INPUT, "explode input must be a string")
        assert (await worker.invoke("again")).value == "AGAIN"
        assert await worker.finish() == 0


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
async def test_the_streaming_chat_speaks_word_by_word(backend: str) -> None:
    command = driver.sdk("worker.examples.streaming_chat:agent", backend=backend)
    async with driver.start(command) as worker:
        answer = await worker.chat(
            [{"role": "user", "content": "good day"}], stream=True, context={"user_id": "Ada"}
        )
        assert answer.chunks == ("Hello, Ada. ", "You said: ", "good ", "day ")
        assert (await worker.invoke("abc", stream=True)).chunks == ("a", "b", "c")
        assert (await worker.invoke(7)).failure == (
            ErrorCode.INVALID_INPUT,
            "input: expected str, got int",
        )


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
async def test_the_patient_agent_stops_when_it_is_cancelled(backend: str) -> None:
    command = driver.sdk("worker.examples.cancellation:agent", backend=backend)
    async with driver.start(command) as worker:
        await cancelling.stops_what_it_does(worker)


async def test_a_wrapped_framework_s_words_are_chunks_and_the_rest_is_log() -> None:
    async with driver.start(driver.sdk("worker.examples.framework:agent")) as worker:
        request = await worker.send_chat([{"role": "user", "content": "why?"}], stream=True)
        first = await worker.next_event()
        assert isinstance(first, Chunk)
        assert first.text == b'"I "'
        assert (await worker.answer(request)).chunks == ("found ", "nothing.")
        await worker.said_on_stderr("tool_call search('why?') in thread r1")


async def test_the_manual_s_first_agent_works_as_it_stands(tmp_path: Path) -> None:
    manual = (EXAMPLES.parent / "README.md").read_text()
    source = manual.split("```python\n", 1)[1].split("```", 1)[0]
    (tmp_path / "greeter.py").write_text(source)
    async with driver.start(driver.sdk("greeter.py:agent"), cwd=tmp_path) as worker:
        assert (await worker.invoke({"name": "Ada"})).value == {"greeting": "Hello, Ada!"}
        assert (await worker.invoke({})).failure == (
            ErrorCode.INVALID_INPUT,
            "input.name is missing",
        )
        said = [{"role": "user", "content": "hi"}]
        answer = await worker.chat(said, context={"user_id": "Ada"})
        assert answer.chunks == ("Hello, Ada. ", "You said: hi")


async def test_the_manual_s_events_and_questions_work_as_they_stand(tmp_path: Path) -> None:
    manual = (EXAMPLES.parent / "README.md").read_text()
    events, questions = (
        manual.split(heading, 1)[1].split("```python\n", 1)[1].split("```", 1)[0]
        for heading in ("### Events\n", "### Questions\n")
    )
    prelude = "from worker import *\nfrom worker import Context\nagent = Agent('a', asks=True)\n"
    (tmp_path / "events.py").write_text(prelude + events)
    (tmp_path / "questions.py").write_text(prelude + questions)
    async with driver.start(driver.sdk("events.py:agent"), cwd=tmp_path) as worker:
        answer = await worker.chat([], events=True)
        types = [each["type"] for each in answer.events]
        assert types == ["status", "reasoning", "tool_call", "tool_result"]
        assert answer.chunks == ("It is 12 °C.",)
        assert answer.outcome == {"usage": {"input_tokens": 7, "output_tokens": 3}}
    async with driver.start(driver.sdk("questions.py:agent"), cwd=tmp_path) as worker:
        (ask,) = (await worker.chat([], events=True)).outcome["asks"]
        for payload, word in ((True, "Gone."), (False, "Nothing was changed.")):
            resume = [{"id": ask["id"], "payload": payload}]
            answer = await worker.chat([], events=True, resume=resume)
            assert answer.value["content"] == word
