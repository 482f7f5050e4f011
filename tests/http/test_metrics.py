"""`/metrics` of a real gateway: what is seen there, and by whom."""

from __future__ import annotations

import json
import re
from pathlib import Path

import trio

from gateway.config.keys import hash_key
from tests.harness import RunningGateway, one_process, reload, running_gateway
from tests.http.metrics import TOML
from tests.http.raw import connected


async def scraped(gateway: RunningGateway) -> dict[str, float]:
    """What a scrape says, by name and labels as they are written."""
    text = (await gateway.client.get("/metrics")).text
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


async def until(gateway: RunningGateway, sample: str, value: float) -> dict[str, float]:
    """Scrape until a sample has a value."""
    with trio.fail_after(30):
        while (found := await scraped(gateway)).get(sample) != value:  # noqa: ASYNC110 - no event
            await trio.sleep(0.02)  # a scrape takes the gateway's time, which is to get there
    return found


@one_process("the metrics of workers are those of hosts")
async def test_what_happens_to_a_gateway_is_seen_in_its_metrics(tmp_path: Path) -> None:
    async with running_gateway(toml=TOML, folder=tmp_path) as gateway:
        for _ in range(3):
            assert (await gateway.post("/agent/puppet/invoke", input="answer")).status_code == 200
        assert (await gateway.post("/agent/none/invoke", input=1)).status_code == 404
        chat = {"model": "puppet", "messages": [{"role": "user", "content": "answer"}]}
        assert (await gateway.client.post("/v1/chat/completions", json=chat)).status_code == 502
        async with connected(gateway.port) as connection:
            await connection.request("/agent/puppet/invoke", {"input": "speak", "stream": True})
            await connection.until(b"word")
            said = await scraped(gateway)
            assert said['gateway_agent_open_streams{agent="puppet"}'] == 1
            assert said['gateway_agent_running_requests{agent="puppet"}'] == 1
            assert said['gateway_workers{agent="puppet",state="busy"}'] == 1
            assert said["gateway_connections"] == 2
        call = 'agent="puppet",dialect="native",handler="invoke"'
        await until(gateway, f"gateway_requests_abandoned_total{{{call}}}", 1)
        # The worker dies with one more request.
        assert (await gateway.post("/agent/puppet/invoke", input="die")).status_code == 501
        dead = 'gateway_worker_ends_total{agent="puppet",reason="exited"}'
        said = await until(gateway, dead, 1)
        assert said[f'gateway_requests_total{{{call},status="200",type=""}}'] == 4
        crashed = f'{call},status="501",type="worker_crashed"'
        assert said[f"gateway_requests_total{{{crashed}}}"] == 1
        assert said[f"gateway_request_chunks_total{{{call}}}"] == 1
        assert said[f"gateway_request_duration_seconds_count{{{call}}}"] == 5
        missing = 'agent="",dialect="native",handler="invoke",status="404",type="agent_not_found"'
        assert said[f"gateway_requests_total{{{missing}}}"] == 1
        wrong = 'agent="puppet",dialect="openai",handler="chat",status="502"'
        assert said[f'gateway_requests_total{{{wrong},type="invalid_agent_response"}}'] == 1
        said = await until(gateway, 'gateway_worker_start_seconds_count{agent="puppet"}', 2)
        assert said['gateway_worker_starts_total{agent="puppet"}'] == 2
        await gateway.post("/agent/other/invoke", input=1)  # until then it may not run yet
        said = await scraped(gateway)
        assert said['gateway_worker_memory_bytes{agent="other"}'] > 1_000_000
        with trio.fail_after(30):  # it is looked at four times a second
            while not said["gateway_event_loop_delay_seconds_count"]:
                await trio.sleep(0.02)
                said = await scraped(gateway)
        assert said["process_open_fds"] > 3


async def test_a_request_without_its_client_is_counted_as_a_run(tmp_path: Path) -> None:
    async with running_gateway(toml=TOML, folder=tmp_path) as gateway:
        response = await gateway.client.post(
            "/agent/puppet/invoke", json={"input": "hold"}, headers={"prefer": "respond-async"}
        )
        assert response.status_code == 202
        said = await until(gateway, 'gateway_runs{state="going_on"}', 1)
        call = 'agent="puppet",dialect="native",handler="invoke"'
        assert said[f'gateway_requests_total{{{call},status="202",type=""}}'] == 1
        await gateway.client.post(f"{response.headers['location']}/cancel")
        said = await until(gateway, 'gateway_runs{state="kept"}', 1)
        assert said[f'gateway_runs_ended_total{{{call},type="cancelled"}}'] == 1


