"""Requests that outlive their connections, through a real gateway and with real clients."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import trio
from openai import AsyncOpenAI

from tests.harness import STOP_SECONDS, one_process, running_gateway
from tests.http.conftest import SCRIPTED, Shared
from tests.http.cutting import cutting_proxy
from tests.http.raw import becomes, connected

CUTS = 100

PIECES = 1500
"""Events before and again after the moment at which the agent waits."""

MOST_BEFORE_A_CUT = 900
"""Bytes of a response, of whose head there are about 300: a third of the cuts are within one."""

EVENTS = {"accept": "text/event-stream"}

PATH = "/agent/scripted/invoke"


def spoken(name: str) -> Any:
    """A script that says many words, of which the second half has to be waited for."""
    words = [["say", f"word {number} "] for number in range(PIECES)]
    return [*words, ["wait", name], *words, ["end"]]


class Resuming:
    """A client as any that resumes: it keeps whole events only, and comes back with the last id."""

    def __init__(self, client: httpx.AsyncClient, name: str, *, by_key: bool) -> None:
        self._client = client
        self._body = {"input": spoken(name), "stream": True}
        self._key = {"idempotency-key": name}
        self._by_key = by_key
        self.events = b""
        self.run: str | None = None
        self.attempts = 0

    async def attempt(self) -> bool:
        """One request; whether the stream has ended with it."""
        self.attempts += 1
        headers = {}
        if self.events:
            headers["last-event-id"] = str(self.events.count(b"\n\n") - 1)
        if self.run is None or self._by_key:
            url, method, content = PATH, "POST", json.dumps(self._body)
            headers |= {"content-type": "application/json", **self._key}
        else:
            url, method, content = f"/runs/{self.run}", "GET", ""
            headers |= EVENTS
        received = b""
        try:
            async with self._client.stream(
                method, url, headers=headers, content=content
            ) as response:
                assert response.status_code == 200, await response.aread()
                self.run = response.headers["x-run-id"]
                async for data in response.aiter_raw():
                    received += data
        except (httpx.RemoteProtocolError, httpx.NetworkError):
            pass  # cut
        end = received.rfind(b"\n\n")
        if end >= 0:
            self.events += received[: end + 2]
        return self.events.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("by_key", [False, True])
async def test_a_client_that_is_cut_100_times_reads_what_one_that_is_not_reads(
    shared: Shared, client: httpx.AsyncClient, by_key: bool
) -> None:
    """By `GET /runs/{id}`, or by repeating its request under its key. The agent goes on meanwhile,
    and runs once."""
    name = f"cut-{by_key}"
    before = (await client.get("/agent/scripted")).json()
    async with (
        cutting_proxy(shared.port, cuts=CUTS, most=MOST_BEFORE_A_CUT, seed=by_key) as proxy,
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{proxy.port}",
            timeout=30,
            limits=httpx.Limits(max_keepalive_connections=0),
        ) as through_proxy,
    ):
        resuming = Resuming(through_proxy, name, by_key=by_key)
        while not await resuming.attempt():
            if resuming.attempts == CUTS // 2:
                await client.post(PATH, json={"input": [["open", name], ["end"]]})
    assert proxy.cuts == 0
    assert resuming.attempts == CUTS + 1
    uncut = await client.get(f"/runs/{resuming.run}", headers=EVENTS)
    assert resuming.events == uncut.content
    words = [f"word {number} " for number in range(PIECES)] * 2
    datas = [json.dumps({"chunk": word}, separators=(",", ":")) for word in words] + ["[DONE]"]
    assert uncut.text == "".join(f"id: {n}\ndata: {data}\n\n" for n, data in enumerate(datas))
    after = (await client.get("/agent/scripted")).json()
    assert served(after) - served(before) == 2, "this one, and the one that let it go on"


def served(state: dict[str, Any]) -> int:
    return sum(worker["served"] for worker in state["workers"])


@one_process("who has a run is told a moment later")
async def test_a_run_can_be_polled_read_and_cancelled(client: httpx.AsyncClient) -> None:
    go = [["wait", "polled"], ["answer", 7]]
    begun = await client.post(PATH, json={"input": go}, headers={"prefer": "respond-async"})
    assert begun.status_code == 202
    assert begun.headers["preference-applied"] == "respond-async"
    where = begun.headers["location"]

    async def becomes_state(state: str) -> None:
        async def has_become() -> bool:
            return bool((await client.get(where)).json()["state"] == state)

        await becomes(has_become)

    await becomes_state("running")  # it waits for a worker that is still being started
    await client.post(PATH, json={"input": [["open", "polled"], ["end"]]})
    await becomes_state("completed")
    assert (await client.get(where)).json()["answer"]["body"] == {"output": 7}
    head = await client.head(where)
    assert head.status_code == 200
    assert head.content == b""
    other = await client.get(where, headers={"authorization": "Bearer somebody"})
    assert other.status_code == 404
    held = await client.post(PATH, json={"input": [["hold"]]}, headers={"prefer": "respond-async"})
    assert (await client.post(f"{held.headers['location']}/cancel")).json()["state"] == "cancelled"
    assert (await client.delete(where)).headers["allow"] == "GET, HEAD, OPTIONS"


async def test_an_agent_that_continues_can_be_come_back_to(tmp_path: Path) -> None:
    words = ", ".join(f"'{word}'" for word in SCRIPTED)
    toml = f"[agents.scripted]\ncommand = [{words}]\non_disconnect = 'continue'\n"
    async with running_gateway(toml=toml, folder=tmp_path) as gateway:
        script = [["say", "word"], ["wait", "go"], ["say", "alone"], ["end"]]
        async with connected(gateway.port) as connection:
            await connection.request(PATH, {"input": script, "stream": True})
            head, _, first = (await connection.until(b'"word"}\n\n')).partition(b"\r\n\r\n")
        assert b'id: 0\ndata: {"chunk":"word"}\n\n' in first
        (run,) = re.findall(r"x-run-id: (\S+)", head.decode())
        await gateway.post(PATH, input=[["open", "go"], ["end"]])
        rest = await gateway.client.get(f"/runs/{run}", headers={**EVENTS, "last-event-id": "0"})
        assert rest.text == 'id: 1\ndata: {"chunk":"alone"}\n\nid: 2\ndata: [DONE]\n\n'
        gone_on = await gateway.client.get(f"/runs/{run}", headers={**EVENTS, "last-event-id": "2"})
        assert gone_on.status_code == 204
        assert not any("cancelled" in line for line in gateway.log)


async def test_a_restart_and_time_say_plainly_that_a_run_is_gone(tmp_path: Path) -> None:
    agent = f"[agents.scripted]\ncommand = {json.dumps(SCRIPTED)}\n"
    asked: dict[str, Any] = {"json": {"input": 1}, "headers": {"prefer": "respond-async"}}
    async with running_gateway(toml=agent, folder=tmp_path) as gateway:
        where = (await gateway.client.post(PATH, **asked)).headers["location"]
        assert (await gateway.client.get(where)).status_code == 200
    short = agent + "[server.runs]\nttl = 0.1\n"
    async with running_gateway(toml=short, folder=tmp_path) as gateway:
        for method, path in (("GET", where), ("POST", f"{where}/cancel")):
            gone = await gateway.client.request(method, path)
            assert gone.status_code == 410
            assert gone.json()["error"]["type"] == "run_gone"
            assert "before the gateway was" in gone.json()["error"]["message"]
        brief = (await gateway.client.post(PATH, **asked)).headers["location"]

        async def is_gone() -> bool:
            return (await gateway.client.get(brief)).status_code == 410

        await becomes(is_gone)
        assert (await gateway.client.get("/runs/run_1")).status_code == 404


@one_process("a run outlives its front, and is read on at another")
async def test_what_waits_for_a_run_ends_with_the_gateway(tmp_path: Path) -> None:
    toml = f"[server]\ndrain = 0.2\n[agents.scripted]\ncommand = {json.dumps(SCRIPTED)}\n"
    async with running_gateway(toml=toml, folder=tmp_path) as gateway:
        script = [["say", "word"], ["hold"]]
        begun = await gateway.client.post(
            PATH, json={"input": script, "stream": True}, headers={"prefer": "respond-async"}
        )
        async with gateway.client.stream(
            "GET", begun.headers["location"], headers=EVENTS
        ) as response:
            parts = response.aiter_raw()
            data = await anext(parts)
            gateway.process.terminate()
            async for part in parts:
                data += part
        with trio.fail_after(STOP_SECONDS):
            await gateway.process.wait()  # before a second signal, which would end it at once
        assert data.startswith(b'id: 0\ndata: {"chunk":"word"}\n\nid: 1\nevent: error\n')
        assert b'"type":"shutting_down"' in data
        assert b"[DONE]" not in data


# OpenAI's client


@pytest.fixture
async def oai(shared: Shared) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(
        base_url=f"{shared.url}/v1", api_key="sk-mine", max_retries=0, timeout=30
    ) as client:
        yield client


def script(*steps: Any) -> str:
    return json.dumps(steps)


async def test_openais_client_polls_a_response_in_the_background(oai: AsyncOpenAI) -> None:
    asked = script(["wait", "background"], ["answer", "done"])
    begun = await oai.responses.create(model="scripted", input=asked, background=True)
    assert begun.status in {"queued", "in_progress"}
    opening = script(["open", "background"], ["answer", "opened"])
    await oai.responses.create(model="scripted", input=opening)

    async def done() -> bool:
        return (await oai.responses.retrieve(begun.id)).status == "completed"

    await becomes(done)
    assert (await oai.responses.retrieve(begun.id)).output_text == "done"
    with pytest.raises(openai.NotFoundError):
        await oai.with_options(api_key="sk-other").responses.retrieve(begun.id)
    with pytest.raises(openai.APIStatusError) as caught:
        await oai.responses.retrieve(f"resp_{'0' * 56}")
    assert caught.value.status_code == 410


async def test_openais_client_cancels_a_response_in_the_background(oai: AsyncOpenAI) -> None:
    begun = await oai.responses.create(model="scripted", input=script(["hold"]), background=True)
    for _ in range(2):
        assert (await oai.responses.cancel(begun.id)).status == "cancelled"
    assert (await oai.responses.retrieve(begun.id)).status == "cancelled"


async def test_openais_client_resumes_a_stream_after_a_lost_connection(oai: AsyncOpenAI) -> None:
    steps = [["say", f"word {number} "] for number in range(20)]
    asked = script(*steps, ["wait", "resumed"], *steps, ["end"])
    stream = await oai.responses.create(model="scripted", input=asked, background=True, stream=True)
    seen: list[Any] = []
    async with stream, aclosing(aiter(stream)) as events:
        while len(seen) < 10:
            seen.append(await anext(events))
    identity = seen[0].response.id
    opening = script(["open", "resumed"], ["answer", "opened"])
    await oai.responses.create(model="scripted", input=opening)
    rest = await oai.responses.retrieve(
        identity, stream=True, starting_after=seen[-1].sequence_number
    )
    seen += [event async for event in rest]
    assert [event.sequence_number for event in seen] == list(range(len(seen)))
    assert seen[-1].type == "response.completed"
    whole = [event async for event in await oai.responses.retrieve(identity, stream=True)]
    assert seen == whole
    text = "".join(event.delta for event in seen if event.type == "response.output_text.delta")
    assert text == "".join(f"word {number} " for number in range(20)) * 2
    assert (await oai.responses.retrieve(identity)).output_text == text


async def test_openais_client_sends_no_key_of_its_own_and_one_that_it_is_given(
    oai: AsyncOpenAI,
) -> None:
    chat = oai.chat.completions.with_raw_response
    messages: Any = [{"role": "user", "content": "1"}]
    plain = await chat.create(model="scripted", messages=messages)
    assert "x-run-id" not in plain.headers
    given = {"Idempotency-Key": "mine"}
    runs = [
        (await chat.create(model="scripted", messages=messages, extra_headers=given)).headers[
            "x-run-id"
        ]
        for _ in range(2)
    ]
    assert runs[0] == runs[1]


async def test_a_reader_that_is_too_slow_for_a_shared_worker_does_not_end_its_run(
    tmp_path: Path,
) -> None:
    """A client that is no run's is cut in this place: its worker cannot wait for it."""
    toml = f"[agents.scripted]\ncommand = {json.dumps(SCRIPTED)}\nworkers = {{ max = 1 }}\n"
    async with running_gateway(toml=toml, folder=tmp_path) as gateway:
        held = await gateway.client.post(
            PATH, json={"input": [["hold"]]}, headers={"prefer": "respond-async"}
        )
        async with connected(gateway.port, receive_buffer=4096) as slow:
            body = {"input": [["big", 8 << 20], ["end"]], "stream": True}
            await slow.request(PATH, body, headers=("Idempotency-Key: slow",))
            head, _, _ = (await slow.until(b"\r\n\r\n")).partition(b"\r\n\r\n")
            (run,) = re.findall(r"x-run-id: (\S+)", head.decode())

            async def done() -> bool:
                return bool((await gateway.client.get(f"/runs/{run}")).json()["state"] != "running")

            await becomes(done)
        shown = (await gateway.client.get(f"/runs/{run}")).json()
        assert shown["state"] == "completed"
        assert shown["events"] == {"first": 0, "next": (8 << 20) // 8192 + 1}
        stream = await gateway.client.get(f"/runs/{run}", headers=EVENTS)
        assert stream.text.count('{"chunk":"') == (8 << 20) // 8192
        assert stream.text.endswith("data: [DONE]\n\n")
        await gateway.client.post(f"{held.headers['location']}/cancel")
