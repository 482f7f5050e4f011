"""Streams in the form of another API than the gateway's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from tests.benchmarks.bench import Bench, Measure, Samples
from tests.benchmarks.figures import Figure, Target
from tests.benchmarks.servers import Server, gateway
from tests.benchmarks.wire import Request, count_events

CHUNKS = 1000
NATIVE = "native stream"


def openai(bench: Bench) -> Iterator[Figure]:
    """The same chunks of one agent, in OpenAI's two forms and in the gateway's own."""
    messages = [{"role": "user", "content": str(CHUNKS)}]
    requests = {
        NATIVE: _request("/agent/words/chat", messages=messages),
        "chat completion": _request("/v1/chat/completions", model="words", messages=messages),
        "response": replace(
            _request("/v1/responses", model="words", input=messages), last=b"response.completed"
        ),
    }
    with gateway(bench.folder, agents={"words": {}}) as server:
        for name in ("chat completion", "response"):
            subjects = {
                "gateway": partial(_events, bench, server, requests[name]),
                NATIVE: partial(_events, bench, server, requests[NATIVE]),
            }
            targets = (Target(NATIVE, at_least=0.9),) if name == "chat completion" else ()
            taken = bench.interleave(subjects)
            yield Figure(
                "openai", f"a {name} of {CHUNKS:,} chunks, 1 connection", "chunks/s",
                taken["chunks"], targets,
            )  # fmt: skip


def _request(path: str, **body: object) -> Request:
    return Request(path, json.dumps({**body, "stream": True}).encode())


def _events(bench: Bench, server: Server, request: Request) -> Samples:
    """Events that are not chunks (a role, a finish) are fewer than one in a hundred."""
    rate = count_events(server.port, request, connections=1, seconds=bench.seconds)
    return {"chunks": rate}


MEASURES = (Measure("openai", "streams of 1,000 chunks as OpenAI's API has them", openai),)
