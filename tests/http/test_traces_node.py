"""Traces that go on in an agent on Node, with OpenTelemetry's own packages for it."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import trio

from tests.harness import running_gateway
from tests.http.collector import collector
from tests.http.conftest import AGENTS
from tests.http.test_traces import SOON, SPAN
from tests.javascript import MODULES, need_package, need_runtime
from tests.sandbox.users import available_users, need_sandbox

STREAM = f"{3:032x}"
"""The trace of a request for a stream."""


async def test_an_agents_spans_on_node_join_the_traces_of_their_requests(tmp_path: Path) -> None:
    need_sandbox(available_users()[0])
    need_package("@opentelemetry/sdk-trace")
    with collector() as it, tempfile.TemporaryDirectory(prefix="traced-") as place:
        os.chmod(place, 0o755)
        shutil.copy(AGENTS / "traced.mjs", place)
        os.symlink(MODULES, f"{place}/node_modules")
        agent_worker = str(Path(sys.executable).with_name("agent-worker"))
        runtime = f"--runtime={need_runtime('node24')}"
        toml = f"""
            [server.traces]
            endpoint = "{it.url}"
            [services.stub]
            url = "{it.url}/service"
            [services.collector]
            url = "{it.url}"
            env = {{ OTEL_EXPORTER_OTLP_ENDPOINT = "{{url}}" }}
            [agents.traced]
            command = {json.dumps([agent_worker, runtime, f"{place}/traced.mjs"])}
            workers = {{ max = 1 }}
            services = ["stub", "collector"]
            [agents.traced.sandbox]
            mounts_ro = [{json.dumps(str(MODULES))}]
        """
        traces = {f"request-{number}": f"{number:032x}" for number in (1, 2)}
        answers = {}
        async with running_gateway(toml=toml, folder=tmp_path, env=SOON) as gateway:

            async def ask(name: str, trace: str) -> None:
                fields = {"traceparent": f"00-{trace}-{SPAN}-01", "tracestate": "vendor=x"}
                body = {"input": name}
                answers[name] = await gateway.client.post(
                    "/agent/traced/invoke", json=body, headers=fields
                )

            async with trio.open_nursery() as nursery:  # both are with the one worker
                for name, trace in traces.items():
                    nursery.start_soon(ask, name, trace)
            body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
            fields = {"traceparent": f"00-{STREAM}-{SPAN}-01"}
            answer = await gateway.client.post("/agent/traced/chat", json=body, headers=fields)
            assert answer.text.endswith("data: [DONE]\n\n"), answer.text
            await it.until(lambda: all(len(it.of(trace)) == 5 for trace in traces.values()))
            await it.until(lambda: len(it.of(STREAM)) == 4)
        sent = {each["path"]: each["traceparent"] for each in it.requests}
        for name, trace in traces.items():
            assert answers[name].status_code == 200, answers[name].text
            spans = it.of(trace)
            worker, think, look_up = (
                spans[each] for each in ("invoke_agent traced", "think", "look up")
            )
            assert (think.parent, think.service, think.state) == (worker.id, "traced", "vendor=x")
            assert (look_up.parent, look_up.service) == (think.id, "traced")
            # What the worker was told is its span, and what the service saw is the agent's.
            output = answers[name].json()["output"]
            assert output["traceparent"] == f"00-{trace}-{worker.id}-01"
            assert output["tracestate"] == "vendor=x"
            assert sent[f"/service/{name}"] == f"00-{trace}-{look_up.id}-01"
        stream = it.of(STREAM)
        assert stream["say"].parent == stream["invoke_agent traced"].id
