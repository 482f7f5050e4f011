"""Streams in the form of another API than the gateway's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from tests.benchmarks.bench import Bench, Measure
from tests.benchmarks.figures import Figure, Target
from tests.benchmarks.measures.streams import OWN_CPU, chunks_of
from tests.benchmarks.servers import gateway
from tests.benchmarks.wire import Request

CHUNKS = 1000
NATIVE = "native stream"


def openai(bench: Bench) -> Iterator[Figure]:
    """The same chunks of one agent, in OpenAI's two forms and in the gateway's own.

    What is no chunk (a role, a finish) is counted as one: fewer than one in a hundred.
    """
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
                "gateway": partial(chunks_of, bench, server, requests[name], 1),
                NATIVE: partial(chunks_of, bench, server, requests[NATIVE], 1),
            }
            targets = (Target(NATIVE, at_least=0.9),) if name == "chat completion" else ()
            taken = bench.interleave(subjects)
            case = f"a {name} of {CHUNKS:,} chunks, 1 connection"
            yield Figure("openai", case, "chunks/s", taken["chunks"], targets)
            yield Figure(
                "openai", f"{case}, {OWN_CPU}", "µs/1,000 chunks", taken["cpu"],
                higher_is_better=False,
            )  # fmt: skip


def _request(path: str, **body: object) -> Request:
    return Request(path, json.dumps({**body, "stream": True}).encode())


MEASURES = (Measure("openai", "streams of 1,000 chunks as OpenAI's API has them", openai),)
