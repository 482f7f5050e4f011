"""The references: the same answers without workers, on the same Hypercorn with the same settings.

    python -m tests.benchmarks.references quart|asgi

`quart` is *bare*: plain Quart-Trio routes, as one would write them with msgspec. `asgi` is *raw
ASGI*, the least that this server can run: an application of one function. Both print the line that
the gateway prints.
"""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator
from typing import Any, Literal

import msgspec
import trio
from hypercorn.trio import serve
from quart import Response, request
from quart_trio import QuartTrio

from gateway.composition.http import _http_config
from gateway.config import ServerSettings
from gateway.front.app import HTTPConnection
from gateway.front.sockets import open_listeners, url_of
from tests.benchmarks.agents.words import WORD

MAX_BODY = ServerSettings().max_body_bytes
STREAM = {"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
EVENT = b'data: {"chunk":"%b"}\n\n'
DONE = b"data: [DONE]\n\n"


class InvokeBody(msgspec.Struct):
    input: Any
    stream: bool = False


class Message(msgspec.Struct):
    role: Literal["system", "user", "assistant", "tool"]
    content: str


class ChatBody(msgspec.Struct):
    messages: list[Message]
    stream: bool = False


decode_invoke = msgspec.json.Decoder(InvokeBody).decode
decode_chat = msgspec.json.Decoder(ChatBody).decode
encode = msgspec.json.Encoder().encode


async def speak(wanted: dict[str, Any]) -> AsyncIterator[bytes]:
    """The output of `agents/words.py`, as events."""
    every, chunks = wanted.get("every"), wanted["chunks"]
    if every:
        for _ in range(chunks):
            yield EVENT % str(time.monotonic_ns()).encode()
            await trio.sleep(every)
    else:
        event = EVENT % WORD.encode()
        for _ in range(chunks or 1):
            yield event
        if not chunks:
            await trio.sleep_forever()
    yield DONE


def quart() -> QuartTrio:
    """Plain routes, with the gateway's fixes of the server where it would break without them."""
    app = QuartTrio("bare")
    app.asgi_http_class = HTTPConnection
    app.config["RESPONSE_TIMEOUT"] = None
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY

    @app.post("/agent/<name>/invoke")
    async def invoke(name: str) -> Response:
        body = decode_invoke(await request.get_data())
        if body.stream:
            return Response(speak(body.input), headers=STREAM)
        return Response(encode({"output": body.input}), content_type="application/json")

    @app.post("/agent/<name>/chat")
    async def chat(name: str) -> Response:
        body = decode_chat(await request.get_data())
        answer = {"role": "assistant", "content": body.messages[-1].content}
        return Response(encode({"message": answer}), content_type="application/json")

    return app


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI application that can only answer an invoke."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    parts = [message := await receive()]
    while message["more_body"]:
        parts.append(message := await receive())
    body = decode_invoke(b"".join([part["body"] for part in parts]))
    if not body.stream:
        data = encode({"output": body.input})
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(data)),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": data, "more_body": False})
        return
    head = [(name.lower().encode(), value.encode()) for name, value in STREAM.items()]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    async for event in speak(body.input):
        await send({"type": "http.response.body", "body": event, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def run(kind: str) -> None:
    host = ServerSettings().host
    listeners = open_listeners(host, 0)
    address = url_of(host, listeners)
    config = _http_config(listeners)
    config.keep_alive_timeout = ServerSettings().keep_alive
    async with trio.open_nursery() as nursery:
        app: Any = quart() if kind == "quart" else asgi
        await nursery.start(serve, app, config)
        print(f"listening on {address}", flush=True)


if __name__ == "__main__":
    trio.run(run, sys.argv[1])
