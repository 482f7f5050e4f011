"""What is shipped for those who watch a gateway: a scrape configuration, alerts and a dashboard, as
Debian's Prometheus and its promtool understand them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import need
from tests.harness import RunningGateway, one_process, running_gateway
from tests.http.metrics import TOML
from tests.http.proxies import DEPLOY

RULES = DEPLOY / "prometheus-rules.yml"
DASHBOARD = DEPLOY / "grafana-dashboard.json"
SCRAPES = DEPLOY / "prometheus.yml"


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a gateway says that has answered a request."""

    async def scrape() -> str:
        async with running_gateway(toml=TOML, folder=tmp_path_factory.mktemp("text")) as gateway:
            await gateway.post("/agent/puppet/invoke", input="answer")
            return (await gateway.client.get("/metrics")).text

    return trio.run(scrape)


def test_promtool_finds_no_fault_with_the_metrics(text: str) -> None:
    need(shutil.which("promtool"), "promtool is not installed")
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@asynccontextmanager
async def prometheus(folder: Path, gateway: RunningGateway) -> AsyncIterator[httpx.AsyncClient]:
    """Prometheus with the shipped configuration, which scrapes a gateway; a client of its API."""
    text = SCRAPES.read_text()
    for there, here in (
        ("127.0.0.1:8080", url_without_scheme(gateway)),
        ("scrape_interval: 15s", "scrape_interval: 200ms"),
        ("evaluation_interval: 15s", "evaluation_interval: 200ms"),
    ):
        assert text.count(there) == 1, there
        text = text.replace(there, here)
    (folder / "prometheus.yml").write_text(text)
    shutil.copy(RULES, folder)
    process = await trio.lowlevel.open_process(
        [
            "prometheus",
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            "--web.listen-address=127.0.0.1:0",
        ],
        stderr=subprocess.PIPE,
    )
    try:
        async with trio.open_nursery() as nursery:
            port = await nursery.start(_read_log, process.stderr)
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/api/v1") as client:
                yield client
            nursery.cancel_scope.cancel()
    finally:
        process.terminate()
        with trio.CancelScope(shield=True), trio.move_on_after(10):
            await process.wait()


async def _read_log(stream: Any, *, task_status: trio.TaskStatus[int]) -> None:
    """Tell the port that it listens on, and go on reading, so that it can go on writing."""
    text = ""
    told = False
    async for data in stream:
        if told:
            continue
        text += data.decode()
        found = re.search(r'msg="Listening on".* address=127\.0\.0\.1:(\d+)', text)
        if found is not None:
            told = True
            task_status.started(int(found[1]))
    assert told, text


def url_without_scheme(gateway: RunningGateway) -> str:
    return gateway.url.partition("://")[2]


async def query(client: httpx.AsyncClient, expression: str) -> list[dict[str, Any]]:
    response = await client.get("/query", params={"query": expression})
    body = response.json()
    assert body["status"] == "success", (expression, body)
    result: list[dict[str, Any]] = body["data"]["result"]
    return result


async def until_it_answers(client: httpx.AsyncClient, expression: str, value: str) -> None:
    with trio.fail_after(60):
        # Prometheus tells nobody when it has scraped.
        while [  # noqa: ASYNC110 - no event
            each["value"][1] for each in await query(client, expression)
        ] != [value]:
            await trio.sleep(0.05)


def expressions() -> list[str]:
    """What the dashboard asks Prometheus for."""
    found = [
        target["expr"]
        for panel in json.loads(DASHBOARD.read_text())["panels"]
        for target in panel.get("targets", [])
    ]
    assert len(found) > 40
    for name, value in {"$__rate_interval": "1m", "$instance": ".*", "$agent": ".*"}.items():
        found = [each.replace(name, value) for each in found]
    return found


