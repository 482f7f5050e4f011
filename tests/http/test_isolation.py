"""Two hundred streams at once over four agents, between two more that do nothing right."""

from __future__ import annotations

import secrets
import sys

import trio

from tests.harness import parse_events, running_gateway
from tests.http.conftest import AGENTS, SCRIPTED
from tests.http.raw import connected

STREAMS = 200
GOOD = ("one", "two", "three", "four")
BAD = {"crashes": (501, "worker_crashed"), "garbage": (502, "invalid_agent_response")}
PIECES = 5


def toml() -> str:
    def words(*parts: str) -> str:
        return ", ".join(f"'{part}'" for part in parts)

    agents = [f"[agents.{name}]\ncommand = [{words(*SCRIPTED)}]\n" for name in GOOD]
    for name, script in (("crashes", "crash.py"), ("garbage", "garbage.py")):
        command = words(sys.executable, str(AGENTS / script))
        agents.append(
            f"[agents.{name}]\ncommand = [{command}]\n"
            # Every request is to reach a worker of its own, and to be its end.
            "restart = { failures = 10000, backoff = 0 }\nqueue = 1000\n"
        )
    return "[defaults]\nworkers = { min = 1, max = 2 }\n" + "".join(agents)


async def test_every_stream_gets_its_own_words_while_others_crash_and_babble(tmp_path) -> None:
    wrong: list[str] = []
    answered = dict.fromkeys((*GOOD, *BAD), 0)
    async with running_gateway(toml=toml(), folder=tmp_path) as gateway:

        async def talk(agent: str) -> None:
            nonce = secrets.token_hex(8)
            # The pieces are let out one by one, so that all streams are under way together.
            script = [["say", f"{nonce} {piece}"] for piece in range(PIECES)]
            async with connected(gateway.port) as connection:
                body = {"input": [*script, ["end"]], "stream": True}
                await connection.request(f"/agent/{agent}/invoke", body)
                answer = await connection.answer()
            expected = [f'{{"chunk":"{nonce} {piece}"}}' for piece in range(PIECES)]
            if list(parse_events(answer.body.decode())) != [*expected, "[DONE]"]:
                wrong.append(f"{agent}: {answer}")
            answered[agent] += 1

        async def provoke(agent: str) -> None:
            while sum(answered[name] for name in GOOD) < STREAMS or not answered[agent]:
                answer = await gateway.post(f"/agent/{agent}/invoke", input="x")
                kind = answer.json()["error"]["type"]
                if (answer.status_code, kind) != BAD[agent]:
                    wrong.append(f"{agent}: {answer.text}")
                answered[agent] += 1

        async with trio.open_nursery() as nursery:
            for agent in BAD:
                nursery.start_soon(provoke, agent)
            for number in range(STREAMS):
                nursery.start_soon(talk, GOOD[number % len(GOOD)])
        states = {name: await gateway.state(name) for name in GOOD}
    assert wrong == []
    assert {name: answered[name] for name in GOOD} == dict.fromkeys(GOOD, STREAMS // len(GOOD))
    assert all(answered[name] for name in BAD)
    assert {name: state["failures"] for name, state in states.items()} == dict.fromkeys(GOOD, 0)
    assert {name: state["in_flight"] for name, state in states.items()} == dict.fromkeys(GOOD, 0)
