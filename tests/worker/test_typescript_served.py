"""Agents in TypeScript behind the real gateway, in the strict sandbox."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import trio

from tests.harness import running_gateway
from tests.http.raw import connected
from tests.javascript import need_runtime
from tests.sandbox.users import need_sandbox

SOURCE = """
import { once, EventEmitter } from "node:events";
import { spawnSync } from "node:child_process";
import { Agent } from "agent-gateway-worker";

const steps = new EventEmitter();
export const agent = new Agent("bot", { description: "Speaks when it is told to." });
console.log("printed at import");
spawnSync("echo", ["printed by a child"], { stdio: "inherit" });

agent.chat(async function* (messages, ctx) {
  try {
    for (const word of ["one ", "two ", "three"]) {
      yield word;
      await once(steps, "go", { signal: ctx.signal });
    }
  } finally {
    console.log(`ended for ${ctx.signal.aborted ? "a client that left" : "good"}`);
  }
});

agent.invoke((input) => steps.emit(input));
"""


@pytest.fixture(params=["node20", "node24", "bun"])
def toml(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    need_sandbox("root" if os.geteuid() == 0 else "user")
    runtime = need_runtime(str(request.param))
    (tmp_path / "agent").mkdir()
    (tmp_path / "agent" / "bot.mjs").write_text(SOURCE)
    agent_worker = Path(sys.executable).with_name("agent-worker")
    return f"""
[agents.bot]
command = ["{agent_worker}", "--runtime={runtime}", "{tmp_path}/agent/bot.mjs"]
workers = {{ max = 1 }}
"""


async def test_a_stream_comes_word_by_word_and_a_client_that_leaves_aborts_the_signal(
    tmp_path: Path, toml: str
) -> None:
    asking = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
    async with running_gateway(toml=toml, folder=tmp_path) as gateway:
        await gateway.logged("printed at import")
        await gateway.logged("printed by a child")
        async with connected(gateway.port) as connection:
            await connection.request("/agent/bot/chat", asking)
            for word in (b"one ", b"two ", b"three"):
                await connection.until(b'"%s"' % word)
                # The next word is not said before this one was heard.
                with trio.fail_after(30):  # the agent listens a moment after it has said the word
                    while (await gateway.post("/agent/bot/invoke", input="go")).json() != {
                        "output": True
                    }:
                        pass
            await connection.until(rb"data: \[DONE\]")
        await gateway.logged("ended for good")
        async with connected(gateway.port) as connection:
            await connection.request("/agent/bot/chat", asking)
            await connection.until(b'"one "')
        await gateway.logged("ended for a client that left")
        assert (await gateway.post("/agent/bot/invoke", input="go")).json() == {"output": False}
        state = await gateway.state("bot")
        assert state["description"] == "Speaks when it is told to."
        assert state["in_flight"] == 0
