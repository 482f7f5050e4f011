"""The TypeScript agents that are shown to readers do what they say."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from protocol import ErrorCode
from tests.javascript import need_runtime

from . import cancelling, driver, typescript

EXAMPLES = typescript.FOLDER.parent / "examples"
AGENT_WORKER = str(Path(sys.executable).with_name("agent-worker"))


def command(file: Path | str, runtime: str = "node24") -> list[str]:
    return [AGENT_WORKER, "--runtime", need_runtime(runtime), str(file)]


@pytest.mark.parametrize("runtime", ["node22", "node24", "bun", "deno"])
async def test_the_echo_is_the_same_agent_as_in_python(runtime: str) -> None:
    async with driver.start(command(EXAMPLES / "echo.ts", runtime)) as worker:
        value = {"a": [1, 2.5, None, True, 'ü \u2028 \U0001f600 \\ " \n \t'], "b": {}}
        assert (await worker.invoke(value)).value == value
        said = [
            {"role": "system", "content": "repeat"},
            {"role": "user", "content": [{"type": "text", "text": "last"}]},
            {"role": "assistant", "content": "hm"},
        ]
        assert (await worker.chat(said)).value == {
            "role": "assistant",
            "content": said[1]["content"],
        }
        assert (await worker.chat(said[:1])).failure == (
            ErrorCode.INVALID_INPUT,
            "there is no message of the user's to repeat",
        )
        assert await worker.finish() == 0
        assert worker.stderr == ""


async def test_the_streaming_chat_speaks_word_by_word() -> None:
    async with driver.start(command(EXAMPLES / "streaming_chat.ts")) as worker:
        said = [{"role": "user", "content": "good day"}]
        answer = await worker.chat(said, stream=True, context={"user_id": "Ada"})
        assert answer.chunks == ("Hello, Ada. ", "You said: ", "good ", "day ")
        assert (await worker.invoke("a\U0001f600c", stream=True)).chunks == ("a", "\U0001f600", "c")
        assert (await worker.invoke(7)).failure == (
            ErrorCode.INVALID_INPUT,
            "expected a word, got a number",
        )


async def test_the_patient_agent_stops_when_it_is_cancelled() -> None:
    async with driver.start(command(EXAMPLES / "cancellation.ts")) as worker:
        await cancelling.stops_what_it_does(worker)


async def test_the_manual_s_first_agents_work_as_they_stand(tmp_path: Path) -> None:
    manual = (typescript.FOLDER / "README.md").read_text()
    greeter, exports, *_ = re.findall(r"```ts\n(.*?)```", manual, re.DOTALL)
    (tmp_path / "greeter.ts").write_text(greeter)
    async with driver.start(command("greeter.ts"), cwd=tmp_path) as worker:
        assert (await worker.invoke({"name": "Ada"})).value == {"greeting": "Hello, Ada!"}
        assert (await worker.invoke({})).failure == (
            ErrorCode.INVALID_INPUT,
            "input.name is missing",
        )
        said = [{"role": "user", "content": "hi"}]
        answer = await worker.chat(said, context={"user_id": "Ada"})
        assert answer.chunks == ("Hello, Ada. ", "You said: hi")
    (tmp_path / "counter.ts").write_text(exports)
    async with driver.start(command("counter.ts"), cwd=tmp_path, handshake=False) as worker:
        assert (await worker.ready()).description == "Counts."
        assert (await worker.invoke("four")).value == 4
