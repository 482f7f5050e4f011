"""What frameworks stream, as words and events: `worker.adapters` with the frameworks themselves.

Their models are scripts that stream as models do. Each agent runs as a process of its own, where
warnings of the frameworks' own stay.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from protocol import Chunk, ErrorCode

from . import driver

AGENTS = Path(__file__).parent / "agents"
TOOLS = [
    {
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    }
]


def said(text: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": text}]


def called(call: str, name: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "tool_call", "call": call, "name": name, "arguments": arguments}


def came(call: str, content: object) -> dict[str, Any]:
    return {"type": "tool_result", "call": call, "content": content}


def told(text: str) -> list[dict[str, Any]]:
    """A conversation in which the client has run its tool."""
    function = {"name": "weather", "arguments": json.dumps({"city": "Rome"})}
    calls = [{"id": "c2", "type": "function", "function": function}]
    return [
        {"role": "system", "content": "Be short."},
        *said("Weather?"),
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c2", "content": text},
    ]


FOUND = [
    {"type": "reasoning", "text": "Where? "},
    called("c1", "find", user="Ada"),
    came("c1", "Ada is in Rome"),
]
DELETE: dict[str, Any] = {"reason": "approval", "schema": {"type": "boolean"}}


def serve(name: str) -> Any:
    return driver.start(driver.sdk(f"{AGENTS / f'adapted_{name}.py'}:agent"))


async def leave(worker: driver.Worker) -> None:
    """A caller that leaves ends the model's work, and the worker then ends as any."""
    request = await worker.send_chat(said("slowly"), stream=True)
    first = await worker.next_event()
    assert isinstance(first, Chunk)
    assert first.text == b'"Roses "'
    await worker.said_on_stderr("the model thinks")
    await worker.cancel(request)
    assert (await worker.answer(request)).failure[0] == ErrorCode.CANCELLED
    await worker.said_on_stderr("the model was given up")
    assert await worker.finish() == 0


async def test_a_langgraph_agent() -> None:
    async with serve("langgraph") as worker:
        answer = await worker.chat(said("Where is she?"), events=True)
        reasoning, call, result = FOUND
        status = {"type": "status", "text": "Searching…"}
        words = [reasoning, "Let me ", "see. ", call, status, result, "It is warm."]
        assert list(answer.words) == words
        usage = {"input_tokens": 12, "output_tokens": 5, "reasoning_tokens": 2}
        assert answer.outcome == {"finish": "length", "usage": usage}
        # A caller who wants text gets it, and nothing else.
        answer = await worker.chat(said("Where is she?"))
        assert (answer.words, answer.outcome) == (("Let me ", "see. ", "It is warm."), {})
        # A tool of the client's ends the turn, which goes on with what came of it.
        answer = await worker.chat(said("Weather?"), events=True, tools=TOOLS)
        assert answer.words == (called("c2", "weather", city="Rome"),)
        assert answer.outcome["finish"] == "tool_calls"
        answer = await worker.chat(told("warm"), events=True, tools=TOOLS)
        assert answer.words == ("It is warm.",)
        # An interrupt is a question.
        context = {"conversation_id": "c"}
        answer = await worker.chat(said("Confirm"), events=True, context=context)
        (ask,) = answer.outcome["asks"]
        assert (ask["message"], ask["reason"]) == ("Really?", "interrupt")
        resume = [{"id": ask["id"], "status": "resolved", "payload": "yes"}]
        answer = await worker.chat([], events=True, context=context, resume=resume)
        assert (answer.words, answer.outcome) == (("You said yes.",), {})
        # A question that the user has cancelled has no answer, whatever is sent with it.
        answer = await worker.chat(said("Confirm"), events=True, context=context)
        (ask,) = answer.outcome["asks"]
        resume = [{"id": ask["id"], "status": "cancelled", "payload": "yes"}]
        answer = await worker.chat([], events=True, context=context, resume=resume)
        assert (answer.words, answer.outcome) == (("You said None.",), {})
        # A model by itself, in a thread.
        answer = await worker.invoke("model", events=True)
        assert answer.words == ("It is warm.",)
        assert answer.outcome["usage"]["input_tokens"] == 7
        # A graph's stream in its other shapes.
        for shape in ("messages", "subgraphs", "messages of subgraphs", "v2"):
            answer = await worker.invoke(shape, events=True)
            words = [reasoning, "Let me ", "see. ", call, result, "It is warm."]
            assert list(answer.words) == words, shape
        # A refusal is no empty answer, and one that was cut is not whole.
        for ending, text, finish in (
            ("refusal", "I will not.", "refused"),
            ("refusal of Responses", "I will not.", "refused"),
            ("cut by Responses", "Roses", "length"),
            ("refusal in pieces", "I will not.", "refused"),
            ("cut, then ended as no other model says it", "Roses, Tulips", "stop"),
            ("cut, then ended without a reason", "Roses, Tulips", "stop"),
        ):
            answer = await worker.invoke(ending, events=True)
            assert (answer.text, answer.outcome) == (text, {"finish": finish}), ending
        await leave(worker)


