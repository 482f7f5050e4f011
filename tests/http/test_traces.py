"""Traces through a real gateway: the spans that a collector gets, the ids that are handed on."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from gateway.observe.traces import MAX_ANSWER, CollectorSession
from tests.harness import RunningGateway, running_gateway
from tests.http.collector import collector
from tests.http.conftest import AGENTS, SCRIPTED
from tests.http.raw import connected
from tests.sandbox.users import available_users, need_sandbox

PATH = "/agent/scripted/invoke"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"

SOON = {"OTEL_BSP_SCHEDULE_DELAY": "20"}
"""Milliseconds until spans are sent."""


@asynccontextmanager
async def serving(
    folder: Path, endpoint: str, more: str = "", env: Mapping[str, str] = SOON
) -> AsyncIterator[RunningGateway]:
    """A gateway that sends its spans there, with the agent `scripted`."""
    toml = f"""
        [server]
        sandbox = "off"
        [server.traces]
        endpoint = "{endpoint}"
        [agents.scripted]
        command = {json.dumps(SCRIPTED)}
        workers = {{ min = 1, max = 1 }}
        {more}
    """
    async with running_gateway(toml=toml, folder=folder, env=env) as gateway:
        yield gateway


async def asked(gateway: RunningGateway, headers: Mapping[str, str] = {}) -> dict[str, Any]:
    """The params of a request, as the worker gets them."""
    body = {"input": [["asked"]]}
    answer = await gateway.client.post(PATH, json=body, headers=headers)
    return answer.json()["output"]  # type: ignore[no-any-return]


async def test_one_trace_goes_through_the_gateway_the_agent_and_its_service(
    tmp_path: Path,
) -> None:
    user = available_users()[0]
    need_sandbox(user)
    with collector() as it, tempfile.TemporaryDirectory(prefix="traced-") as place:
        os.chmod(place, 0o755)
        shutil.copy(AGENTS / "traced.py", place)
        toml = f"""
            [server.traces]
            endpoint = "{it.url}"
            [services.stub]
            url = "{it.url}/service"
            [services.collector]
            url = "{it.url}"
            env = {{ OTEL_EXPORTER_OTLP_ENDPOINT = "{{url}}" }}
            [agents.traced]
            command = ["{sys.executable}", "-m", "worker", "{place}/traced.py:agent"]
            services = ["stub", "collector"]
        """
        headers = {"traceparent": PARENT, "tracestate": "vendor=x", "x-request-id": "r-1"}
        async with running_gateway(toml=toml, folder=tmp_path, env=SOON) as gateway:
            body = {"input": "some-secret"}
            answer = await gateway.client.post("/agent/traced/invoke", json=body, headers=headers)
            assert answer.status_code == 200, answer.text
            await it.until(lambda: len(it.of(TRACE)) == 4)
        request, queue, worker, think = (
            it.of(TRACE)[name]
            for name in ("POST /agent/{name}/invoke", "queue", "invoke_agent traced", "think")
        )
        assert (request.parent, request.kind, request.service) == (SPAN, "SERVER", "agent-gateway")
        assert (queue.parent, queue.kind) == (request.id, "INTERNAL")
        assert (worker.parent, worker.kind) == (request.id, "CLIENT")
        assert (think.parent, think.service) == (worker.id, "traced")
        assert {each.state for each in (request, queue, worker, think)} == {"vendor=x"}
        assert request.began <= queue.began <= queue.ended == worker.began
        assert worker.began <= think.began <= think.ended <= worker.ended <= request.ended
        # What the worker was told is its span, and what the service saw is the agent's.
        output = answer.json()["output"]
        assert output["traceparent"] == f"00-{TRACE}-{worker.id}-01"
        assert output["tracestate"] == "vendor=x"
        [seen] = it.requests
        assert (seen["path"], seen["traceparent"]) == (
            "/service/some-secret",
            f"00-{TRACE}-{think.id}-01",
        )
        assert request.attributes == {
            "http.request.method": "POST",
            "http.route": "/agent/{name}/invoke",
            "http.response.status_code": 200,
            "http.request.body.size": len(answer.request.content),
            "http.response.body.size": len(answer.content),
            "url.scheme": "http",
            "gateway.request_id": "r-1",
        }
        assert worker.attributes["gen_ai.operation.name"] == "invoke_agent"
        assert worker.attributes["gen_ai.agent.name"] == "traced"
        told = [each.attributes for each in (request, queue, worker)]
        assert "some-secret" not in repr(told)


async def test_requests_without_a_trace_begin_one_each(tmp_path: Path) -> None:
    with collector() as it:
        async with serving(tmp_path, it.url) as gateway:
            parents = [(await asked(gateway))["traceparent"] for _ in range(2)]
            line = await gateway.logged("request ended.* trace=")
            await it.until(lambda: len(it.spans) == 6)
        traces = [parent.split("-")[1] for parent in parents]
        assert len({*traces}) == 2
        assert f"trace={traces[0]}" in line
        for trace, parent in zip(traces, parents, strict=True):
            spans = it.of(trace)
            assert len(spans) == 3
            assert spans["POST /agent/{name}/invoke"].parent == ""
            assert spans["invoke_agent scripted"].id == parent.split("-")[2]


async def test_a_trace_that_its_caller_does_not_record_is_handed_on_and_not_recorded(
    tmp_path: Path,
) -> None:
    with collector() as it:
        async with serving(tmp_path, it.url) as gateway:
            params = await asked(gateway, {"traceparent": f"00-{TRACE}-{SPAN}-00"})
            await asked(gateway)
            await it.until(lambda: len(it.spans) == 3)
        _, trace, span, flags = params["traceparent"].split("-")
        assert (trace, flags) == (TRACE, "00")
        assert span != SPAN
        assert not it.of(TRACE)


HOSTILE = [
    [PARENT.upper()],
    [f"00-{'0' * 32}-{SPAN}-01"],
    [f"00-{TRACE}-{'0' * 16}-01"],
    [f"ff-{TRACE}-{SPAN}-01"],
    [f"{PARENT}-{'x' * 20_000}"],
    [PARENT, PARENT],
    [f"{PARENT}, {PARENT}"],
    ["\x80\xff'\"\\"],
]
"""Values of `traceparent`, in one field or in several."""


async def test_a_parent_that_is_invalid_is_dropped_and_a_new_trace_begins(tmp_path: Path) -> None:
    traces: list[str] = []
    with collector() as it:
        async with serving(tmp_path, it.url) as gateway, connected(gateway.port) as connection:
            for hostile in HOSTILE:
                lines = [f"traceparent: {each}" for each in hostile]
                headers = (*lines, "tracestate: vendor=x")
                await connection.request(PATH, {"input": [["asked"]]}, headers=headers)
                params = json.loads((await connection.answer()).body)["output"]
                _, trace, span, flags = params["traceparent"].split("-")
                assert (len(trace), len(span), flags) == (32, 16, "01")
                assert "tracestate" not in params
                traces.append(trace)
            await it.until(lambda: len(it.spans) == 3 * len(HOSTILE))
    assert len({*traces, TRACE, "0" * 32}) == len(HOSTILE) + 2
    for trace in traces:
        assert it.of(trace)["POST /agent/{name}/invoke"].parent == ""


async def test_what_fails_streams_or_runs_on_is_in_its_spans(tmp_path: Path) -> None:
    with collector() as it:
        async with serving(tmp_path, it.url) as gateway:
            names = {
                key: f"{number:032x}"
                for number, key in enumerate(("fails", "wrong", "stream", "run", "nobody"), 1)
            }

            async def post(key: str, path: str = PATH, headers: Any = (), **body: Any) -> Any:
                fields = {"traceparent": f"00-{names[key]}-{SPAN}-01", **dict(headers)}
                return await gateway.client.post(path, json=body, headers=fields)

            await post("fails", input=[["error", -32000, "no"]])
            await post("wrong", input=[["error", -32602, "no"]])
            await post("stream", input=[["say", "a"], ["say", "b"], ["end"]], stream=True)
            await post("nobody", "/agent/nobody/invoke", input=1)
            answer = await post("run", headers={"prefer": "respond-async"}, input=[["end"]])
            await gateway.client.get("/ready", headers={"traceparent": PARENT})
            await it.until(lambda: len(it.spans) == 13)
        http, call = "POST /agent/{name}/invoke", "invoke_agent scripted"
        fails, wrong, stream, run, nobody = (it.of(trace) for trace in names.values())
        assert fails[http].failed
        assert fails[call].failed
        assert fails[http].attributes["error.type"] == "agent_error"
        assert fails[http].attributes["http.response.status_code"] == 500
        assert not wrong[http].failed  # the caller's fault
        assert wrong[call].attributes["error.type"] == "invalid_request"
        assert not stream[call].failed
        assert stream[call].attributes["gateway.chunks"] == 2
        assert stream[call].attributes["gateway.first_word"] >= 0
        assert nobody.keys() == {http}
        assert nobody[http].attributes["http.response.status_code"] == 404
        # A run's own spans are its request's children, whenever it ends.
        assert run[http].attributes["http.response.status_code"] == 202
        assert run[http].attributes["gateway.run"] == answer.headers["x-run-id"]
        assert run[call].parent == run["queue"].parent == run[http].id
        # What load balancers ask is not told.
        assert not it.of(TRACE)


async def test_a_collector_that_does_not_answer_delays_no_request_and_no_end(
    tmp_path: Path,
) -> None:
    hangs = threading.Event()
    try:
        with collector(lambda: (hangs.wait(60) and 200) or 503) as it:
            env = {**SOON, "OTEL_BSP_MAX_QUEUE_SIZE": "4", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "2"}
            async with serving(tmp_path, it.url, env=env) as gateway:
                for _ in range(5):
                    await asked(gateway)
                # What does not fit is counted at once; it is not waited for.
                await gateway.logged("spans are lost.* count=")
            assert not it.spans
            lost = [line for line in gateway.log if "spans were lost" in line]
            assert len(lost) == 1
            hangs.set()
    finally:
        hangs.set()


async def test_a_collector_that_nobody_reaches_loses_spans_which_are_counted(
    tmp_path: Path,
) -> None:
    env = {**SOON, "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    async with serving(tmp_path, "http://127.0.0.1:9", env=env) as gateway:
        await asked(gateway)
        line = await gateway.logged("spans are lost: the collector does not take them count=")
        assert line.endswith("count=3")


async def test_spans_that_a_redirect_would_send_elsewhere_are_lost_and_that_is_said(
    tmp_path: Path,
) -> None:
    with collector(lambda: 307) as it:
        async with serving(tmp_path, it.url) as gateway:
            await asked(gateway)
            await gateway.logged("the collector says to go to /elsewhere")
            await gateway.logged("spans are lost: the collector does not take them count=3")
        assert it.requests == []


def test_a_collectors_answer_is_not_unpacked() -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = gzip.compress(b"\0" * 200_000_000)
            self.send_response(400)
            self.send_header("content-encoding", "gzip")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server, CollectorSession() as session:
        serving = threading.Thread(target=server.handle_request)
        serving.start()
        response = session.request("POST", f"http://127.0.0.1:{server.server_port}/", data=b"spans")
        serving.join()
        assert response.status_code == 400
        assert len(response.content) <= MAX_ANSWER


WITHOUT = """
import sys
sys.modules["opentelemetry"] = None
from gateway.cli import main
main(sys.argv[1:])
"""


def test_without_the_extra_the_error_names_it(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text("[server.traces]\n[agents.x]\ncommand = 'cat'\n")
    command = [sys.executable, "-c", WITHOUT, "--config", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "server.traces: OpenTelemetry is not installed" in done.stderr
    assert "agent-gateway[traces]" in done.stderr


async def test_where_traces_are_off_nothing_of_opentelemetry_is_imported(tmp_path: Path) -> None:
    """Not even where the environment has a collector: only the setting switches them on."""
    with collector() as it:
        env = {**SOON, "OTEL_EXPORTER_OTLP_ENDPOINT": it.url, "PYTHONVERBOSE": "1"}
        options = ("--sandbox", "off")
        agents = {"scripted": SCRIPTED}
        async with running_gateway(agents, *options, env=env) as gateway:
            params = await asked(gateway, {"traceparent": PARENT})
            assert params["traceparent"] == PARENT
        assert any("import 'gateway.composition.server'" in line for line in gateway.log)
        assert not any("import 'opentelemetry" in line for line in gateway.log)
        assert it.exports == 0
