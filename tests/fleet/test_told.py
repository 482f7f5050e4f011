"""What a real front and a real host tell of themselves: who has which agent, and their metrics."""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema_rs
import trio
import yaml
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families as parse

from gateway.config.keys import hash_key
from tests.deploy.conftest import PROJECT
from tests.fleet.fleets import Process, a_fleet
from tests.fleet.nats import needs_nats
from tests.harness import python_agent
from tests.http.console_follower import ADA, AS_ADA, AS_BOB, BOB
from tests.http.raw import becomes

pytestmark = needs_nats

AGENTS = Path(__file__).parent / "agents"
DEPLOY = PROJECT / "gateway" / "deploy"

NOT_AT_HOSTS = (
    *("/agents", "/agent/echo", "/agent/echo/health", "/health"),
    *("/openapi.json", "/docs", "/console", "/v1/models"),
)

KEYS = f"""
    [keys.ada]
    hash = "{hash_key(ADA.encode())}"
    [keys.bob]
    hash = "{hash_key(BOB.encode())}"
    agents = ["other"]
"""


def of_scaling() -> set[str]:
    """The names of metrics by which KEDA scales hosts."""
    [trigger] = yaml.safe_load((DEPLOY / "keda.yaml").read_text())["spec"]["triggers"]
    return names_in(trigger["metadata"]["query"])


def of_alerts() -> set[str]:
    """The names of metrics of which there are alerts."""
    groups = yaml.safe_load((DEPLOY / "prometheus-rules.yml").read_text())["groups"]
    return names_in("\n".join(rule["expr"] for group in groups for rule in group["rules"]))


def names_in(query: str) -> set[str]:
    return set(re.findall(r"\b(?:gateway|process)_\w+", query))


def versions_in(families: list[Metric]) -> dict[str, str]:
    """The versions of hosts in a scrape, by host."""
    return {
        sample.labels["host"]: sample.labels["version"]
        for each in families
        for sample in each.samples
        if sample.name == "gateway_fleet_host_info" and sample.value == 1
    }


async def scraped(process: Process, headers: dict[str, str] | None = None) -> list[Metric]:
    answer = await process.gateway.client.get("/metrics", headers=headers or {})
    assert answer.status_code == 200, answer.text
    return list(parse(answer.text))


def names_of(families: list[Metric]) -> set[str]:
    """The names that a query can have, whether or not there is a sample yet."""
    ends = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
    return {f"{each.name}{end}" for each in families for end in ends.get(each.type, ("",))}


def by_host(families: list[Metric], name: str, agent: str = "echo") -> dict[str, float]:
    """The samples of a metric of hosts, by host."""
    return {
        sample.labels["host"]: sample.value
        for each in families
        for sample in each.samples
        if sample.name == name and sample.labels.get("agent", agent) == agent
    }


def tables(**agents: list[str]) -> str:
    """The tables of these agents in TOML."""
    return "".join(
        f"[agents.{name}]\ncommand = {json.dumps(command)}\n" for name, command in agents.items()
    )


class Described:
    """What `/openapi.json` says of answers."""

    def __init__(self, document: Any) -> None:
        self._document = document

    def check(self, path: str, body: Any) -> None:
        answer = self._document["paths"][path]["get"]["responses"]["200"]
        schema = answer["content"]["application/json"]["schema"]
        whole = {**schema, "components": self._document["components"]}
        jsonschema_rs.validator_for(whole, offline=True).validate(body)


async def test_a_front_tells_of_each_host_in_its_lists_and_in_its_metrics(tmp_path: Path) -> None:
    tally = tmp_path / "tally"
    work = [sys.executable, str(AGENTS / "work.py"), str(tally)]
    agents = tables(echo=work, other=work)
    async with a_fleet(
        tmp_path,
        {},
        server="metrics = true",
        toml_of=lambda name: agents + (KEYS if name == "front" else ""),
    ) as fleet:
        front, client = fleet.fronts["front"], fleet.front.client
        described = Described((await client.get("/openapi.json", headers=AS_ADA)).json())

        async def listed(headers: dict[str, str] = AS_ADA) -> dict[str, Any]:
            answer = await client.get("/agents", headers=headers)
            described.check("/agents", answer.json())
            return {agent["name"]: agent["hosts"] for agent in answer.json()["agents"]}

        async def both_are_there() -> bool:
            hosts = (await listed()).get("echo", ())
            return [host["state"] for host in hosts] == ["ready", "ready"]

        await becomes(both_are_there)
        status = (await client.get("/agent/echo", headers=AS_ADA)).json()
        described.check("/agent/{name}", status)
        every = await listed()
        assert set(every) == {"echo", "other"}
        for hosts in (*every.values(), status["hosts"]):
            assert [host["name"] for host in hosts] == ["one", "two"]
            for host in hosts:
                assert host["capacity"] > 0
                assert (host["draining"], host["in_flight"], host["waiting"]) == (False, 0, 0)
        told = [{**host, "answered": True} for host in every["echo"]]
        assert told == status["hosts"]
        assert {host["version"] for host in told} == {version("agent-gateway")}
        assert set(await listed(AS_BOB)) == {"other"}
        assert (await client.get("/agent/echo", headers=AS_BOB)).status_code == 403

        found = await scraped(front, AS_ADA)
        for name in of_scaling():
            assert set(by_host(found, name)) == {"one", "two"}, name
        capacities = {host["name"]: host["capacity"] for host in told}
        assert by_host(found, "gateway_fleet_host_capacity") == capacities
        versions = {host["name"]: host["version"] for host in told}
        assert versions_in(found) == versions
        assert of_alerts() <= names_of(found)
        assert of_alerts() <= names_of(await scraped(fleet.hosts["one"]))

        async def ask(number: int) -> None:
            body = {"input": {"nonce": str(number), "seconds": 0, "held": True}}
            answer = await client.post("/agent/echo/invoke", json=body, headers=AS_ADA)
            assert answer.status_code == 200

        async def each_has_one() -> bool:
            return [host["in_flight"] for host in (await listed())["echo"]] == [1, 1]

        async def one_drains() -> bool:
            return [host["draining"] for host in (await listed())["echo"]] == [True, False]

        async with trio.open_nursery() as nursery:
            for number in range(2):
                nursery.start_soon(ask, number)
            await becomes(each_has_one)
            nursery.start_soon(fleet.hosts["one"].end)
            await becomes(one_drains)
            found = await scraped(front, AS_ADA)
            assert by_host(found, "gateway_fleet_host_draining") == {"one": 1, "two": 0}
            tally.with_name("tally.released").touch()

        async def one_is_gone() -> bool:
            return [host["name"] for host in (await listed())["echo"]] == ["two"]

        await becomes(one_is_gone)


async def test_a_host_serves_its_probes_and_metrics_and_nothing_else(tmp_path: Path) -> None:
    echo = {"echo": python_agent("echo.py")}
    async with a_fleet(
        tmp_path, echo, hosts=("one",), server="metrics = true\nconsole = true"
    ) as fleet:
        client = fleet.hosts["one"].gateway.client
        for path in ("/live", "/ready", "/metrics"):
            assert (await client.get(path)).status_code == 200, path
        for path in NOT_AT_HOSTS:
            assert (await client.get(path)).status_code == 404, path
            answer = await fleet.front.client.get(path, follow_redirects=True)
            assert answer.status_code == 200, path
        for path in ("/agent/echo/invoke", "/agent/echo/chat", "/v1/chat/completions"):
            assert (await client.post(path, json={"input": 1})).status_code == 404, path
