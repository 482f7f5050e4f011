"""Streams, byte for byte: the events, the fallback both ways, failures, and clients that leave."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.harness import parse_events, running_gateway
from tests.http.conftest import SCRIPTED, Shared
from tests.http.raw import Connection, connected

PATHS = ["/agent/scripted/invoke", "/agents/scripted/chat"]


def asking(path: str, script: Any, *, stream: bool = True) -> dict[str, Any]:
    if path.endswith("/chat"):
        return {"messages": [{"role": "user", "content": script}], "stream": stream}
    return {"input": script, "stream": stream}


@pytest.mark.parametrize("path", PATHS)
async def test_a_stream_is_exactly_these_bytes(shared: Shared, path: str) -> None:
    async with connected(shared.port) as connection:
        script = [["say", "Hello "], ["say", 'é\n"World"!'], ["end"]]
        await connection.request(path, asking(path, script), headers=("X-Request-Id: r-7",))
        answer = await connection.answer()
    assert answer.body == (
        b'data: {"chunk":"Hello "}\n\n'
        b'data: {"chunk":"\\u00e9\\n\\"World\\"!"}\n\n'  # as the agent wrote it
        b"data: [DONE]\n\n"
    )
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["x-request-id"] == "r-7"
    assert "content-length" not in answer.headers


async def test_a_stream_without_chunks_is_its_end(shared: Shared) -> None:
    async with connected(shared.port) as connection:
        await connection.request(PATHS[0], asking(PATHS[0], [["end"]]))
        answer = await connection.answer()
    assert (answer.status, answer.body) == (200, b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("path", "value", "chunk"),
    [
        (PATHS[0], "a string", "a string"),
        (PATHS[0], {"a": [1, None]}, '{"a": [1, null]}'),
        (PATHS[0], None, "null"),
        (PATHS[1], "a string", "a string"),
        (PATHS[1], None, '{"role": "assistant", "content": null}'),
    ],
)
async def test_one_result_is_one_chunk_of_a_stream(
    client: httpx.AsyncClient, path: str, value: Any, chunk: str
) -> None:
    answer = await client.post(path, json=asking(path, [["answer", value]]))
    first, last = parse_events(answer.text)
    assert json.loads(first) == {"chunk": chunk}
    assert last == "[DONE]"


async def test_chunks_are_one_answer_for_who_does_not_stream(client: httpx.AsyncClient) -> None:
    script = [["say", "Hello "], ["say", ""], ["say", 'é\n"World"! 💡'], ["end"]]
    whole = 'Hello é\n"World"! 💡'
    answer = await client.post(PATHS[0], json=asking(PATHS[0], script, stream=False))
    assert answer.json() == {"output": whole}
    answer = await client.post(PATHS[1], json=asking(PATHS[1], script, stream=False))
    assert answer.json() == {"message": {"role": "assistant", "content": whole}}


async def test_each_word_is_there_when_it_is_said(shared: Shared) -> None:
    async with connected(shared.port) as connection, connected(shared.port) as other:
        script = [["say", "one"], ["wait", "each-word"], ["say", "two"], ["end"]]
        await connection.request(PATHS[0], asking(PATHS[0], script))
        await connection.until(b'"one"}\n\n')
        # Only now does the agent go on.
        await other.request(PATHS[0], asking(PATHS[0], [["open", "each-word"], ["end"]]))
        await connection.until(rb'"two"}\n\n')
        await connection.until(rb"\[DONE\]\n\n")


async def test_the_head_waits_for_the_first_word(shared: Shared) -> None:
    async with connected(shared.port) as waiting, connected(shared.port) as other:
        script = [["wait", "the-head"], ["error", -32602, "on second thoughts, no"]]
        await waiting.request(PATHS[0], asking(PATHS[0], script))
        await other.request(PATHS[0], asking(PATHS[0], [["open", "the-head"], ["end"]]))
        answer = await waiting.answer()
    assert answer.status == 400
    assert answer.error["message"] == "on second thoughts, no"


async def test_chunks_that_come_together_leave_together(shared: Shared) -> None:
    """What was read by us in one piece was written by the gateway in at most one."""
    async with connected(shared.port) as connection:
        script = [["say", "first"], ["wait", "burst"], ["burst", 200], ["end"]]
        await connection.request(PATHS[0], asking(PATHS[0], script))
        await connection.until(b'"first"}\n\n')
        connection.pieces.clear()
        async with connected(shared.port) as other:
            await other.request(PATHS[0], asking(PATHS[0], [["open", "burst"], ["end"]]))
        await connection.until(rb"\[DONE\]\n\n")
    data = [piece for piece in connection.pieces if b"chunk" in piece]
    assert sum(piece.count(b"data: {") for piece in data) == 200
    # One HTTP chunk holds one write: the burst is one line of the wire's pipe, so one read of it,
    # but the pipe may be read while the agent is still writing.
    http_chunks = b"".join(connection.pieces).count(b"\r\ndata: {")
    assert http_chunks <= 10


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("fault", "kind", "details"),
    [
        (["error", -32000, 'no "luck"'], "agent_error", {"message": 'no "luck"'}),
        (["raw", '{"id": <id>, "result": {"output": 1}}'], "invalid_agent_response", {}),
        (["raw", "garbage"], "invalid_agent_response", {"violation": "not_json"}),
        (["exit", 9], "worker_crashed", {"exit_status": 9}),
    ],
)
async def test_a_failure_after_the_first_word_is_an_error_event_and_no_done(
    shared: Shared, path: str, fault: list[Any], kind: str, details: dict[str, Any]
) -> None:
    async with connected(shared.port) as connection:
        script = [["say", "so far"], ["wait", f"f-{kind}-{path}"], fault, ["hold"]]
        await connection.request(path, asking(path, script), headers=("X-Request-Id: r-8",))
        await connection.until(b'data: {"chunk":"so far"}\n\n')
        async with connected(shared.port) as other:
            await other.request(path, asking(path, [["open", f"f-{kind}-{path}"], ["end"]]))
            rest = await connection.until(rb"\r\n0\r\n\r\n")
    event, data = rest.split(b"event: error\ndata: ")[1].split(b"\n\n")[0], rest
    error = json.loads(event)["error"]
    assert (error["type"], error["request_id"], error["output_begun"]) == (kind, "r-8", True)
    assert {key: error[key] for key in details} == details
    assert b"[DONE]" not in data


async def test_a_clock_that_runs_out_in_mid_stream_ends_it_with_its_name(shared: Shared) -> None:
    async with connected(shared.port) as connection:
        body = asking(PATHS[0], [["say", "word"], ["hold"]])
        await connection.request("/agent/silenced/invoke", body)
        answer = await connection.answer()
    word, error = parse_events(answer.body.decode())
    assert word == '{"chunk":"word"}'
    assert json.loads(error.removeprefix("error "))["error"]["clock"] == "idle"


# Clients that leave


async def leave_after_a_word(
    connection: Connection, path: str, script: list[Any], *, name: str = "leaver"
) -> None:
    await connection.request(path, asking(path, script), headers=(f"X-Request-Id: {name}",))
    await connection.until(b'"word"}\n\n')


async def test_a_client_that_leaves_a_stream_cancels_the_work() -> None:
    async with running_gateway({"scripted": SCRIPTED}) as gateway:
        for path in PATHS:
            async with connected(gateway.port) as connection:
                script = [["say", "word"], ["hold"]]
                await leave_after_a_word(connection, path, script, name=path)
            await gateway.logged(f"cancelled {path}")
            assert (await gateway.post(PATHS[0], input="next")).json() == {"output": "next"}
            assert (await gateway.state("scripted"))["in_flight"] == 0
        # The same before the first word.
        for stream in (True, False):
            async with connected(gateway.port) as connection:
                await connection.request(
                    PATHS[0],
                    asking(PATHS[0], [["log", f"begun {stream}"], ["hold"]], stream=stream),
                    headers=(f"X-Request-Id: leaver-{stream}",),
                )
                await gateway.logged(f"begun {stream}")
            await gateway.logged(f"cancelled leaver-{stream}")


async def test_where_it_is_asked_for_the_work_goes_on_without_its_client(tmp_path) -> None:
    words = ", ".join(f"'{word}'" for word in SCRIPTED)
    toml = f"[agents.scripted]\ncommand = [{words}]\non_disconnect = 'continue'\n"
    async with running_gateway(toml=toml, folder=tmp_path) as gateway:
        async with connected(gateway.port) as connection:
            script = [["say", "word"], ["wait", "go"], ["log", "done without a client"], ["end"]]
            await leave_after_a_word(connection, PATHS[0], script)
        await gateway.post(PATHS[0], input=[["open", "go"], ["end"]])
        await gateway.logged("done without a client")
        assert not any("cancelled" in line for line in gateway.log)
