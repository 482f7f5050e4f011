"""Which request a line of a worker's stderr is logged for."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import trio

from tests.faults.scene import ask, scene, shared

FAILING_BESIDE_OTHERS = """
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
            nursery.cancel_scope.cancel()
        lines = [line for line in gateway.log if "LookupError" in line or "Traceback" in line]
        assert lines
        assert all(line.endswith(" request=fails") for line in lines), lines
