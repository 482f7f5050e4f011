"""What the AI SDK streams, as words and events, with the AI SDK itself: its model is a script that
streams as models do."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tests.javascript import MODULES, need_package

from . import driver, typescript
from .test_adapters import DELETE, FOUND, TOOLS, called, came, said, told

AGENT = Path(__file__).parent / "agents" / "adapted_ai_sdk.mjs"
USAGE = {"input_tokens": 5, "output_tokens": 2, "cached_input_tokens": 4, "reasoning_tokens": 1}


def twice(usage: dict[str, int]) -> dict[str, int]:
    return {name: 2 * count for name, count in usage.items()}


async def test_an_agent_of_the_ai_sdk(tmp_path: Path) -> None:
    need_package("ai")
    (tmp_path / "node_modules").symlink_to(MODULES)
    file = shutil.copy(AGENT, tmp_path)
    async with driver.start(typescript.command("node24", file), cwd=tmp_path) as worker:

        async def ask(content: object, **settings: Any) -> driver.Answer:
            return await worker.chat(said(content), events=True, **settings)

        reasoning, call, result = FOUND
        answer = await ask("Where?", tools=TOOLS)
        weather = called("c2", "weather", city="Rome")
        assert list(answer.words) == [reasoning, "Let me ", call, result, "see. ", weather]
        assert answer.outcome == {"finish": "tool_calls", "usage": twice(USAGE)}
        # A caller who wants text gets it, and nothing else.
        answer = await worker.chat(said("Where?"), tools=TOOLS)
        assert (answer.words, answer.outcome) == (("Let me ", "see. "), {})
        # The client's tool, and what came of it.
        answer = await ask("Weather?", tools=TOOLS)
        assert answer.words == (weather,)
        answer = await worker.chat(told("warm"), events=True, tools=TOOLS)
        assert answer.words == ("It is warm.",)
        assert answer.outcome == {"finish": "length", "usage": USAGE}
        # A call that needs an approval is a question.
        for status, approved, word in (
            ("resolved", True, "gone, all 1"),
            ("resolved", False, "denied"),
            ("cancelled", True, "denied"),
        ):
            context = {"conversation_id": "c"}
            answer = await ask("Delete it.", context=context)
            assert answer.words == (called("c3", "remove", n=1),)
            (question,) = answer.outcome["asks"]
            message = 'May remove be called with {"n":1}?'
            assert question.items() >= {"message": message, "call": "c3", **DELETE}.items()
            resume = [{"id": question["id"], "status": status, "payload": approved}]
            answer = await worker.chat([], events=True, context=context, resume=resume)
            assert answer.events[0]["call"] == "c3"
            assert word in str(answer.events[0]["content"])
        # A tool that fails, a file, content that is no text, and a model that fails.
        answer = await ask("Break.")
        assert answer.events[1] == {**came("c4", "no luck"), "is_error": True}
        (file_event,) = (await ask("Draw.")).words
        assert file_event == {
            "type": "file",
            "name": "file-1.png",
            "mime": "image/png",
            "data": "YWJj",
        }
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,YWJj"}}
        assert (await ask([{"type": "text", "text": "See"}, image])).text == "A image/png."
        _, why = (await ask([{"type": "video"}])).failure
        assert why == 'messages: a part of type "video" is none that is taken'
        _, why = (await ask("Fail.")).failure
        assert why == "Error: the model is out of order"
        # A run that the agent itself breaks off is no whole answer.
        answer = await ask("Take long.")
        assert answer.words == ("Well, ",)
        assert answer.failure is not None
        assert "the time is up" in answer.failure[1]
