"""Agents written with the SDKs, before the same scenarios: they say what `told.py` says by hand."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.clients.clients import AGENT, ALL_SECONDS, CLIENTS, NODE, order, run
from tests.clients.row import Client
from tests.clients.scenarios import ALL, TOLD, Reply, Scenario
from tests.harness import GatewayInThread, gateway_in_thread
from tests.javascript import need_runtime
from tests.sandbox.users import need_sandbox

pytestmark = pytest.mark.timeout(ALL_SECONDS)  # the first test waits for the client

PROGRAM = "with_openai.py"
"""The client that is strictest about what comes."""

TASKS = {
    "hello", "stop-early", "weather", "own-weather", "search", "think", "ask", "refuse",
    "fail-later",
}  # fmt: skip
SCENARIOS = [
    each for each in ALL if each.task in TASKS and each.model == TOLD and not each.wrong_key
]
BOTH = [client for client in CLIENTS if client.program == PROGRAM]


@pytest.fixture(scope="module", params=["told_sdk.py", "told_sdk.mjs"])
def sdk_gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayInThread]:
    """A gateway whose agent `told` is written with an SDK, in the strict sandbox."""
    need_sandbox("root" if os.geteuid() == 0 else "user")
    file = AGENT.with_name(request.param)
    runtime = [f"--runtime={need_runtime(NODE)}"] if file.suffix == ".mjs" else []
    command = [str(Path(sys.executable).with_name("agent-worker")), *runtime, f"{file}:agent"]
    toml = f"[agents.told]\ncommand = {json.dumps(command)}\nworkers = {{ max = 1 }}\n"
    with gateway_in_thread(toml, tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def replies(
    sdk_gateway: GatewayInThread, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Reply]:
    orders = {
        client.token(scenario): order(client, scenario) for client in BOTH for scenario in SCENARIOS
    }
    return run(PROGRAM, sdk_gateway.url, tmp_path_factory.mktemp("clients"), orders)[1]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
@pytest.mark.parametrize("client", BOTH, ids=str)
def test_an_agent_of_an_sdk_says_what_one_without_says(
    replies: Mapping[str, Reply], client: Client, scenario: Scenario
) -> None:
    reply = replies[client.token(scenario)]
    assert "broken" not in reply
    assert scenario.check(reply), reply