KEYS = {name: f"{name}-{'x' * 32}" for name in ("all", "some", "watcher")}
AGENTS = {"all": ["*"], "some": ["puppet"], "watcher": []}


def with_keys(metrics: str) -> str:
    tables = "".join(
        f"[keys.{name}]\nhash = {json.dumps(hash_key(key.encode()))}\n"
        f"agents = {json.dumps(AGENTS[name])}\n"
        for name, key in KEYS.items()
    )
    return TOML.replace("metrics = true", f"metrics = {metrics}") + tables


READERS = {
    "true": {"all": 200, "some": 403, "watcher": 403, "": 401},
    '["watcher"]': {"all": 403, "some": 403, "watcher": 200, "": 401},
    '"open"': {"all": 200, "some": 200, "watcher": 200, "": 200},
    "false": {"all": 404, "some": 404, "watcher": 404, "": 404},
}
"""By setting and key, the status of a scrape."""


@one_process("front and host reload, each in its time")
async def test_where_there_are_keys_the_setting_says_who_may_read_the_metrics(
    tmp_path: Path,
) -> None:
    async with running_gateway(toml=with_keys("true"), folder=tmp_path) as gateway:
        path, body = "/agent/puppet/invoke", {"input": "answer"}
        bearer = {"authorization": f"Bearer {KEYS['some']}"}
        response = await gateway.client.post(path, json=body, headers=bearer)
        assert response.status_code == 200
        assert (await gateway.client.post(path, json=body)).status_code == 401
        for metrics, readers in READERS.items():
            await reload(gateway, tmp_path, with_keys(metrics), "reload: (done|nothing)")
            for name, status in readers.items():
                headers = {"x-api-key": KEYS[name]} if name else {}
                response = await gateway.client.get("/metrics", headers=headers)
                assert response.status_code == status, (metrics, name)
                if status == 200:
                    counted = 'gateway_key_requests_total{key="some",status="200"} '
                    assert counted in response.text
                    assert 'handler="invoke",status="401",type="unauthorized"} 1.0' in response.text
                    assert not any(key in response.text for key in KEYS.values())
                elif status == 401:
                    assert response.headers["www-authenticate"] == "Bearer"


@one_process("the metrics of workers are those of hosts")
async def test_what_a_reload_removes_is_no_label_any_more(tmp_path: Path) -> None:
    whole = with_keys('"open"')
    async with running_gateway(toml=whole, folder=tmp_path) as gateway:
        for name in ("puppet", "other"):
            response = await gateway.client.post(
                f"/agent/{name}/invoke", json={"input": 1}, headers={"x-api-key": KEYS["all"]}
            )
            assert response.status_code == 200
        text = (await gateway.client.get("/metrics")).text
        assert {"puppet", "other"} == set(re.findall(r'agent="([^"]+)"', text))
        assert {"all"} == set(re.findall(r'key="([^"]+)"', text))
        less = whole.partition("[agents.other]")[0] + whole[whole.index("[keys.some]") :]
        await reload(gateway, tmp_path, less, "reload: (done|nothing)")
        text = (await gateway.client.get("/metrics")).text
        assert {"puppet"} == set(re.findall(r'agent="([^"]+)"', text))
        assert not re.findall(r'key="([^"]+)"', text)


async def test_without_the_setting_there_are_no_metrics_and_nothing_of_them_is_loaded(
    tmp_path: Path,
) -> None:
    toml = TOML.replace("metrics = true", "")
    shown = {"PYTHONPROFILEIMPORTTIME": "1"}
    async with running_gateway(toml=toml, folder=tmp_path, env=shown) as gateway:
        await gateway.post("/agent/puppet/invoke", input="answer")
        assert (await gateway.client.get("/metrics")).status_code == 404
        imported = {line.rpartition("|")[2].strip() for line in gateway.log}
    assert {"gateway.composition.server", "gateway.observe.metrics.readings"} <= imported
    assert not [name for name in imported if name.startswith("prometheus_client")]
    assert "gateway.observe.metrics.requests" not in imported
