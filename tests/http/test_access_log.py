"""The access log of a real gateway: JSON on a stderr that is no terminal."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from tests.harness import RunningGateway, one_process, running_gateway
from tests.http.conftest import SCRIPTED
from tests.http.raw import connected

PATH = "/agent/scripted/invoke"
SECRET = "the-word-of-a-caller"

Record = dict[str, Any]


def settings(**server: Any) -> str:
    words = json.dumps(SCRIPTED)
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in server.items())
    return (
        f"[server]\nlog_format = 'json'\n{lines}"
        f"[agents.scripted]\ncommand = {words}\nworkers = {{ min = 1, max = 1 }}\n"
    )


@asynccontextmanager
async def serving(folder: Path, **server: Any) -> AsyncIterator[RunningGateway]:
    options = ("--log-format", "json")
    async with running_gateway(None, *options, toml=settings(**server), folder=folder) as gateway:
        yield gateway


def records(gateway: RunningGateway) -> list[Record]:
    """Every line of the log, each of which must be an object."""
    return [json.loads(line) for line in gateway.log]


async def record(gateway: RunningGateway, matches: Callable[[Record], bool]) -> Record:
    """Wait for a record, and return it."""
    found: list[Record] = []
    while not found:
        count = len(gateway.log)
        found = [each for each in records(gateway) if matches(each)]
        if not found and len(gateway.log) == count:
            await gateway.grows()
    return found[0]


async def access(gateway: RunningGateway, request: str, kind: str = "request") -> Record:
    """The line of the request with this id."""
    event = f"{kind} ended"
    return await record(gateway, lambda each: each["event"] == event and each["request"] == request)


async def ask(gateway: RunningGateway, request: str, path: str = PATH, **body: Any) -> Any:
    headers = {"x-request-id": request}
    answer = await gateway.client.post(path, json=body, headers=headers)
    assert answer.headers["x-request-id"] == request
    return answer


async def test_each_request_is_one_line_that_says_what_became_of_it_and_nothing_of_payloads(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as gateway:
        [worker] = (await gateway.state("scripted"))["workers"]
        answer = await ask(gateway, "one", input=SECRET)
        line = await access(gateway, "one")
        total, first, queue = (line.pop(key) for key in ("total", "first", "queue"))
        assert 0 <= queue <= first <= total
        assert line.pop("timestamp")
        assert line.pop("logger") == "gateway.access"
        assert line == {
            "level": "info",
            "event": "request ended",
            "request": "one",
            "agent": "scripted",
            "dialect": "native",
            "handler": "invoke",
            "method": "POST",
            "route": "/agent/{name}/invoke",
            "status": 200,
            "bytes_in": len(answer.request.content),
            "bytes_out": len(answer.content),
            "pid": worker["pid"],
        }
        # A stream, in another dialect
        script = json.dumps([["say", SECRET], ["wait", "x"], ["say", SECRET], ["end"]])
        body = {
            "model": "scripted",
            "stream": True,
            "messages": [{"role": "user", "content": script}],
        }
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: ask(gateway, "two", "/v1/chat/completions", **body))
            await gateway.post(PATH, input=[["open", "x"], ["answer", 1]])
        line = await access(gateway, "two")
        assert (line["dialect"], line["handler"]) == ("openai", "chat")
        assert (line["stream"], line["chunks"]) == (True, 2)
        assert line["queue"] <= line["first"] <= line["total"]
        # What fails
        assert (await ask(gateway, "three", input=[["error", -32602, "no"]])).status_code == 400
        line = await access(gateway, "three")
        assert (line["status"], line["error"]) == (400, "invalid_request")
        assert (await ask(gateway, "four", "/agent/nobody/invoke", input=1)).status_code == 404
        line = await access(gateway, "four")
        assert (line["error"], "agent" in line) == ("agent_not_found", False)
        count = sum(each["event"] == "request ended" for each in records(gateway))
        assert count == 6
        assert SECRET not in "".join(gateway.log)


async def test_a_client_that_leaves_is_a_line_without_a_status(tmp_path: Path) -> None:
    async with serving(tmp_path) as gateway:
        async with connected(gateway.port) as connection:
            body = {"input": [["log", "asked"], ["hold"]]}
            await connection.request(PATH, body, headers=("x-request-id: left",))
            await gateway.logged("asked")
        line = await access(gateway, "left")
        assert line["client_left"] is True
        assert "status" not in line


@one_process("a run outlives its front, which does not know its worker")
async def test_a_run_has_a_line_of_its_own_at_its_end(tmp_path: Path) -> None:
    async with serving(tmp_path) as gateway:
        headers = {"prefer": "respond-async", "x-request-id": "starts"}
        script = [["say", "a"], ["say", "b"], ["end"]]
        body = {"input": script, "stream": True}
        answer = await gateway.client.post(PATH, json=body, headers=headers)
        line = await access(gateway, "starts")
        assert (line["status"], line["run"]) == (202, answer.headers["x-run-id"])
        run = await access(gateway, "starts", "run")
        assert (run["run"], run["chunks"], run["agent"]) == (line["run"], 2, "scripted")
        assert "status" not in run
        assert run["pid"] > 0


async def test_an_agents_stderr_is_in_the_same_stream_with_the_id_of_its_request(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as gateway:
        await ask(gateway, "talks", input=[["log", "I say \x1b[2J so"], ["answer", 1]])
        said = await record(gateway, lambda each: "I say" in each["event"])
        assert (said["logger"], said["agent"], said["request"]) == (
            "gateway.agent",
            "scripted",
            "talks",
        )
        assert said["pid"] == (await access(gateway, "talks"))["pid"]
        assert not any("\x1b" in line for line in gateway.log)


async def test_probes_are_logged_at_the_level_debug_alone_which_a_reload_can_set(
    tmp_path: Path,
) -> None:
    probes = ("/live", "/ready", "/health", "/agent/scripted/health")

    async def probe(last: str) -> set[str]:
        """The routes that were logged when a request after all probes was."""
        for path in probes:
            await gateway.client.get(path)
        await gateway.client.get("/agents", headers={"x-request-id": last})
        await access(gateway, last)
        ended = [each for each in records(gateway) if each["event"] == "request ended"]
        assert all((each["level"] == "debug") == (each["route"] != "/agents") for each in ended)
        return {each["route"] for each in ended}

    async with serving(tmp_path) as gateway:
        assert await probe("first") == {"/agents"}
        (tmp_path / "gateway.toml").write_text(settings(log_level="debug"))
        gateway.process.send_signal(signal.SIGHUP)
        await gateway.logged("reload: done")
        routes = {path.replace("scripted", "{name}") for path in probes}
        assert await probe("second") == {"/agents", *routes}


async def test_without_an_access_log_no_request_is_a_line(tmp_path: Path) -> None:
    async with serving(tmp_path, access_log=False) as gateway:
        assert (await gateway.post(PATH, input=[["log", "after"], ["answer", 1]])).is_success
        assert (await gateway.post(PATH, input=[["log", "last"], ["answer", 1]])).is_success
        await gateway.logged('"last"')
        assert not [each for each in records(gateway) if each["event"] == "request ended"]


async def test_payloads_are_logged_only_if_a_setting_asks_for_it_cut_and_with_a_warning(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, log_payloads=True) as gateway:
        warning = await record(gateway, lambda each: each["event"].startswith("LOG_PAYLOADS"))
        assert warning["level"] == "warning"
        long = SECRET + "x" * 100_000
        await ask(gateway, "one", input=long)
        line = await access(gateway, "one")
        assert SECRET in line["request_body"]
        assert SECRET in line["response_body"]
        assert len(line["request_body"]) == len(line["response_body"]) == 4096
        await ask(gateway, "two", input=[["say", "a"], ["say", "b"], ["end"]], stream=True)
        line = await access(gateway, "two")
        assert line["response_body"].startswith('data: {"chunk":"a"')