async def test_a_pydantic_ai_agent() -> None:
    async with serve("pydantic_ai") as worker:
        context = {"conversation_id": "c"}
        answer = await worker.chat(said("Where?"), events=True, tools=TOOLS, context=context)
        calls = [called("c3", "delete", number=1), called("c2", "weather", city="Rome")]
        assert list(answer.words[:5]) == [*FOUND, "Let me ", "see. "]
        assert sorted(answer.words[5:], key=str) == sorted(calls, key=str)
        assert answer.outcome["asks"] == [
            {
                "id": "c3",
                "message": 'May delete be called with {"number":1}?',
                "call": "c3",
                **DELETE,
            }
        ]
        assert answer.outcome["finish"] == "input_required"
        assert answer.outcome["usage"]["output_tokens"] > 0
        # A tool of the client's, and its result.
        answer = await worker.chat(said("Weather?"), events=True, tools=TOOLS)
        assert answer.words == (called("c2", "weather", city="Rome"),)
        assert answer.outcome["finish"] == "tool_calls"
        assert (await worker.chat(told("warm"), tools=TOOLS)).text == "It is warm."
        # An approval, by itself.
        await worker.chat(said("Where?"), events=True, context=context)
        for status, approved, word in (
            ("resolved", True, "gone, all 1"),
            ("resolved", False, "denied"),
            ("cancelled", True, "denied"),
        ):
            await worker.chat(said("Where?"), events=True, context=context)
            resume = [{"id": "c3", "status": status, "payload": {"approved": approved}}]
            answer = await worker.chat([], events=True, context=context, resume=resume)
            assert word in answer.text
        # An output that is no text, and content that is none.
        answer = await worker.chat(said("Which town?"), events=True)
        assert answer.words == ('{"name":"Rome"}',)
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,YWJj"}}
        answer = await worker.chat(said([{"type": "text", "text": "See"}, image]))
        assert answer.text == "See image/png"
        _, why = (await worker.chat(said([{"type": "video"}]))).failure
        assert why == "messages: a part of type 'video' is none that is taken"
        await leave(worker)


async def test_an_openai_agents_agent() -> None:
    async with serve("openai_agents") as worker:
        context = {"conversation_id": "c"}
        answer = await worker.chat(said("Where?"), events=True, tools=TOOLS, context=context)
        calls = [called("c2", "weather", city="Rome"), called("c3", "delete", n=1)]
        assert list(answer.words) == [*FOUND, "Let me see. ", *calls]
        usage = {"input_tokens": 10, "output_tokens": 4}
        assert answer.outcome == {
            "finish": "input_required",
            "usage": {**usage, "cached_input_tokens": 8, "reasoning_tokens": 2},
            "asks": [
                {
                    "id": "c3",
                    "message": 'May delete be called with {"n":1}?',
                    "call": "c3",
                    **DELETE,
                }
            ],
        }
        answer = await worker.chat(said("Weather?"), events=True, tools=TOOLS)
        assert answer.words == (called("c2", "weather", city="Rome"),)
        assert answer.outcome["finish"] == "tool_calls"
        assert (await worker.chat(told("warm"), tools=TOOLS)).text == "It is warm."
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,YWJj"}}
        answer = await worker.chat(said([{"type": "text", "text": "See"}, image]))
        assert answer.text == "input_text input_image"
        _, why = (await worker.chat(said([{"type": "video"}]))).failure
        assert why == "messages: a part of type 'video' is none that is taken"
        # An approval, by itself.
        for status, approved, word in (
            ("resolved", True, "gone, all 1"),
            ("resolved", False, "not approved"),
            ("cancelled", True, "not approved"),
        ):
            answer = await worker.chat(said("Delete it."), events=True, context=context)
            assert [ask["id"] for ask in answer.outcome["asks"]] == ["c3"]
            resume = [{"id": "c3", "status": status, "payload": approved}]
            answer = await worker.chat([], events=True, context=context, resume=resume)
            assert word in answer.text
        # What was not answered stays open, and is asked again; so does a call of the client's.
        brought = {"events": True, "tools": TOOLS, "context": context}
        await worker.chat(said("Where?"), **brought)
        answer = await worker.chat([], **brought, resume=[{"id": "other", "payload": True}])
        assert answer.words == (calls[0],)
        assert [ask["id"] for ask in answer.outcome["asks"]] == ["c3"]
        answer = await worker.chat([], **brought, resume=[{"id": "c3", "payload": True}])
        assert list(answer.words) == [came("c3", "gone, all 1"), calls[0]]
        assert answer.outcome["finish"] == "tool_calls"
        await leave(worker)
