"""What `told.py` does, as the author of an agent writes it with the SDK for Python."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from worker import (
    Agent,
    Ask,
    Context,
    Event,
    Finish,
    InvalidInput,
    Reasoning,
    Status,
    ToolCall,
    ToolResult,
    Usage,
)

agent = Agent("told", concurrency=64, modes=["text", "image"], tools=True, asks=True)

Words = AsyncIterator[str | Event]
CITY = {"city": "Oslo"}


async def hello(context: Context) -> Words:
    for word in ("Hello, ", "Wörld", "!"):
        yield word


async def stop_early(context: Context) -> Words:
    yield "It was a dark and"
    yield Finish("length")


async def weather(context: Context) -> Words:
    if "weather" not in {tool.name for tool in context.tools}:
        raise InvalidInput("the caller has no tool named weather")
    yield ToolCall("c1", "weather", CITY)


async def own_weather(context: Context) -> Words:
    yield ToolCall("w1", "weather", CITY)
    yield ToolResult("w1", "12 °C")
    yield "It is 12 °C there."


async def search(context: Context) -> Words:
    yield Status("Searching")
    yield "Let me see. "
    yield ToolCall("s1", "search", {"query": "cats"})
    yield ToolResult("s1", "3 pages")
    yield "Found 3 pages."


async def think(context: Context) -> Words:
    yield Reasoning("First this, ")
    yield Reasoning("then that.")
    yield "Done."


async def ask(context: Context) -> Words:
    yield "One thing. "
    yield Ask("a1", "Which day?")


async def refuse(context: Context) -> Words:
    raise InvalidInput("no such city")
    yield ""


async def fail_later(context: Context) -> Words:
    yield "so far"
    msg = "no luck"
    raise RuntimeError(msg)


DOES: dict[str, Callable[[Context], Words]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        hello, stop_early, weather, own_weather, search, think, ask, refuse, fail_later,
    )
}  # fmt: skip


@agent.chat
async def talk(messages: list[dict[str, Any]], context: Context) -> Words:
    said = [message for message in messages if message["role"] == "user"][-1]["content"]
    if messages[-1]["role"] == "tool":
        yield f"It is {messages[-1]['content']}."
    else:
        async for word in DOES[said.split()[0]](context):
            yield word
    yield Usage(7, 3)