async def test_prometheus_scrapes_a_gateway_and_answers_with_the_right_numbers(
    tmp_path: Path,
) -> None:
    need(shutil.which("prometheus"), "Prometheus is not installed")
    async with (
        running_gateway(toml=TOML, folder=tmp_path) as gateway,
        prometheus(tmp_path, gateway) as client,
    ):
        for _ in range(7):
            await gateway.post("/agent/puppet/invoke", input="answer")
        await gateway.post("/agent/other/invoke", input=1)
        await until_it_answers(client, 'up{job="agent-gateway"}', "1")
        count = 'sum(gateway_requests_total{{agent="{}",status="200",type=""}})'
        await until_it_answers(client, count.format("puppet"), "7")
        await until_it_answers(client, count.format("other"), "1")
        await until_it_answers(client, "gateway_connections", "2")
        # Of any scrape: after one that took more than 200 ms, there is none at the moment.
        [info] = await query(client, "last_over_time(gateway_info[5m])")
        assert info["metric"]["version"]
        for expression in expressions():
            await query(client, expression)
        groups = (await client.get("/rules")).json()["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        assert {rule["name"] for rule in rules} == set(ALERTS)
        # What a loaded machine is late with is true of it, and fires after minutes.
        late = {"GatewayDown": "pending", "EventLoopIsLate": "pending"}
        for rule in rules:
            assert rule["state"] in {"inactive", late.get(rule["name"], "inactive")}, rule
        assert not [rule for rule in rules if rule.get("lastError")]


# What is shipped
def names_in(expression: str) -> set[str]:
    """The names of metrics in an expression: what stands in no braces and no quotes, and is neither
    a label nor a function."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\b(by|without|on|ignoring) \([^)]*\)', "", expression)
    return set(re.findall(r"\b(?:gateway|process|python)_\w+", bare))


@one_process("front and host have metrics of their own")
def test_every_name_in_the_alerts_and_the_dashboard_is_one_that_a_gateway_exposes(
    text: str,
) -> None:
    exposed: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        parts = ["_bucket", "_sum", "_count"] if family.type == "histogram" else [""]
        exposed |= {f"{name}{part}": set() for part in parts}
    asked = [*expressions(), *rule_expressions()]
    used = set[str]().union(*map(names_in, asked))
    assert used <= exposed.keys()
    # And of what a gateway says of itself, the dashboard leaves nothing out.
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for each in asked for name in names_in(each)}
    own = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exposed if "gateway_" in name}
    assert own <= shown


def rule_expressions() -> Iterator[str]:
    """The expression of each alert."""
    for rule in RULES.read_text().split("- alert: ")[1:]:
        expression = re.search(r"expr: (.*?)\n        (?:for|labels):", rule, re.DOTALL)
        assert expression is not None, rule
        yield expression[1].removeprefix("|")


def test_every_alert_says_why_somebody_should_look() -> None:
    rules = RULES.read_text().split("- alert: ")[1:]
    assert len(rules) == len(ALERTS)
    for rule in rules:
        name = rule.partition("\n")[0]
        assert re.search(r"labels: \{ severity: (page|ticket) \}", rule), name
        assert re.search(r"\n          summary: \S", rule), name
        reason = re.search(r"\n          reason: >-\n(.*)", rule, re.DOTALL)
        assert reason is not None, name
        assert len(reason[1].split()) > 15, name


TARGET = 'instance="here",job="agent-gateway"'
AGENT = f'agent="echo",{TARGET}'
CALL = f'dialect="native",handler="invoke",{AGENT}'
USED = f'service="openai",{AGENT}'

ALERTS: Mapping[str, Mapping[str, str]] = {
    "GatewayDown": {f"up{{{TARGET}}}": "0x80"},
    "GatewayDefect": {
        # The series begins with the first error.
        f'gateway_requests_total{{{CALL},status="500",type="internal_error"}}': "_x75 1x5"
    },
    "AgentUnavailable": {f'gateway_agent_state{{{AGENT},state="open"}}': "1x80"},
    "AgentFails": {
        f'gateway_requests_total{{{CALL},status="200",type="worker_crashed"}}': "0+1x80",
        f'gateway_requests_total{{{CALL},status="200",type=""}}': "0+15x80",
    },
    "WorkersDie": {f'gateway_worker_ends_total{{{AGENT},reason="violation"}}': "0+1x80"},
    "RequestsQueueUp": {
        f"gateway_agent_waiting_requests{{{AGENT}}}": "85x80",
        f"gateway_agent_waiting_requests_limit{{{AGENT}}}": "100x80",
    },
    "RequestsRefused": {
        f'gateway_requests_total{{{CALL},status="503",type="overloaded"}}': "0+1x80"
    },
    "FirstWordIsSlow": {
        f'gateway_request_first_word_seconds_bucket{{{CALL},le="30.0"}}': "0+1x80",
        f'gateway_request_first_word_seconds_bucket{{{CALL},le="60.0"}}': "0+9x80",
        f'gateway_request_first_word_seconds_bucket{{{CALL},le="+Inf"}}': "0+9x80",
    },
    "EventLoopIsLate": {
        f'gateway_event_loop_delay_seconds_bucket{{{TARGET},le="0.1"}}': "0+8x80",
        f'gateway_event_loop_delay_seconds_bucket{{{TARGET},le="0.25"}}': "0+10x80",
        f'gateway_event_loop_delay_seconds_bucket{{{TARGET},le="+Inf"}}': "0+10x80",
    },
    "ConnectionsRunOut": {
        f"gateway_connections{{{TARGET}}}": "900x80",
        f"gateway_connections_limit{{{TARGET}}}": "1000x80",
    },
    "WrongKeys": {
        f'gateway_requests_total{{{TARGET},agent="",status="401",type="unauthorized"}}': "0+90x80"
    },
    "ServiceFails": {
        f'gateway_service_requests_total{{{USED},outcome="failed"}}': "0+2x80",
        f'gateway_service_requests_total{{{USED},outcome="allowed"}}': "0+10x80",
        f'gateway_service_requests_total{{{USED},outcome="refused"}}': "0+99x80",
    },
    "TokensRunOut": {
        f"gateway_service_budget_spent_tokens{{{USED}}}": "95x80",
        f"gateway_service_budget_tokens{{{USED}}}": "100x80",
    },
    "DescriptorsRunOut": {
        f"process_open_fds{{{TARGET}}}": "950x80",
        f"process_max_fds{{{TARGET}}}": "1000x80",
    },
    "LogLinesDropped": {f"gateway_log_lines_dropped_total{{{TARGET}}}": "0x75 5x5"},
}
"""For each alert, what makes it fire: samples a minute apart, and none of the others with it."""

HEALTHY: Mapping[str, str] = {
    f"up{{{TARGET}}}": "1x80",
    # From a restart on there are fewer.
    f'gateway_requests_total{{{CALL},status="500",type="internal_error"}}': "3x40 1x40",
    f'gateway_agent_state{{{AGENT},state="open"}}': "0x80",
    f'gateway_agent_state{{{AGENT},state="ready"}}': "1x80",
    f'gateway_requests_total{{{CALL},status="501",type="worker_crashed"}}': "0+1x80",
    f'gateway_requests_total{{{CALL},status="400",type="invalid_request"}}': "0+50x80",
    f'gateway_requests_total{{{CALL},status="200",type=""}}': "0+100x80",
    f'gateway_worker_ends_total{{{AGENT},reason="asked"}}': "0+9x80",
    f'gateway_worker_ends_total{{{AGENT},reason="exited"}}': "0x70 3x10",
    f"gateway_agent_waiting_requests{{{AGENT}}}": "0x80",
    f"gateway_agent_waiting_requests_limit{{{AGENT}}}": "0x80",
    f'gateway_request_first_word_seconds_bucket{{{CALL},le="2.5"}}': "0+10x80",
    f'gateway_request_first_word_seconds_bucket{{{CALL},le="+Inf"}}': "0+10x80",
    f'gateway_event_loop_delay_seconds_bucket{{{TARGET},le="0.1"}}': "0+99x80",
    f'gateway_event_loop_delay_seconds_bucket{{{TARGET},le="+Inf"}}': "0+100x80",
    f"gateway_connections{{{TARGET}}}": "100x80",
    f"gateway_connections_limit{{{TARGET}}}": "1000x80",
    f'gateway_service_requests_total{{{USED},outcome="failed"}}': "0+1x80",
    f'gateway_service_requests_total{{{USED},outcome="allowed"}}': "0+99x80",
    f"gateway_service_budget_spent_tokens{{{USED}}}": "50x80",
    f"gateway_service_budget_tokens{{{USED}}}": "100x80",
    f"gateway_log_lines_dropped_total{{{TARGET}}}": "7x80",
}


def a_case(series: Mapping[str, str], firing: list[str]) -> dict[str, Any]:
    """A test of promtool's: with these series, these alerts are there after 80 minutes."""
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": "80m",
                "exp_samples": [
                    {"labels": f'{{alertname="{name}"}}', "value": 1} for name in firing
                ],
            }
        ],
    }


