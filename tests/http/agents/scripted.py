"""An agent that does what its input says, so that a test holds both ends of a request.

The input, or the content of the last message, is a script: a list of steps, carried out in order.

    ["say", text]          a chunk
    ["burst", n]           n chunks in one write
    ["answer", value]      the result (of a chat: the message) and the end of the script
    ["event", {…}]         an event
    ["end", {…}]           the end of a stream, with an outcome if one is said
    ["error", code, text]  an error
    ["raw", text]          a line as it is; <id> stands for the request's id
    ["big", bytes]         chunks of 8 KiB until so many bytes were written
    ["log", text]          a line on stderr
    ["hold"]               nothing until it is cancelled, which is logged, answered, and opens
                           "cancelled" (see "wait")
    ["wait", name]         nothing until another request has said ["open", name]
    ["open", name]         lets those go on that wait for `name`
    ["exit", status]       the end of the process
    ["asked"]              answers with the params that came

A script may be a text as well, for clients whose protocol has no lists there. Anything else is
echoed. It declares a concurrency of 64, the handlers that its arguments name, and `true` for those
that begin with a plus.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

events: dict[str, asyncio.Event] = {}
cancelled: dict[int, asyncio.Event] = {}
"""Of each request, also before it comes to a "hold": a cancel may be read together with it."""


def write(*messages: dict[str, Any]) -> None:
    raw("".join(json.dumps({"jsonrpc": "2.0", **message}) + "\n" for message in messages))


def raw(text: str) -> None:
    data = text.encode()
    while data:
        data = data[os.write(1, data) :]


def log(text: str) -> None:
    os.write(2, f"{text}\n".encode())


def chunk(number: int, text: str) -> dict[str, Any]:
    return {"method": "chunk", "params": {"id": number, "chunk": text}}


async def run(number: int, method: str, params: dict[str, Any]) -> None:
    try:
        await carry_out(number, method, params)
    finally:
        del cancelled[number]


async def carry_out(number: int, method: str, params: dict[str, Any]) -> None:
    key = "input" if method == "invoke" else "messages"
    script = params[key] if method == "invoke" else params[key][-1]["content"]
    if isinstance(script, str) and script.startswith("[["):
        script = json.loads(script)
    if not (isinstance(script, list) and script and isinstance(script[0], list)):
        script = [["answer", script]]
    for step, *arguments in script:
        match step, *arguments:
            case "say", text:
                write(chunk(number, text))
            case "burst", count:
                write(*(chunk(number, f"{n} ") for n in range(count)))
            case "answer", value if method == "invoke":
                write({"id": number, "result": {"output": value}})
            case "answer", value:
                message = {"role": "assistant", "content": value}
                write({"id": number, "result": {"message": message}})
            case "event", event:
                write({"method": "event", "params": {"id": number, "event": event}})
            case "end", *outcome:
                write({"id": number, "result": outcome[0] if outcome else {}})
            case "error", code, text:
                write({"id": number, "error": {"code": code, "message": text}})
            case "raw", text:
                raw(text.replace("<id>", str(number)) + "\n")
            case "big", size:
                for _ in range(size // 8192):
                    write(chunk(number, "x" * 8192))
            case "log", text:
                log(text)
            case ("hold",):
                await cancelled[number].wait()
                log(f"cancelled {params['request_id']}")
                events.setdefault("cancelled", asyncio.Event()).set()
                write({"id": number, "error": {"code": -32800, "message": "cancelled"}})
                return
            case "wait", name:
                await events.setdefault(name, asyncio.Event()).wait()
            case "open", name:
                events.setdefault(name, asyncio.Event()).set()
            case "exit", status:
                os._exit(status)
            case ("asked",):
                write({"id": number, "result": {"output": params}})


async def main() -> None:
    reader = asyncio.StreamReader(limit=16 * 1024 * 1024)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    handlers = [word for word in sys.argv[1:] if word[0] != "+"] or ["invoke", "chat"]
    ready = {"protocol": 1, "handlers": handlers, "concurrency": 64}
    ready |= {word[1:]: True for word in sys.argv[1:] if word[0] == "+"}
    write({"method": "ready", "params": {**ready, "description": "Does as it is told."}})
    tasks = set()
    async for line in reader:
        message = json.loads(line)
        if message["method"] == "cancel":
            if message["params"]["id"] in cancelled:
                cancelled[message["params"]["id"]].set()
            continue
        cancelled[message["id"]] = asyncio.Event()
        task = asyncio.create_task(run(message["id"], message["method"], message["params"]))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


asyncio.run(main())
