"""Which request a line of a worker's stderr is logged for."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import trio

from tests.faults.scene import ask, scene, shared

FAILING_BESIDE_OTHERS = """
import traceback

import anyio
from worker import Agent

agent = Agent("failing")
both = anyio.Event()


@agent.invoke
async def answer(wish):
    if wish == "wait":
        both.set()
        await anyio.sleep_forever()
    await both.wait()
    if wish == "print":
        try:
            raise LookupError("by itself")
        except LookupError:
            traceback.print_exc()
        await anyio.sleep_forever()
    raise LookupError("on\\n@1 purpose")
"""


async def test_a_traceback_is_logged_as_its_own_requests_and_no_others(tmp_path: Path) -> None:
    path = shared(tmp_path) / "failing.py"
    path.write_text(FAILING_BESIDE_OTHERS)
    bad = {"command": [sys.executable, "-m", "worker", f"{path}:agent"], "workers": {"max": 1}}
    async with scene(tmp_path, bad=bad) as gateway:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(ask, gateway, "bad", "wait", x_request_id="waits"))
            answer = await ask(gateway, "bad", "fail", x_request_id="fails")
            assert answer.status_code == 500
            await gateway.logged(r"@1 purpose.* request=fails$")
            lines = [line for line in gateway.log if "LookupError" in line or "Traceback" in line]
            # The control: what the agent prints by itself is logged for all that it might be of.
            nursery.start_soon(partial(ask, gateway, "bad", "print", x_request_id="prints"))
            await gateway.logged(r'LookupError: by itself.* request="waits,prints"$')
            nursery.cancel_scope.cancel()
        assert lines
        assert all(line.endswith(" request=fails") for line in lines), lines


SAYS = """
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    if "id" in request and (said := request["params"]["input"]) is not None:
        print(said.format(id=request["id"]), file=sys.stderr, flush=True)
        if not said.startswith("holds"):
            print(json.dumps({"id": request["id"], "result": {"output": 1}}), flush=True)
"""


async def test_an_agent_cannot_have_its_words_logged_as_those_of_another_agents_request(
    tmp_path: Path,
) -> None:
    """Not even if it knows the id by which the other one's worker knows the request."""
    says = {"command": [sys.executable, "-c", SAYS], "workers": {"max": 1}}
    async with (
        scene(tmp_path, holder=says, faker=says) as gateway,
        trio.open_nursery() as nursery,
    ):
        words = "holds {id}\n@{id} mine"
        nursery.start_soon(partial(ask, gateway, "holder", words, x_request_id="held"))
        # The control: of the worker that has the request, they are logged as the request's.
        await gateway.logged(r" INFO mine agent=holder .*request=held$")
        wire_id = (await gateway.logged(r"holds \d+ ")).partition("holds ")[2].split()[0]
        await ask(gateway, "faker", f"@{wire_id} forged")
        forged = await gateway.logged("forged")
        assert f" INFO @{wire_id} forged agent=faker " in forged
        assert "held" not in forged
        nursery.cancel_scope.cancel()