def test_each_alert_fires_for_what_it_is_for_and_none_without(tmp_path: Path) -> None:
    need(shutil.which("promtool"), "promtool is not installed")
    cases = [a_case(series, [name]) for name, series in ALERTS.items()]
    # JSON is YAML.
    tests = {"rule_files": [str(RULES)], "tests": [*cases, a_case(HEALTHY, [])]}
    path = tmp_path / "tests.yml"
    path.write_text(json.dumps(tests))
    for words in (["check", "config", SCRAPES], ["check", "rules", RULES], ["test", "rules", path]):
        done = subprocess.run(
            ["promtool", *map(str, words)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_is_one_that_grafana_can_import() -> None:
    """Structurally: Debian has no Grafana."""
    dashboard = json.loads(DASHBOARD.read_text())
    assert dashboard["uid"]
    assert dashboard["title"]
    assert dashboard["schemaVersion"] >= 38
    assert "id" not in dashboard  # Grafana gives it one
    variables = {each["name"]: each for each in dashboard["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert all(0 <= x < 24 for x, _ in cells), panel["title"]
        taken |= cells
        if panel["type"] == "row":
            continue
        assert panel["description"], panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        targets = panel["targets"]
        assert len({target["refId"] for target in targets}) == len(targets) > 0
        for target in targets:
            assert target["legendFormat"], panel["title"]
            asked = set(re.findall(r"\$(?!__)\{?(\w+)", target["expr"]))
            assert asked <= variables.keys(), target["expr"]


@pytest.mark.parametrize("path", [RULES, SCRAPES], ids=lambda path: path.name)
def test_what_is_shipped_names_nothing_of_this_machine(path: Path) -> None:
    assert not re.search(r"/home/|/root/|/tmp/", path.read_text())
