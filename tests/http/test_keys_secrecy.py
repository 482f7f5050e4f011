"""Keys reach nobody, nor does what one caller was answered reach another."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import trio

from gateway.config.keys import KEY_VARIABLE
from tests.harness import (
    running_gateway,
)
from tests.http.keys import (
    ALICE,
    BOB,
    COMMAND,
    ONLY_MEM,
    WRONG,
    bearer,
    hash_of,
    toml,
)


async def test_a_key_is_in_no_worker_no_answer_and_no_log(tmp_path: Path) -> None:
    environ = {KEY_VARIABLE: WRONG}
    async with running_gateway(toml=toml(ONLY_MEM), folder=tmp_path, env=environ) as gateway:
        said = ""
        for key, name in ((ALICE, "alice"), (BOB, "bob"), (WRONG, "default")):
            answer = await gateway.client.post(
                "/agent/mem/invoke",
                json={"input": name, "context": {"conversation_id": "c", "custom": {"x": 1}}},
                headers={"x-api-key": key},
            )
            assert answer.json()["output"]["conversation"] == f"{name}/c"
            await gateway.logged(f"request ended .* agent=mem key={name} ")
            said += answer.text
        for key in (ALICE[:-1], ALICE + "x"):
            said += (await gateway.client.get("/agents", headers=bearer(key))).text
        metrics = (await gateway.client.get("/metrics", headers=bearer(ALICE))).text
        for name in ("alice", "bob", "default"):
            assert f'key="{name}"' in metrics
        said += metrics
        status = await gateway.client.get("/agent/mem", headers=bearer(ALICE))
        said += status.text + str(status.headers)
        [worker] = status.json()["workers"]
        proc = Path(f"/proc/{worker['pid']}")
        said += (proc / "environ").read_text() + (proc / "cmdline").read_text()
    said += "\n".join(gateway.log)
    for key in (ALICE, BOB, WRONG):
        assert key not in said
        assert key[4:30] not in said
        assert hash_of(key).partition(":")[2] not in said


GARBLER = """
import json, sys
params = {"protocol": 1, "handlers": ["invoke"], "concurrency": 2}
print(json.dumps({"jsonrpc": "2.0", "method": "ready", "params": params}), flush=True)
for number, line in enumerate(sys.stdin):
    if number:
        print("the secret of alice, who asked first", flush=True)
"""


async def test_what_one_was_answered_is_in_no_other_callers_error(tmp_path: Path) -> None:
    (tmp_path / "garbler.py").write_text(GARBLER)
    command = json.dumps([sys.executable, str(tmp_path / "garbler.py")])
    text = toml(ONLY_MEM).replace(COMMAND, command)
    async with running_gateway(toml=text, folder=tmp_path) as gateway:
        answers = []

        async def ask(key: str) -> None:
            answers.append(
                await gateway.client.post(
                    "/agent/mem/invoke", json={"input": 1}, headers=bearer(key)
                )
            )

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, ALICE)
            nursery.start_soon(ask, BOB)
        for answer in answers:
            assert answer.status_code == 502
            assert answer.json()["error"]["violation"] == "not_json"
            assert "secret" not in answer.text
        status = await gateway.client.get("/agent/mem", headers=bearer(BOB))
        assert "secret" not in status.text
        assert "the agent's answer is invalid" in status.json()["last_failure"]["message"]
        await gateway.logged("a line is not JSON .*the secret of alice")
