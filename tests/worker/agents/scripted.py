"""Follows the script of protocol/README.md, with the SDK for Python.

python -m protocol.conformance --script -- python tests/worker/agents/scripted.py
"""

from __future__ import annotations

import math
import subprocess
from collections.abc import AsyncIterator
from typing import Any

import anyio

from worker import Agent, Ask, InvalidInput

agent = Agent("scripted", concurrency=8)
waiting: list[anyio.Event] = []


async def follow(script: dict[str, Any]) -> Any:  # noqa: RET503 - what only acts answers null
    match script:
        case {"fail": why, **rest} if "chunks" not in rest:
            raise RuntimeError(why)
        case {"chunks": _} | {"halves": _}:
            return stream(script)
        case {"say": words}:
            return say(words, script.get("outcome", {}))
        case {"echo": value}:
            return value
        case {"refuse": why}:
            raise InvalidInput(why)
        case {"wait": True}:
            await anyio.sleep_forever()
        case {"meet": number}:
            return await meet(number)
        case {"text": length}:
            return "x" * length
        case {"nest": depth}:
            return nested(depth)
        case {"half": True}:
            return "\ud83d"
        case {"nan": True}:
            return math.nan
        case {"print": text}:
            print(text)
        case {"spawn": command}:
            await anyio.to_thread.run_sync(
                lambda: subprocess.run(["sh", "-c", command], check=False)
            )
        case _:
            raise InvalidInput("no instruction")


async def stream(script: dict[str, Any]) -> AsyncIterator[str]:
    chunks = script.get("chunks")
    for chunk in halves(script["halves"]) if chunks is None else chunks:
        yield chunk
        if "print" in script:
            print(script["print"])
    if "fail" in script:
        raise RuntimeError(script["fail"])
    if script.get("wait"):
        await anyio.sleep_forever()


async def say(words: list[Any], outcome: dict[str, Any]) -> AsyncIterator[Any]:
    for word in words:
        yield word
    if "usage" in outcome:
        yield {"type": "usage", **outcome["usage"]}
    if outcome.get("finish") in {"stop", "length", "refused"}:
        yield {"type": "finish", "reason": outcome["finish"]}
    for ask in outcome.get("asks", ()):
        yield Ask(**ask)


def run(command: str) -> None:
    subprocess.run(["sh", "-c", command], check=False)


async def meet(number: int) -> int:
    met = anyio.Event()
    waiting.append(met)
    if len(waiting) == number:
        for each in waiting:
            each.set()
        waiting.clear()
    await met.wait()
    return number


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def halves(text: str) -> list[str]:
    """The UTF-16 units of a text, as a language that counts in them would cut it."""
    units = text.encode("utf-16-le")
    return [units[i : i + 2].decode("utf-16-le", "surrogatepass") for i in range(0, len(units), 2)]


@agent.invoke
async def invoke(script: Any) -> Any:
    if not isinstance(script, dict):
        raise InvalidInput("no instruction")
    return await follow(script)


@agent.chat
async def chat(messages: list[Any]) -> Any:
    answer = await invoke(messages[-1].get("content"))
    return str(answer) if isinstance(answer, int) else answer


if __name__ == "__main__":
    agent.run()
