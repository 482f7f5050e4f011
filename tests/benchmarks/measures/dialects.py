"""Streams in the form of another API than the gateway's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial

from tests.benchmarks.bench import Bench, Measure, Samples
from tests.benchmarks.figures import Figure, Target
from tests.benchmarks.measures.streams import OWN_CPU, chunks_of
from tests.benchmarks.servers import Server, gateway
from tests.benchmarks.wire import DONE, Request

CHUNKS = 1000
NATIVE = "native stream"


def openai(bench: Bench) -> Iterator[Figure]:
    """The same chunks of one agent, in OpenAI's two forms and in the gateway's own.

    Whole streams are counted, since chunks that come together are fewer events in those forms.
    """
    messages = [{"role": "user", "content": str(CHUNKS)}]
    requests = {
        NATIVE: _request("/agent/words/chat", DONE, messages=messages),
        "chat completion": _request("/v1/chat/completions", DONE, model="words", messages=messages),
        "response": _request(
            "/v1/responses", b"event: response.completed", model="words", input=messages
        ),
    }
    with gateway(bench.folder, agents={"words": {}}) as server:
        for name in ("chat completion", "response"):
            subjects = {
                "gateway": partial(_chunks_of, bench, server, requests[name]),
                NATIVE: partial(_chunks_of, bench, server, requests[NATIVE]),
            }
            targets = (Target(NATIVE, at_least=0.9),) if name == "chat completion" else ()
            taken = bench.interleave(subjects)
            case = f"a {name} of {CHUNKS:,} chunks, 1 connection"
            yield Figure("openai", case, "chunks/s", taken["chunks"], targets)
            yield Figure(
                "openai", f"{case}, {OWN_CPU}", "µs/1,000 chunks", taken["cpu"],
                higher_is_better=False,
            )  # fmt: skip


def _chunks_of(bench: Bench, server: Server, request: Request) -> Samples:
    """The chunks of the agent, from the number of whole streams."""
    streams = chunks_of(bench, server, request, 1)
    return {"chunks": streams["chunks"] * CHUNKS, "cpu": streams["cpu"] / CHUNKS}


def _request(path: str, last: bytes, **body: object) -> Request:
    return Request(path, json.dumps({**body, "stream": True}).encode(), last=last, counted=last)


MEASURES = (Measure("openai", "streams of 1,000 chunks as OpenAI's API has them", openai),)
